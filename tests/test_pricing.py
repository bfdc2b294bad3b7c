"""Prices are known or they are not; nothing is guessed."""

import datetime

from data_gen import settings
from data_gen.clients import protocol
from data_gen.engine import pricing

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


def test_a_tier_has_its_factor_and_storage_has_none():
  standard, flex, batch, priority = (
    price("gemini-2.5-flash", tier=tier)
    for tier in ("standard", "flex", "batch", "priority")
  )
  assert flex == batch
  assert flex.response == standard.response / 2 and flex.prompt == standard.prompt / 2
  assert priority.response == 2 * standard.response
  assert flex.storage == priority.storage == standard.storage
  given = price("x", prices=(1.0, 0.1, 2.0), tier="flex")
  assert (given.prompt, given.response) == (0.5, 1.0)


def test_no_tier_makes_any_listed_model_dearer_but_priority():
  usage = protocol.Usage(prompt_tokens=9000, cached_tokens=4000, response_tokens=500)
  for client, table in pricing._TABLES.items():
    for model in table:
      standard = price(model, client).dollars(usage)
      cheaper = price(model, client, tier="batch").dollars(usage)
      assert 0 < cheaper < standard, model


def test_a_long_request_costs_more_per_token_from_the_first_token_on():
  short = protocol.Usage(prompt_tokens=200_000, response_tokens=1000)
  longer = protocol.Usage(prompt_tokens=200_001, response_tokens=1000)
  model = price("gemini-2.5-pro")
  assert model.dollars(short) == 0.2 * 1.25 + 0.001 * 10
  assert abs(model.dollars(longer) - (0.200001 * 2.5 + 0.001 * 15)) < 1e-12
  # What was written to a cache on the way is no part of the request.
  written = protocol.Usage(prompt_tokens=200_001, cache_write_tokens=1)
  assert model.dollars(written) == 200_001 * 1.25 / 1e6


def test_a_cache_has_a_price_only_where_its_storage_has_one():
  assert price("gemini-2.5-flash", cache="explicit").storage == 1.0
  assert price("gemini-3.5-flash", cache="explicit") is None
  given = (1.0, 0.1, 2.0, 1.0, 3.0)
  assert price("gemini-3.5-flash", cache="explicit", prices=given).storage == 3.0
  usage = protocol.Usage(cache_token_hours=2_000_000.0)
  assert price("x", prices=given).dollars(usage) == 6.0


def test_writing_to_claude_s_cache_costs_a_quarter_more():
  usage = protocol.Usage(prompt_tokens=1_000_000, cache_write_tokens=1_000_000)
  assert price("claude-haiku-4-5", "anthropic").dollars(usage) == 1.25


def test_a_model_may_be_named_by_its_version_and_nothing_else_is_near_enough():
  haiku = price("claude-haiku-4-5", "anthropic")
  assert price("claude-haiku-4-5-20251001", "anthropic") == haiku
  assert price("models/gemini-2.5-flash-001") == price("gemini-2.5-flash")
  assert price("gemini-2.5-flash-preview-04-17") is None
  assert price("gemini-2.5-flash", "openai") is None


def test_other_servers_of_openai_s_protocol_have_prices_of_their_own():
  assert price("gpt-5-mini", "openai") is not None
  own = price("gpt-5-mini", "openai", base_url="https://api.openai.com/v1")
  assert own == price("gpt-5-mini", "openai")
  assert price("gpt-5-mini", "openai", base_url="http://127.0.0.1:8000/v1") is None
