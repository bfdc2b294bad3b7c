"""What the requests of a stage cost, at every tier and with or without a cache."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from data_gen import settings
from data_gen.clients import protocol
from data_gen.clients import settings as client_settings
from data_gen.engine import pricing
from data_gen.planning.calls import Call
from msm_jax import errors

TIERS = (client_settings.STANDARD, client_settings.FLEX, client_settings.BATCH)
OFF, EXPLICIT = "off", "explicit"
CACHES = (OFF, EXPLICIT)
# How long an answer takes, which is how long a cache has to be kept for it.
SECONDS = {client_settings.FLEX: 120.0}
SECONDS_OTHERWISE = 20.0
# Prompts that are shorter cannot be cached, whatever the config says.
_MIN_CACHED = {"gemini": 1024, "anthropic": 4096}
_MIN_CACHED_PRO = 4096

Clients = Mapping[str, settings.ClientSettings]
Cell = tuple[str, str]  # tier, cache


def variant(
  client: settings.ClientSettings, tier: str, cache: str
) -> settings.ClientSettings | None:
  """Returns a client at another tier and cache; None: the service has no such thing."""
  # Whoever chooses flex is told to have patience; here only the price counts.
  patience = max(client.timeout_s, client_settings.FLEX_TIMEOUT_S)
  found = dataclasses.replace(client, tier=tier, cache=cache, timeout_s=patience)
  try:
    client_settings.check("", found)
  except errors.UserError:
    return None
  return found


def at(clients: Clients, tier: str, cache: str) -> dict[str, settings.ClientSettings]:
  """Returns clients at another tier and cache; those that cannot are left out.

  The offline teacher is the same at all of them.
  """
  found = {}
  for role, client in clients.items():
    if client.client == "offline":
      found[role] = client
    elif (other := variant(client, tier, cache)) is not None:
      found[role] = other
  return found


def table(calls: Sequence[Call], clients: Clients) -> dict[Cell, float | None]:
  """Returns what is still to be paid at each tier, with and without a cache."""
  return {
    (tier, cache): dollars(calls, at(clients, tier, cache))
    for tier in TIERS
    for cache in CACHES
  }


def dollars(calls: Iterable[Call], clients: Clients) -> float | None:
  """Returns what is still to be paid for the calls of a corpus.

  None: a client is not there, or its price is not known.
  """
  calls = [call for call in calls if call.left]
  hours = hours_of(calls, clients)
  found = [
    of_call(call, clients[call.role], hours) if call.role in clients else None
    for call in calls
  ]
  return None if None in found else sum(found)


def of_call(call: Call, client: settings.ClientSettings, hours: float) -> float | None:
  """Returns what is still to be paid for a stage; None: the price is not known.

  Args:
    call: its requests.
    client: who answers, with its tier and cache.
    hours: how long a cache is kept.
  """
  price = pricing.price_of(client)
  if price is None:
    return None
  once, cached = 0.0, 0.0
  if client.cache == EXPLICIT and call.left and call.system_tokens >= least(client):
    cached = call.system_tokens
    written = protocol.Usage(
      prompt_tokens=cached,
      cache_write_tokens=cached,
      # Where keeping is free, the writer also answers: it reads nothing from the cache.
      cache_token_hours=cached * hours,
    )
    once = price.dollars(written)
    if price.storage is None:
      read = protocol.Usage(prompt_tokens=cached, cached_tokens=cached)
      once -= price.dollars(read)
  # One request at a time: the price of a long one is another.
  usage = protocol.Usage(
    prompt_tokens=call.prompt_tokens,
    cached_tokens=cached,
    response_tokens=call.response_tokens,
  )
  return call.left * price.dollars(usage) + once


def least(client: settings.ClientSettings) -> int:
  """Returns how many tokens a prompt needs before it can be cached.

  As documented by the services for their current models, the larger where they differ
  inside a family.
  """
  if client.client == "gemini" and "pro" in client.model:
    return _MIN_CACHED_PRO
  return _MIN_CACHED.get(client.client, 0)


def hours_of(calls: Iterable[Call], clients: Clients) -> float:
  """Returns how long the requests of a corpus take, one stage after the other."""
  seconds = 0.0
  for call in calls:
    if (client := clients.get(call.role)) is not None:
      each = SECONDS.get(client.tier, SECONDS_OTHERWISE)
      seconds += each * max(call.left / client.max_concurrency, 1.0)
  return seconds / 3600
