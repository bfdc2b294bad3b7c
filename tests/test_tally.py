"""What a run shows of itself, and what a request may cost at most."""

import asyncio
import json

import pytest

from data_gen import verdicts
from data_gen.clients import protocol
from data_gen.engine import attempts, entries, pricing
from data_gen.engine.limits import Budget
from data_gen.engine.tally import Kept, Tally
from msm_jax import progress

PRICE = pricing.Price(prompt=1.0, cached=0.1, response=10.0)


class Nobody:
  jobs = None

  def __init__(self):
    self.identity = {"client": "c", "model": "m"}


def request(prompt):
  params = protocol.Params(temperature=1.0, max_output_tokens=100)
  return protocol.Request(
    stage="document", system="", prompt=prompt, fields={}, params=params
  )


def answered(text, finish_reason="STOP"):
  scribe = attempts.Scribe(Nobody(), PRICE)
  usage = protocol.Usage(prompt_tokens=10, response_tokens=50)
  response = protocol.Response(
    text=text, finish_reason=finish_reason, usage=usage, model_version="m-1"
  )
  return scribe.answered(scribe.blank("id", request("p"), 1, 0.5), response)


def test_the_bar_says_what_is_kept_what_it_cost_and_what_one_costs():
  budget = Budget(None, spent=2.0, unknown=0.25)
  bar = progress.Progress("docs", 4, "requests")
  tally = Tally(budget, bar)
  for entry in (answered("a text"), answered("cut", "MAX_TOKENS"), None):
    asyncio.run(budget.settle(0.5, 0.5))
    tally.count(entry)
  assert bar.done == 3
  for figure in ("kept 1", "spent $3.50", "perhaps +$0.25", "each $1.50000", "eta"):
    assert figure in bar.text()


def test_what_is_kept_is_what_was_before_and_what_counts_now():
  bar = progress.Progress("docs", 4, "requests")
  kept = Kept(before=7, counts=verdicts.is_yes)
  tally = Tally(Budget(None, spent=99.0), bar, kept, spent=lambda: 2.0)
  for verdict in ("yes", "no", "perhaps"):
    tally.count(answered(json.dumps({"verdict": verdict})))
  assert "kept 8" in bar.text() and "each $0.25000" in bar.text()
  tally.recall(lambda: answered('{"verdict": "yes"}'))  # of an earlier run
  assert "kept 9" in bar.text() and bar.done == 4


def test_what_is_not_shown_is_not_read():
  Tally(Budget(None), None).recall(lambda: 1 / 0)


@pytest.mark.parametrize(
  ("text", "tokens"), [("word " * 100, 125), ("\u8bda\u5b9e" * 100, 200)]
)
def test_the_worst_price_bounds_the_prompt_in_any_script(text, tokens):
  worst = attempts.Scribe(Nobody(), PRICE).worst_price(request(text))
  assert worst >= (tokens * 1.0 + 100 * 10.0) / 1e6
  assert attempts.Scribe(Nobody(), None).worst_price(request(text)) == 0.0


def test_a_price_that_is_not_known_stays_unknown():
  entry = attempts.Scribe(Nobody(), None).blank("id", request("p"), 1, 0.5)
  assert entry.at_most is None
  lost = attempts.Scribe(Nobody(), None).failed(
    entry, protocol.Retryable("gone", lost=True)
  )
  assert lost.lost and lost.dollars is None and lost.at_most is None
  totals = entries.Totals()
  totals.add(entries.row_of(lost))
  assert totals.lost_answers == 1 and totals.unknown_at_most == 0.0


def test_only_what_nobody_bills_is_free():
  free = pricing.Price(0.0, 0.0, 0.0)
  scribes = [attempts.Scribe(Nobody(), price) for price in (free, PRICE, None)]
  assert [scribe.is_free for scribe in scribes] == [True, False, False]


def test_a_budget_is_free_again_when_all_is_settled_whatever_rounding_does():
  budget = Budget(1.0)

  async def spend():
    for _ in range(3):
      await budget.reserve(0.1)
    for _ in range(3):
      await budget.settle(0.1, 0.0)
    await budget.reserve(1.0)

  asyncio.run(spend())
  assert budget.left == 0.0
