"""Who answers and how to reach it: one frozen dataclass, checked once."""

import dataclasses
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any

from msm_jax import errors

CLIENTS = ("offline", "gemini", "openai", "anthropic")
STANDARD, FLEX, BATCH, PRIORITY = "standard", "flex", "batch", "priority"
_TIERS = {
  "offline": (STANDARD,),
  "gemini": (STANDARD, FLEX, BATCH, PRIORITY),
  "openai": (STANDARD, FLEX, BATCH),
  "anthropic": (STANDARD, BATCH),
}
_CACHES = {"gemini": ("off", "explicit"), "anthropic": ("off", "explicit")}
_SAFETY = {"gemini": ("default", "off", "block_none")}
_STRUCTURED = ("schema", "json_object", "none")
_THINKING_FIELDS = ("enable_thinking", "reasoning_effort", "reasoning")
_LIMIT_FIELDS = ("max_tokens", "max_completion_tokens")
_GEMINI_KEYS = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
# Fields that would change what an answer costs behind the back of the budget.
_OF_THE_BUDGET = (*_LIMIT_FIELDS, "max_output_tokens", "n", "best_of", "service_tier")
# A flex answer may take a quarter of an hour; one that is cut off may be billed.
FLEX_TIMEOUT_S = 900.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientSettings:
  """Who answers (`config.teacher`, `config.judge`).

  Attributes:
    client: 'offline', 'gemini', 'openai' (any server that speaks its protocol) or
      'anthropic'.
    model: the service's model id; for 'offline' the world that answers.
    base_url: None is the service's own, or `GOOGLE_GEMINI_BASE_URL`.
    api_key_env: environment variable with the key; None: the service's usual ones,
      and no key at all for an 'openai' server with a base_url.
    api_version: 'gemini': None is the SDK's default.
    thinking: 'off', the level that the service knows ('minimal', 'low', ...), or a
      number of tokens as text; thoughts are billed and count against
      `max_output_tokens`.
    max_concurrency: requests in flight.
    start_concurrency: how many of them at the start; None: the scheduler's choice.
    timeout_s: limit for one attempt.
    max_attempts: attempts per request; waiting for a rate limit is not an attempt.
    seed: part of the identity of every request.
    prices: dollars per million (prompt, cached prompt, response) tokens at the
      standard tier, for a model that `pricing.py` does not know; a fourth number is
      the price of writing to a cache, a fifth of keeping it for an hour.
    tier: 'standard', 'flex' (half price, may take minutes), 'batch' (half price, may
      take a day) or 'priority' (dearer), where the service has it.
    cache: 'explicit' puts long system prompts into the service's paid cache.
    safety: 'gemini': the service's 'default' filters, 'off' or 'block_none'.
    project, location: 'gemini' on Vertex instead of the Developer API.
    structured: 'openai': what is asked for where a stage wants JSON: its 'schema',
      just a 'json_object', or 'none' for a server that knows neither.
    thinking_field: 'openai': how the server is told of `thinking`: 'enable_thinking'
      (of the chat template), 'reasoning_effort' or 'reasoning' (OpenRouter); None: it
      is not told, and 'off' is all that `thinking` may be.
    token_limit_field: 'openai': 'max_tokens', or 'max_completion_tokens' as OpenAI's
      newer models want it.
    send_seed: 'openai': whether the server is told a seed; some refuse the field.
    extra_body: 'openai', 'anthropic': further fields of every request.
    context_tokens: how long prompt and answer may be together; None: what all models
      of the service take, where that is known.
  """

  client: str
  model: str
  base_url: str | None = None
  api_key_env: str | None = None
  api_version: str | None = None
  temperature: float = 1.0
  max_output_tokens: int = 8192
  thinking: str = "off"
  max_concurrency: int = 32
  start_concurrency: int | None = None
  timeout_s: float = 300.0
  max_attempts: int = 5
  seed: int = 0
  prices: tuple[float, ...] | None = None
  tier: str = STANDARD
  cache: str = "off"
  safety: str = "default"
  project: str | None = None
  location: str | None = None
  structured: str = "schema"
  thinking_field: str | None = None
  token_limit_field: str = "max_tokens"
  send_seed: bool = True
  extra_body: Mapping[str, Any] | None = None
  context_tokens: int | None = None

  def content(self) -> dict[str, Any]:
    """Returns the fields that decide what is answered, not how it is fetched."""
    names = (
      "client",
      "model",
      "temperature",
      "max_output_tokens",
      "thinking",
      "seed",
    )
    return {name: getattr(self, name) for name in names} | self.variations()

  def variations(self) -> dict[str, Any]:
    """Returns what else changes answers; only what differs from its default.

    A corpus that was made before such a field existed is thereby still recognised.
    """
    found: dict[str, Any] = {}
    if self.safety != "default":
      found["safety"] = self.safety
    if self.structured != "schema":
      found["structured"] = self.structured
    if self.thinking_field is not None:
      found["thinking_field"] = self.thinking_field
    if not self.send_seed:
      found["send_seed"] = False
    if self.extra_body:
      # A config's own maps are not plain ones.
      found["extra_body"] = json.loads(json.dumps(self.extra_body, default=dict))
    return found

  def identity(self) -> dict[str, str]:
    """Returns what tells the answers of this client from those of another."""
    found = {"client": self.client, "model": self.model}
    if variations := self.variations():
      found["settings"] = json.dumps(variations, sort_keys=True, ensure_ascii=False)
    return found


def key_variables(client: ClientSettings) -> tuple[str, ...]:
  """Returns the environment variables that may hold a Gemini key, the first first."""
  return (client.api_key_env,) if client.api_key_env else _GEMINI_KEYS


def check(where: str, client: ClientSettings) -> None:
  """Raises a `UserError` for a setting that the client does not have."""
  name = client.client
  _check_choice(f"{where}.client", name, CLIENTS)
  _check_service(where, client, "tier", _TIERS.get(name, (STANDARD,)))
  _check_service(where, client, "cache", _CACHES.get(name, ("off",)))
  _check_service(where, client, "safety", _SAFETY.get(name, ("default",)))
  _check_choice(f"{where}.structured", client.structured, _STRUCTURED)
  _check_choice(f"{where}.token_limit_field", client.token_limit_field, _LIMIT_FIELDS)
  if client.thinking_field is not None:
    _check_choice(f"{where}.thinking_field", client.thinking_field, _THINKING_FIELDS)
  _check_model(where, client)
  _check_url(where, client)
  _check_flex(where, client)
  _check_thinking(where, client)
  _check_vertex(where, client)
  _check_cache(where, client)
  _check_prices(where, client)
  _check_extra(where, client)
  if client.start_concurrency is not None:
    _check_start(f"{where}.start_concurrency", client)


def _check_choice(where: str, value: Any, choices: tuple[str, ...]) -> None:
  if value not in choices:
    named = ", ".join(repr(choice) for choice in choices[:-1])
    raise errors.UserError(f"{where} is {value!r}: it is {named} or {choices[-1]!r}")


def _check_service(
  where: str, client: ClientSettings, field: str, choices: tuple[str, ...]
) -> None:
  value = getattr(client, field)
  if value not in choices:
    raise errors.UserError(
      f"{where}.{field} is {value!r}: {client.client!r} has "
      f"{', '.join(repr(choice) for choice in choices)}"
    )


def _check_model(where: str, client: ClientSettings) -> None:
  model = client.model
  if not isinstance(model, str) or not model.strip() or not model.isprintable():
    raise errors.UserError(f"{where}.model is {model!r}: it is the service's model id")
  if client.client != "openai" and any(letter.isspace() for letter in model):
    raise errors.UserError(f"{where}.model is {model!r}: a model id has no spaces")


def _check_url(where: str, client: ClientSettings) -> None:
  if client.base_url is None:
    return
  try:
    parts = urllib.parse.urlsplit(client.base_url)
    whole = parts.scheme in ("http", "https") and bool(parts.hostname)
    _ = parts.port  # raises for one that is no number
  except ValueError:
    whole = False
  if not whole or not client.base_url.isascii():
    raise errors.UserError(
      f"{where}.base_url is {client.base_url!r}: it starts with http:// or https:// "
      "and names a server, as in http://localhost:8000/v1"
    )


def _check_flex(where: str, client: ClientSettings) -> None:
  if client.tier != FLEX:
    return
  if client.timeout_s < FLEX_TIMEOUT_S:
    raise errors.UserError(
      f"{where}.timeout_s is {client.timeout_s:g} and {where}.tier is 'flex': answers "
      "may take a quarter of an hour, and one that is cut off may be billed; set "
      f"timeout_s to {FLEX_TIMEOUT_S:g} or more"
    )
  if client.project and (client.location or "global") != "global":
    raise errors.UserError(
      f"{where}.location is {client.location!r} and {where}.tier is 'flex': Vertex has "
      "it at location='global' only"
    )


def _check_thinking(where: str, client: ClientSettings) -> None:
  if not isinstance(client.thinking, str) or not client.thinking:
    raise errors.UserError(
      f"{where}.thinking is {client.thinking!r}: it is 'off', a level such as 'low', "
      "or a number of tokens in quotes"
    )
  if client.client != "openai" or client.thinking == "off":
    return
  if client.thinking_field is None:
    raise errors.UserError(
      f"{where}.thinking is {client.thinking!r} and the server is not told: set "
      f"{where}.thinking_field to one of {', '.join(_THINKING_FIELDS)}"
    )


def _check_vertex(where: str, client: ClientSettings) -> None:
  given = [name for name in ("project", "location") if getattr(client, name)]
  if not given:
    return
  if client.client != "gemini":
    raise errors.UserError(
      f"{where}.{given[0]} is set and {where}.client is {client.client!r}: it belongs "
      "to 'gemini' on Vertex"
    )
  if not client.project:
    raise errors.UserError(
      f"{where}.location is set without {where}.project: Vertex needs the project"
    )
  if client.tier == BATCH:
    raise errors.UserError(
      f"{where}.tier is 'batch' and {where}.project is set: batch jobs on Vertex go "
      "through Cloud Storage or BigQuery, which is not supported; use tier='flex', or "
      "the Developer API (project=None and a key)"
    )


def _check_cache(where: str, client: ClientSettings) -> None:
  if (client.client, client.cache, client.tier) == ("gemini", "explicit", BATCH):
    raise errors.UserError(
      f"{where}.cache is 'explicit' and {where}.tier is 'batch': a job may outlive its "
      "cache; use tier='flex' with the cache, or cache='off'"
    )


def _check_prices(where: str, client: ClientSettings) -> None:
  if client.prices is None:
    return
  numbers = [
    isinstance(price, int | float) and not isinstance(price, bool) and price >= 0
    for price in client.prices
  ]
  if not all(numbers) or not 3 <= len(numbers) <= 5:
    raise errors.UserError(
      f"{where}.prices is {tuple(client.prices)!r}: it is three to five numbers, "
      "dollars per million tokens: prompt, cached prompt, response, cache write, cache "
      "storage per hour"
    )
  if client.client == "gemini" and client.cache == "explicit" and len(numbers) < 5:
    raise errors.UserError(
      f"{where}.prices is {tuple(client.prices)!r} and {where}.cache is 'explicit': "
      "keeping the cache is billed too, so all five numbers are needed (prompt, cached "
      "prompt, response, cache write, cache storage per hour)"
    )


def _check_extra(where: str, client: ClientSettings) -> None:
  if not client.extra_body:
    return
  if client.client not in ("openai", "anthropic"):
    raise errors.UserError(
      f"{where}.extra_body is set and {where}.client is {client.client!r}: it belongs "
      "to 'openai' and 'anthropic'"
    )
  if taken := [name for name in _OF_THE_BUDGET if name in client.extra_body]:
    raise errors.UserError(
      f"{where}.extra_body has {taken[0]!r}, which decides what an answer may cost: "
      "set max_output_tokens, token_limit_field or tier instead"
    )
  try:
    client.variations()
  except (TypeError, ValueError) as error:
    raise errors.UserError(
      f"{where}.extra_body cannot be sent as JSON: {error}"
    ) from None


def _check_start(where: str, client: ClientSettings) -> None:
  start = client.start_concurrency
  whole = isinstance(start, int) and not isinstance(start, bool)
  if not whole or not 1 <= start <= client.max_concurrency:
    raise errors.UserError(
      f"{where} is {start!r}: it is a whole number from 1 to max_concurrency"
    )
