"""Dated prices of models: what an answer cost, what a run will cost."""

import dataclasses
import datetime

from data_gen import settings
from data_gen.clients import protocol

# Dollars per million (prompt, cached prompt, response) tokens, standard tier; thoughts
# are billed as response. A model that is not here has no price, never a guessed one.
PRICES_AS_OF = "2026-11-21"
_PRICES: dict[str, tuple[float, float, float]] = {
  "gemini-3.8-flash": (0.75, 0.075, 3.75),
  "gemini-3.7-flash": (0.75, 0.075, 3.75),
  "gemini-3.6-flash": (0.75, 0.075, 3.75),
  "gemini-3.5-flash": (1.5, 0.15, 9.0),
  "gemini-3.5-flash-lite": (0.3, 0.03, 2.5),
  "gemini-3.1-flash-lite": (0.25, 0.025, 1.5),
  "gemini-3.1-pro": (2.0, 0.2, 12.0),
  "gemini-2.5-flash": (0.3, 0.03, 2.5),
  "gemini-2.5-pro": (1.25, 0.125, 10.0),
}
# Announced: these models cost twice as much from this day on.
_DOUBLED_FROM = datetime.date(2027, 1, 1)
_DOUBLED = ("gemini-3.8-flash", "gemini-3.7-flash", "gemini-3.6-flash")


@dataclasses.dataclass(frozen=True)
class Price:
  """Dollars per million tokens."""

  prompt: float
  cached: float
  response: float

  def dollars(self, usage: protocol.Usage) -> float:
    """Returns what an answer with this usage costs."""
    fresh = usage.prompt_tokens - usage.cached_tokens
    answered = usage.response_tokens + usage.thought_tokens
    return (
      fresh * self.prompt + usage.cached_tokens * self.cached + answered * self.response
    ) / 1e6


def price_of(
  client: settings.ClientSettings, today: datetime.date | None = None
) -> Price | None:
  """Returns the price of a model; None if it is not known. The offline one is free."""
  if client.client == "offline":
    return Price(0.0, 0.0, 0.0)
  if client.prices is not None:
    return Price(*client.prices)
  prices = _PRICES.get(client.model)
  if prices is None:
    return None
  today = today or datetime.date.today()
  factor = 2 if client.model in _DOUBLED and today >= _DOUBLED_FROM else 1
  return Price(*(factor * price for price in prices))


def estimate_tokens(text: str) -> int:
  """Returns the usual size of English text: four characters per token."""
  return len(text) // 4 + 1
