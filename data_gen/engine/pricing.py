"""Dated prices of models: what an answer cost, what a run will cost."""

import dataclasses
import datetime
import re
import urllib.parse

from data_gen.clients import protocol, settings

PRICES_AS_OF = "2026-11-21"


@dataclasses.dataclass(frozen=True)
class Price:
  """Dollars per million tokens.

  Attributes:
    prompt, cached, response: thoughts are billed as response.
    cache_write: of prompt tokens that are put into a cache; None: as `prompt`.
    storage: of tokens that lie in a cache for an hour; None: not known.
    long: the prices of a request with more than `long_from` prompt tokens, where they
      differ.
  """

  prompt: float
  cached: float
  response: float
  cache_write: float | None = None
  storage: float | None = None
  long_from: int | None = None
  long: "Price | None" = None

  def dollars(self, usage: protocol.Usage) -> float:
    """Returns what an answer with this usage costs."""
    written, cached = usage.cache_write_tokens, usage.cached_tokens
    # What was put into a cache was a request of its own.
    if self.long is not None and usage.prompt_tokens - written > self.long_from:
      return self.long.dollars(usage)
    write = self.prompt if self.cache_write is None else self.cache_write
    answered = usage.response_tokens + usage.thought_tokens
    return (
      (usage.prompt_tokens - cached - written) * self.prompt
      + cached * self.cached
      + written * write
      + answered * self.response
      + usage.cache_token_hours * (self.storage or 0.0)
    ) / 1e6

  def at(self, factor: float, cached_factor: float) -> "Price":
    """Returns the prices of a tier; keeping a cache costs the same in all of them."""
    return dataclasses.replace(
      self,
      prompt=self.prompt * factor,
      cached=self.cached * cached_factor,
      response=self.response * factor,
      cache_write=self.cache_write and self.cache_write * factor,
      long=self.long and self.long.at(factor, cached_factor),
    )


def _long(prompt: float, cached: float, response: float, **more: float) -> Price:
  """Returns prices that go up beyond 200,000 prompt tokens: in x 2, out x 1.5."""
  above = Price(2 * prompt, 2 * cached, 1.5 * response, **more)
  return Price(prompt, cached, response, long_from=200_000, long=above, **more)


def _claude(prompt: float, cached: float, response: float) -> Price:
  return Price(prompt, cached, response, cache_write=1.25 * prompt)


# Standard tier. A model that is not here has no price, never a guessed one. Cache
# storage is here for the models for which the service's price list was seen.
_GEMINI = {
  "gemini-3.8-flash": Price(0.75, 0.075, 3.75, storage=0.5),
  "gemini-3.7-flash": Price(0.75, 0.075, 3.75),
  "gemini-3.6-flash": Price(0.75, 0.075, 3.75),
  "gemini-3.5-flash": Price(1.5, 0.15, 9.0),
  "gemini-3.5-flash-lite": Price(0.3, 0.03, 2.5),
  "gemini-3.1-flash-lite": Price(0.25, 0.025, 1.5),
  "gemini-3.1-pro": _long(2.0, 0.2, 12.0, storage=4.5),
  "gemini-3.1-pro-preview": _long(2.0, 0.2, 12.0, storage=4.5),
  "gemini-3-flash-preview": Price(0.5, 0.05, 3.0),
  "gemini-2.5-flash": Price(0.3, 0.03, 2.5, storage=1.0),
  "gemini-2.5-flash-lite": Price(0.1, 0.01, 0.4, storage=1.0),
  "gemini-2.5-pro": _long(1.25, 0.125, 10.0, storage=4.5),
}
_ANTHROPIC = {
  "claude-opus-5-5": _claude(4.0, 0.2, 20.0),
  "claude-opus-5": _claude(5.0, 0.5, 25.0),
  "claude-opus-4-8": _claude(5.0, 0.5, 25.0),
  "claude-opus-4-7": _claude(5.0, 0.5, 25.0),
  "claude-opus-4-6": _claude(5.0, 0.5, 25.0),
  "claude-opus-4-5": _claude(5.0, 0.5, 25.0),
  "claude-sonnet-5-5": _claude(2.0, 0.1, 10.0),
  "claude-sonnet-5": _claude(2.0, 0.2, 10.0),
  "claude-sonnet-4-6": _claude(3.0, 0.3, 15.0),
  "claude-haiku-4-5": _claude(1.0, 0.1, 5.0),
}
# Of OpenAI itself; other servers that speak its protocol have their own prices.
_OPENAI = {
  "gpt-5.4-mini": Price(0.75, 0.075, 4.5),
  "gpt-5.4-nano": Price(0.2, 0.02, 1.25),
  "gpt-5.2": Price(1.75, 0.175, 14.0),
  "gpt-5.1": Price(1.25, 0.125, 10.0),
  "gpt-5": Price(1.25, 0.125, 10.0),
  "gpt-5-mini": Price(0.25, 0.025, 2.0),
  "gpt-5-nano": Price(0.05, 0.005, 0.4),
  "gpt-4.1": Price(2.0, 0.5, 8.0),
  "gpt-4.1-mini": Price(0.4, 0.1, 1.6),
  "gpt-4.1-nano": Price(0.1, 0.025, 0.4),
}
_TABLES = {"gemini": _GEMINI, "anthropic": _ANTHROPIC, "openai": _OPENAI}
# Announced: these models cost twice as much from this day on.
_DOUBLED_FROM = datetime.date(2027, 1, 1)
_DOUBLED = ("gemini-3.8-flash", "gemini-3.7-flash", "gemini-3.6-flash")
# The same model under the name of one version: -001, -20251001, -2026-03-05.
_VERSION = re.compile(r"-(\d{3}|\d{8}|\d{4}-\d{2}-\d{2})$")
# (service, tier) -> factors of (prompt and response, cached prompt). Gemini's priority
# costs 1.75 to 2 times the standard, by model: the upper end bounds the bill. Whether
# its half price holds for cached tokens is not documented: again the upper end.
_FACTORS = {
  ("gemini", settings.FLEX): (0.5, 1.0),
  ("gemini", settings.BATCH): (0.5, 1.0),
  ("gemini", settings.PRIORITY): (2.0, 2.0),
  ("openai", settings.FLEX): (0.5, 0.5),
  ("openai", settings.BATCH): (0.5, 0.5),
  ("anthropic", settings.BATCH): (0.5, 0.5),
}


def price_of(
  client: settings.ClientSettings, today: datetime.date | None = None
) -> Price | None:
  """Returns the price of a client's model at its tier; None if it is not known.

  The offline teacher is free. `client.prices` stands above the table.
  """
  if client.client == "offline":
    return Price(0.0, 0.0, 0.0)
  price = Price(*client.prices) if client.prices is not None else _listed(client, today)
  if price is None:
    return None
  if client.client == "gemini" and client.cache == "explicit" and price.storage is None:
    return None
  if client.tier == settings.STANDARD:
    return price
  factors = _FACTORS.get((client.client, client.tier))
  return None if factors is None else price.at(*factors)


def _listed(
  client: settings.ClientSettings, today: datetime.date | None
) -> Price | None:
  if client.client == "openai" and not _is_openai(client.base_url):
    return None
  table = _TABLES.get(client.client, {})
  model = client.model.removeprefix("models/")
  if model not in table:
    model = _VERSION.sub("", model)
  price = table.get(model)
  today = today or datetime.date.today()
  if price is None or model not in _DOUBLED or today < _DOUBLED_FROM:
    return price
  return dataclasses.replace(
    price.at(2.0, 2.0), storage=price.storage and 2.0 * price.storage
  )


def _is_openai(base_url: str | None) -> bool:
  return base_url is None or urllib.parse.urlsplit(base_url).hostname == (
    "api.openai.com"
  )


def estimate_tokens(text: str) -> int:
  """Returns the usual size of English text: four characters per token."""
  return len(text) // 4 + 1
