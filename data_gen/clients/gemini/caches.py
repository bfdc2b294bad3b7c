"""Explicit context caches: one for each system text, paid by the hour."""

import asyncio
import dataclasses
import time

from google import genai
from google.genai import types
from google.genai.errors import APIError

from data_gen.clients import protocol
from data_gen.clients.gemini import faults
from msm_jax import progress

# A cache outlives a killed process by at most this long; that is billed and unseen.
TTL_S = 1800
# Keeping one is written down this often, and when it ends.
_BILL_EVERY_S = 60.0
# No model caches fewer tokens than this, and a token has at least one character.
_MIN_CHARS = 1024
_TOO_SMALL = ("too small", "min_total_token_count", "minimum token count")


@dataclasses.dataclass
class _Cache:
  name: str
  tokens: int
  expires: float  # clock of this machine, seconds
  billed_until: float


class Caches:
  """Keeps the caches of one client alive and accounts for what they cost."""

  def __init__(self, sdk: genai.Client, model: str, service: faults.Service):
    self._sdk, self._model, self._service = sdk, model, service
    self._caches: dict[str, _Cache | None] = {}  # None: too short to be cached
    self._locks: dict[str, asyncio.Lock] = {}
    self._costs: list[protocol.CacheCost] = []
    self._making: set[asyncio.Task[_Cache | None]] = set()

  async def name_for(self, system: str) -> str | None:
    """Returns the cache that holds `system`; None: it has to be sent in full.

    Raises:
      ClientError: the cache could not be made or kept.
    """
    if len(system) < _MIN_CHARS:
      return None
    async with self._locks.setdefault(system, asyncio.Lock()):
      if system not in self._caches:
        # What a time-out of the request cuts off is a cache that is made and billed
        # and that nobody knows: the making goes on without it.
        task = asyncio.ensure_future(self._create(system))
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        self._caches[system] = await asyncio.shield(task)
      cache = self._caches[system]
      if cache is None:
        return None
      if cache.expires - time.monotonic() < TTL_S / 2:
        await self._refresh(system, cache)
      return cache.name

  def is_gone(self, error: APIError, name: str) -> bool:
    """Returns whether an error says that a cache is lost, and forgets it if so."""
    said = (error.message or "").lower().replace(" ", "")
    if error.code not in (403, 404) or "cachedcontent" not in said:
      return False
    for system, cache in list(self._caches.items()):
      # By name: a late error of an old cache says nothing of the new one.
      if cache is not None and cache.name == name:
        self._forget(system)
    return True

  def take_costs(self) -> list[protocol.CacheCost]:
    """Returns what caches have cost since this was last asked."""
    since = time.monotonic() - _BILL_EVERY_S
    for cache in self._caches.values():
      if cache is not None and cache.billed_until < since:
        self._bill(cache)
    costs, self._costs = self._costs, []
    return costs

  async def close(self) -> None:
    """Deletes the caches; one that cannot be deleted ends with its TTL."""
    await asyncio.gather(*self._making, return_exceptions=True)
    for system, cache in list(self._caches.items()):
      if cache is None:
        continue
      try:
        with self._service.faults():
          await self._sdk.aio.caches.delete(name=cache.name)
      except protocol.ClientError as error:
        progress.say(f"{cache.name} is not deleted, it ends by itself: {error}")
      self._forget(system)
    self._caches.clear()

  async def _create(self, system: str) -> _Cache | None:
    config = types.CreateCachedContentConfig(
      system_instruction=system, ttl=f"{TTL_S}s", display_name="msm-jax"
    )
    with self._service.faults():
      try:
        made = await self._sdk.aio.caches.create(model=self._model, config=config)
      except APIError as error:
        said = (error.message or "").lower()
        if error.code != 400 or not any(mark in said for mark in _TOO_SMALL):
          raise
        progress.say(
          f"a system prompt of {len(system)} characters is too short for the cache of "
          f"{self._model} and is sent in full"
        )
        return None
    usage = made.usage_metadata
    tokens = (usage and usage.total_token_count) or 0
    written = protocol.Usage(prompt_tokens=tokens, cache_write_tokens=tokens)
    self._costs.append(protocol.CacheCost(name=made.name, usage=written))
    now = time.monotonic()
    cache = _Cache(made.name, tokens, expires=now + TTL_S, billed_until=now)
    self._caches[system] = cache
    return cache

  async def _refresh(self, system: str, cache: _Cache) -> None:
    config = types.UpdateCachedContentConfig(ttl=f"{TTL_S}s")
    with self._service.faults():
      try:
        await self._sdk.aio.caches.update(name=cache.name, config=config)
      except APIError as error:
        if error.code in (403, 404):
          self._forget(system)
          raise protocol.Retryable(f"the cache is gone: {error.message}") from error
        raise
    cache.expires = time.monotonic() + TTL_S

  def _forget(self, system: str) -> None:
    if (cache := self._caches.pop(system, None)) is not None:
      self._bill(cache)

  def _bill(self, cache: _Cache) -> None:
    now = time.monotonic()
    hours = cache.tokens * (now - cache.billed_until) / 3600
    cache.billed_until = now
    kept = protocol.Usage(cache_token_hours=hours)
    self._costs.append(protocol.CacheCost(name=cache.name, usage=kept))
