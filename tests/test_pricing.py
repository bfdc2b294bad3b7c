"""Prices are known or they are not; nothing is guessed."""

import datetime

from data_gen import pricing, settings
from data_gen.clients import protocol

TODAY = datetime.date(2026, 11, 21)


def price(model, client="gemini", today=TODAY, **changes):
  fields = settings.ClientSettings(client=client, model=model, **changes)
  return pricing.price_of(fields, today)


def test_thoughts_are_billed_as_response_and_cached_tokens_cheaper():
  usage = protocol.Usage(
    prompt_tokens=1_000_000,
    cached_tokens=400_000,
    response_tokens=200_000,
    thought_tokens=100_000,
  )
  cost = pricing.Price(prompt=1.0, cached=0.1, response=10.0).dollars(usage)
  assert abs(cost - (0.6 + 0.04 + 3.0)) < 1e-12


def test_an_unknown_model_has_no_price_unless_the_config_gives_one():
  assert price("gemini-of-tomorrow") is None
  given = price("gemini-of-tomorrow", prices=(1.0, 0.1, 2.0))
  assert given == pricing.Price(1.0, 0.1, 2.0)


def test_the_offline_teacher_is_free():
  assert price("tiny", client="offline").dollars(protocol.Usage(prompt_tokens=9)) == 0


def test_an_announced_price_holds_from_its_day_on():
  before = price("gemini-3.8-flash")
  after = price("gemini-3.8-flash", today=datetime.date(2027, 1, 1))
  assert after.response == 2 * before.response
