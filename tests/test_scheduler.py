"""The scheduler retries what may work, waits when told to, and stops cleanly."""

import asyncio
import threading
import time

import pytest
from fake_gemini import MODEL, FakeGemini

from data_gen import clients, settings
from data_gen.clients import protocol
from data_gen.engine import ledger, pricing, scheduler
from msm_jax.errors import Stopped, UserError

PARAMS = protocol.Params(temperature=1.0, max_output_tokens=100)
PRICE = pricing.Price(prompt=1.0, cached=0.1, response=10.0)
ANSWER_DOLLARS = (100 * 1.0 + 50 * 10.0) / 1e6
# Of "Write 0.": two bytes a token, a digit by itself.
WORST = (4 + 1 + 1 + 100 * 10) / 1e6


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  monkeypatch.delenv("GEMINI_API_KEY", raising=False)


def requests(count):
  return [
    protocol.Request(
      stage="document", system="", prompt=f"Write {i}.", fields={}, params=PARAMS
    )
    for i in range(count)
  ]


class Run:
  """One run against a fake server: `ask` returns the results, or raises."""

  def __init__(self, tmp_path, faults=lambda prompt, attempt: "", **limits):
    self.path = tmp_path / "ledger.jsonl"
    self.server = FakeGemini(faults)
    self.limits = {
      "max_concurrency": 8,
      "timeout_s": 5.0,
      "max_attempts": 3,
      "backoff_s": 0.01,
    } | limits
    self.spent = self.unknown = 0.0
    self.totals = None

  def ask(self, wanted, max_dollars=None, during=None):
    with self.server, ledger.Ledger(self.path) as book:
      self.totals = book.totals
      return asyncio.run(self._ask(wanted, book, max_dollars, during))

  async def _ask(self, wanted, book, max_dollars, during):
    client = clients.make(
      settings.ClientSettings(
        client="gemini",
        model=MODEL,
        base_url=self.server.url,
        timeout_s=self.limits["timeout_s"] + 5.0,
        max_concurrency=self.limits["max_concurrency"],
      ),
      "config.teacher",
    )
    totals = book.totals
    budget = scheduler.Budget(max_dollars, totals.spent, totals.unknown_at_most)
    limits = scheduler.Limits(**self.limits)
    sender = scheduler.Scheduler(client, book, budget, limits, PRICE)
    if during:
      asyncio.get_running_loop().call_later(0.1, during, sender)
    try:
      await sender.ask_all(wanted)
    finally:
      self.spent, self.unknown = budget.spent, budget.unknown
      await client.close()
    return [sender.result(request) for request in wanted]


def test_all_requests_are_answered_with_no_more_in_flight_than_allowed(tmp_path):
  run = Run(tmp_path, max_concurrency=5)
  run.server.delay_s = 0.01
  results = run.ask(requests(40))
  assert {entry.status for entry in results} == {ledger.OK}
  assert len({entry.text for entry in results}) == 40
  assert 2 <= run.server.most_in_flight <= 5
  assert run.spent == pytest.approx(40 * ANSWER_DOLLARS)


def test_a_second_run_asks_for_nothing_again(tmp_path):
  first = Run(tmp_path).ask(requests(10))
  again = Run(tmp_path)
  assert again.ask(requests(10)) == first
  assert not again.server.bodies


@pytest.mark.parametrize("fault", ["500", "503", "drop", "half", "not_json", "429"])
def test_what_fails_once_is_answered_on_the_second_attempt(tmp_path, fault):
  run = Run(tmp_path, lambda prompt, attempt: fault if attempt == 1 else "")
  results = run.ask(requests(5))
  assert [entry.status for entry in results] == [ledger.OK] * 5
  assert sum(run.server.attempts.values()) == 10
  assert len(run.path.read_text().splitlines()) == 10


def test_a_request_that_always_fails_is_given_up_and_the_rest_goes_on(tmp_path):
  run = Run(tmp_path, lambda prompt, attempt: "500" if prompt == "Write 3." else "")
  results = run.ask(requests(6))
  assert [entry.status for entry in results].count(ledger.OK) == 5
  assert results[3].status == "retryable" and results[3].attempt == 3


def test_what_was_given_up_is_tried_again_by_the_next_run(tmp_path):
  Run(tmp_path, lambda prompt, attempt: "500").ask(requests(3))
  again = Run(tmp_path)
  assert [e.status for e in again.ask(requests(3))] == [ledger.OK] * 3


def test_a_hang_is_cut_at_the_timeout_and_tried_again(tmp_path):
  faults = lambda prompt, attempt: "hang" if attempt == 1 else ""  # noqa: E731
  run = Run(tmp_path, faults, timeout_s=0.3)
  began = time.monotonic()
  assert run.ask(requests(3))[0].status == ledger.OK
  assert time.monotonic() - began < 3
  assert "no answer within 0.3 s" in run.path.read_text()


def test_a_blocked_request_is_an_outcome_and_a_refused_one_is_of_this_run(tmp_path):
  fault = {"Write 0.": "SAFETY", "Write 1.": "400"}
  run = Run(tmp_path, lambda prompt, attempt: fault.get(prompt, ""))
  results = run.ask([*requests(3), *requests(3)])
  statuses = [entry.status for entry in results]
  assert statuses == 2 * [ledger.BLOCKED, ledger.FATAL_REQUEST, ledger.OK]
  assert len(run.server.bodies) == 3
  # What the service refused may have been a setting, which is now another.
  again = Run(tmp_path)
  assert [entry.status for entry in again.ask(requests(3))][1] == ledger.OK
  assert len(again.server.bodies) == 1


def test_a_service_that_refuses_everything_ends_the_run_with_what_it_said(tmp_path):
  run = Run(tmp_path, lambda prompt, attempt: "400", max_concurrency=2)
  with pytest.raises(UserError, match=r"refuses every request.*400.*scripted"):
    run.ask(requests(100))
  assert len(run.server.bodies) < 30


def test_refusals_among_answers_end_nothing(tmp_path):
  def faults(prompt, attempt):
    return "" if prompt == "Write 0." else "400"

  run = Run(tmp_path, faults, max_concurrency=1)
  assert len(run.ask(requests(40))) == 40


def test_an_answer_that_does_not_say_what_it_cost_is_kept_and_its_price_unknown(
  tmp_path,
):
  run = Run(tmp_path, lambda prompt, attempt: "no_usage")
  with pytest.raises(Stopped, match="max_dollars"):
    run.ask(requests(50), max_dollars=10.5 * WORST)
  assert len(run.server.bodies) == 10
  assert run.totals.spent == 0.0
  assert run.totals.unknown_at_most == pytest.approx(10 * WORST)
  answered = Run(tmp_path).ask(requests(10))
  assert {entry.status for entry in answered} == {ledger.OK}


def test_half_a_character_in_an_answer_is_replaced_and_the_run_goes_on(tmp_path):
  run = Run(tmp_path, lambda prompt, attempt: "surrogate")
  (entry,) = run.ask(requests(1))
  assert entry.status == ledger.OK and entry.text.endswith("?")
  assert ledger.totals_in(run.path).summary() == run.totals.summary()


def test_a_rate_limit_holds_all_requests_back_for_as_long_as_it_asks(tmp_path):
  first = []

  def faults(prompt, attempt):
    first.append(time.monotonic())
    return "429" if len(first) == 1 else ""

  run = Run(tmp_path, faults, max_concurrency=1)
  run.ask(requests(3))
  assert first[1] - first[0] >= 0.3
  assert len(first) == 4


def test_rate_limits_do_not_use_up_the_attempts(tmp_path):
  run = Run(tmp_path, lambda p, attempt: "429" if attempt < 5 else "", max_attempts=1)
  assert run.ask(requests(1))[0].status == ledger.OK


def test_a_rate_limit_that_lasts_too_long_stops_the_run(tmp_path):
  run = Run(tmp_path, lambda prompt, attempt: "429", max_wait_s=0.5)
  with pytest.raises(Stopped, match="limits the rate"):
    run.ask(requests(4))


def test_a_service_that_only_fails_is_probed_and_then_stops_the_run(tmp_path):
  run = Run(tmp_path, lambda prompt, attempt: "500", max_attempts=2, max_probes=4)
  with pytest.raises(Stopped, match="10 requests in a row and then 4 probes"):
    run.ask(requests(100))
  assert sum(run.server.attempts.values()) < 40


def test_a_service_that_comes_back_goes_on_with_nothing_given_up(tmp_path):
  began = []

  def outage(prompt, attempt):
    began.append(time.monotonic())
    return "503" if len(began) > 20 and time.monotonic() < began[20] + 0.6 else ""

  run = Run(tmp_path, outage, max_concurrency=16, backoff_s=0.05)
  results = run.ask(requests(200))
  assert {entry.status for entry in results} == {ledger.OK}
  # A service that is down is not hammered: what was in flight, and the probes.
  assert sum(run.server.attempts.values()) - 200 < 3 * 16


def test_requests_that_fail_alone_at_the_end_do_not_count_as_an_outage(tmp_path):
  stuck = lambda prompt, attempt: "500" if int(prompt[6:-1]) % 5 == 0 else ""  # noqa: E731
  results = Run(tmp_path, stuck, max_attempts=4).ask(requests(60))
  assert [entry.status for entry in results].count(ledger.OK) == 48


def test_a_daily_quota_stops_at_once(tmp_path):
  run = Run(tmp_path, lambda prompt, attempt: "daily")
  with pytest.raises(Stopped, match="quota of the day is used up"):
    run.ask(requests(100))
  assert sum(run.server.attempts.values()) <= 8


@pytest.mark.slow  # the pace is measured in round trips: a busy machine disturbs it
def test_a_service_with_room_for_few_is_not_flooded(tmp_path):
  server = []

  def room(prompt, attempt):
    return "429" if server[0].in_flight > 6 else ""

  run = Run(tmp_path, room, max_concurrency=64, start_concurrency=4)
  run.server.delay_s = 0.02
  server.append(run.server)
  run.ask(requests(150))
  refused = sum(run.server.attempts.values()) - 150
  assert refused < 60
  assert run.server.most_in_flight <= 16


@pytest.mark.parametrize("fault", ["hang", "drop", "half", "not_json"])
def test_lost_answers_are_counted_and_bounded(tmp_path, fault):
  run = Run(tmp_path, lambda p, attempt: fault if attempt == 1 else "", timeout_s=0.3)
  run.ask(requests(3))
  worst = WORST
  assert run.totals.lost_answers == 3
  assert run.totals.unknown_at_most == pytest.approx(3 * worst)
  assert run.totals.spent == pytest.approx(3 * ANSWER_DOLLARS)
  assert ledger.totals_in(run.path).summary() == run.totals.summary()


@pytest.mark.parametrize("fault", ["429", "500", "SAFETY"])
def test_what_the_service_reports_is_no_lost_answer(tmp_path, fault):
  run = Run(tmp_path, lambda prompt, attempt: fault if attempt == 1 else "")
  run.ask(requests(3))
  assert run.totals.lost_answers == 0 and run.totals.unknown_at_most == 0.0


def test_what_a_lost_answer_may_have_cost_counts_for_the_budget(tmp_path):
  run = Run(tmp_path, lambda p, attempt: "drop" if attempt == 1 else "")
  worst = WORST
  with pytest.raises(Stopped, match="for answers that were lost"):
    run.ask(requests(20), max_dollars=5.5 * worst)
  assert run.spent + run.unknown <= 5.5 * worst
  again = Run(tmp_path)
  with pytest.raises(Stopped, match="for answers that were lost"):
    again.ask(requests(20), max_dollars=run.spent + run.unknown + 0.5 * worst)
  assert not again.server.bodies


@pytest.mark.parametrize("count", [200, pytest.param(1000, marks=pytest.mark.slow)])
def test_all_that_is_in_flight_is_kept_when_the_run_is_stopped(tmp_path, count):
  all_there = threading.Event()
  run = Run(
    tmp_path,
    max_concurrency=count,
    start_concurrency=count,
    timeout_s=150.0,
    max_probes=1,
  )

  def hold(prompt, attempt):
    if run.server.in_flight >= count:
      all_there.set()
    all_there.wait(60)
    return ""

  def stop_when_all_are_out(sender):
    loop = asyncio.get_running_loop()
    if all_there.is_set():
      sender.stop(Stopped("enough"))
    else:
      loop.call_later(0.01, stop_when_all_are_out, sender)

  run.server.faults = hold
  with pytest.raises(Stopped, match="enough"):
    run.ask(requests(3 * count), during=stop_when_all_are_out)
  assert run.server.most_in_flight == count
  answered = sum(run.server.answered.values())
  assert count <= answered < 2.5 * count
  assert len(run.path.read_text().splitlines()) == answered
  assert run.totals.lost_answers == 0


def test_a_refused_key_is_a_user_error_after_few_requests(tmp_path):
  run = Run(tmp_path, lambda prompt, attempt: "403")
  with pytest.raises(UserError, match="refuses: 403"):
    run.ask(requests(100))
  assert sum(run.server.attempts.values()) <= 8


def test_the_budget_is_never_exceeded_and_going_on_needs_a_higher_one(tmp_path):
  run = Run(tmp_path)
  limit = 10.5 * ANSWER_DOLLARS
  with pytest.raises(Stopped, match=r"config\.budget\.max_dollars"):
    run.ask(requests(40), max_dollars=limit)
  assert 0 < run.spent <= limit
  answered = sum(run.server.answered.values())
  more = Run(tmp_path)
  more.ask(requests(40), max_dollars=1.0)
  assert answered + sum(more.server.answered.values()) == 40


def test_a_budget_below_one_request_sends_nothing(tmp_path):
  run = Run(tmp_path)
  with pytest.raises(Stopped, match="next request could cost"):
    run.ask(requests(3), max_dollars=1e-6)
  assert not run.server.bodies


def test_a_stop_finishes_what_is_in_flight_and_sends_nothing_else(tmp_path):
  run = Run(tmp_path, max_concurrency=4)
  run.server.delay_s = 0.05
  with pytest.raises(Stopped, match="enough"):
    run.ask(requests(500), during=lambda sender: sender.stop(Stopped("enough")))
  assert 4 <= len(run.server.bodies) < 40
  assert len(run.path.read_text().splitlines()) == len(run.server.bodies)


def test_a_stop_does_not_wait_for_a_backoff(tmp_path):
  run = Run(tmp_path, lambda prompt, attempt: "500", backoff_s=30.0)
  began = time.monotonic()
  with pytest.raises(Stopped):
    run.ask(requests(2), during=lambda sender: sender.stop(Stopped("enough")))
  assert time.monotonic() - began < 5
