"""Batch jobs that are out: failed, gone, cut short, out of reach, of another tier."""

import threading
import time

import pytest
from job_runs import PRICE, SERVICES, WORST, Factory, requests

from data_gen.clients import protocol
from data_gen.clients.gemini import jobs as gemini_jobs
from data_gen.engine import ledger
from msm_jax.errors import Stopped, UserError


@pytest.fixture(autouse=True)
def keys(monkeypatch):
  for name in ("GOOGLE_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
    monkeypatch.setenv(name, "not a real key")
  monkeypatch.delenv("GEMINI_API_KEY", raising=False)


def made(tmp_path, service, faults=lambda prompt, attempt: ""):
  if service == "anthropic":
    pytest.importorskip("anthropic")
  return Factory(tmp_path, faults, service)


@pytest.fixture(params=SERVICES)
def factory(request, tmp_path):
  with made(tmp_path, request.param) as found:
    yield found


@pytest.fixture
def gemini(tmp_path):
  with made(tmp_path, "gemini") as found:
    yield found


@pytest.fixture
def openai(tmp_path):
  with made(tmp_path, "openai") as found:
    yield found


def all_answered(results):
  return {entry.status for entry in results} == {ledger.OK}


# What is billed of a job that came to nothing.


def test_a_gemini_job_that_failed_is_not_counted_as_spent(gemini):
  with pytest.raises(Stopped, match="2 batch jobs in a row failed"):
    gemini.run(requests(10), state="FAILED", max_dollars=20.5 * WORST)
  assert gemini.totals.lost_answers == 0 and gemini.totals.unknown_at_most == 0.0
  assert gemini.budget.left == pytest.approx(20.5 * WORST)
  assert all_answered(gemini.run(requests(10)))


@pytest.mark.parametrize("state", ["CANCELLED", "EXPIRED"])
def test_a_gemini_job_that_ended_early_is_bounded_as_unknown_spend(gemini, state):
  with pytest.raises(Stopped, match="2 batch jobs in a row failed"):
    gemini.run(requests(10), state=state)
  assert gemini.totals.lost_answers == 20
  assert gemini.totals.unknown_at_most == pytest.approx(20 * WORST)
  assert all_answered(gemini.run(requests(10)))


def test_an_openai_job_that_failed_is_not_counted_as_spent(openai):
  with pytest.raises(Stopped, match="2 batch jobs in a row failed"):
    openai.run(requests(10), state="failed")
  assert openai.totals.lost_answers == 0 and openai.totals.unknown_at_most == 0.0
  assert all_answered(openai.run(requests(10)))


def test_of_an_openai_job_that_expired_the_answers_are_taken_and_the_rest_is_free(
  openai,
):
  openai.server.answered_early = 6
  results = openai.run(requests(10), state="expired", max_attempts=2, min_job=5)
  assert all_answered(results)
  assert openai.totals.lost_answers == 0 and openai.totals.unknown_at_most == 0.0
  assert sum(openai.sent().values()) == 14


def test_what_expired_in_an_anthropic_job_is_not_counted_as_spent(tmp_path):
  expire = {f"Write {i}." for i in range(10, 16)}

  def faults(prompt, attempt):
    return "expired" if prompt in expire else ""

  with made(tmp_path, "anthropic", faults) as claude:
    results = claude.run(requests(10))
    assert [entry.status for entry in results].count(ledger.OK) == 4
    assert claude.totals.lost_answers == 0 and claude.totals.unknown_at_most == 0.0
    assert {entry.error for entry in results[:6]} == {"the request is expired"}
    expire.clear()
    assert all_answered(claude.run(requests(10)))


# Another tier.


def test_another_tier_takes_requests_back_from_the_jobs_that_hold_them(factory):
  factory.interrupted(requests(15))
  factory.server.answered_early = 5
  results = factory.run(requests(20), tier="standard", state="")
  assert all_answered(results) and not factory.totals.jobs
  # Google does not say what of a job that was cancelled is billed.
  early, lost = (0, 15) if factory.service == "gemini" else (5, 0)
  assert len(factory.singles()) == 20 - early
  assert set(factory.singles()).isdisjoint(factory.jobs()[0][:early])
  assert factory.totals.lost_answers == lost
  assert factory.totals.unknown_at_most == pytest.approx(lost * WORST)
  kept = [row for row in factory.rows() if row["status"] == "ok" and row.get("job")]
  usages = [protocol.Usage(**row["usage"]) for row in kept]
  assert len(kept) == early
  assert [row["dollars"] for row in kept] == [PRICE.dollars(usage) for usage in usages]
  again = factory.run(requests(20), tier="standard", state="")
  assert again == results and len(factory.singles()) == 20 - early


def test_another_tier_takes_the_answers_of_a_job_that_is_done(factory):
  factory.interrupted(requests(15))
  factory.server.finish_batches()
  assert all_answered(factory.run(requests(17), tier="standard", state=""))
  assert len(factory.singles()) == 2 and set(factory.sent().values()) == {1}
  assert not any("cancel" in path for _, path in factory.server.calls)
  assert factory.totals.unknown_at_most == 0.0


def test_a_client_that_cannot_see_the_jobs_does_not_ask_a_second_time(factory):
  factory.interrupted(requests(15))
  factory.mend = lambda client: setattr(client, "jobs", None)
  with pytest.raises(UserError, match=r"15 requests are in batch job msm-.*set tier"):
    factory.run(requests(20), tier="standard")
  assert not factory.singles()
  assert all_answered(factory.run(requests(20)[15:], tier="standard"))


# The budget.


def test_a_budget_that_is_short_while_a_job_is_out_makes_the_rest_wait(gemini):
  late = threading.Event()
  gemini.server.finish_batches, finish = (
    lambda *states: late.is_set() and finish(*states),
    gemini.server.finish_batches,
  )
  threading.Timer(0.5, late.set).start()
  assert all_answered(gemini.run(requests(22), max_dollars=16.5 * WORST))
  assert not gemini.singles()
  assert [len(job) for job in gemini.jobs()] == [15, 7]


def test_a_budget_with_room_for_few_requests_sends_these_in_a_job(gemini):
  with pytest.raises(Stopped, match=r"max_dollars=\S+ is reached"):
    gemini.run(requests(40), max_dollars=3.5 * WORST)
  assert not gemini.singles() and len(gemini.jobs()[0]) == 3
  assert gemini.budget.spent <= 3.5 * WORST


# Jobs that are gone, or out of reach.


def test_a_job_that_the_service_no_longer_knows_is_counted_and_sent_again(
  factory, capsys, monkeypatch
):
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  factory.interrupted(requests(15))
  factory.server.batches.clear()
  assert all_answered(factory.run(requests(15)))
  assert set(factory.sent().values()) == {1} and not factory.totals.jobs
  assert factory.totals.lost_answers == 15
  assert factory.totals.unknown_at_most == pytest.approx(15 * WORST)
  said = capsys.readouterr().err
  assert "the batch job is gone: 404" in said and "15 requests are asked again" in said


def test_a_service_at_another_address_is_no_reason_to_let_go_of_a_job(factory):
  factory.interrupted(requests(15))
  with pytest.raises(UserError, match="404"):
    factory.run(requests(15), url="/elsewhere")
  assert len(factory.totals.jobs) == 1
  assert all_answered(factory.run(requests(15)))
  assert set(factory.sent().values()) == {1} and factory.totals.lost_answers == 0


@pytest.mark.parametrize("service", SERVICES)
def test_results_that_the_service_has_thrown_away_are_counted(
  tmp_path, service, monkeypatch
):
  monkeypatch.setattr(gemini_jobs, "_MAX_INLINE_BYTES", 10)
  with made(tmp_path, service) as factory:
    factory.interrupted(requests(15))
    factory.server.finish_batches()
    if service == "anthropic":
      factory.server.batches["msgbatch_0"]["archived"] = True
    elif service == "openai":
      del factory.server.files["batch_0-output_file_id"]
    else:
      factory.server.thrown_away = {"files/out-b0"}
    assert all_answered(factory.run(requests(15)))
  assert factory.totals.lost_answers == 15 and len(factory.server.batches) == 2


def test_a_job_that_cannot_be_looked_at_does_not_hold_up_the_others(factory):
  factory.interrupted(requests(30))
  first = next(iter(factory.server.batches))
  factory.server.unreachable = {first}
  with pytest.raises(Stopped, match=r"1 batch jobs cannot be fetched.*503"):
    factory.run(requests(45))
  assert sum(row["status"] == "ok" for row in factory.rows()) == 30
  factory.server.unreachable = set()
  assert all_answered(factory.run(requests(45)))
  assert set(factory.sent().values()) == {1} and factory.totals.lost_answers == 0


# What is in the results.


@pytest.mark.parametrize("service", SERVICES)
def test_a_damaged_line_of_results_costs_its_own_answer_only(
  tmp_path, service, monkeypatch
):
  monkeypatch.setattr(gemini_jobs, "_MAX_INLINE_BYTES", 10)
  with made(tmp_path, service) as factory:
    factory.server.damaged = {"Write 12."}
    factory.interrupted(requests(15))
    factory.server.finish_batches()
    assert all_answered(factory.run(requests(15)))
    assert factory.sent() == {f"Write {i}.": 1 + (i == 12) for i in range(10, 25)}
  assert factory.totals.lost_answers == 1
  assert factory.totals.unknown_at_most == pytest.approx(WORST)


def test_a_line_of_results_that_is_no_answer_is_damaged(openai):
  openai.interrupted(requests(5))
  openai.server.finish_batches()
  name = "batch_0-output_file_id"
  lines = openai.server.files[name].splitlines()
  shapes = [b"[]", b'{"custom_id": "x"}', lines[2].replace(b"status_code", b"code")]
  openai.server.files[name] = b"\n".join([*shapes, *lines[3:]])
  assert all_answered(openai.run(requests(5)))
  assert openai.totals.lost_answers == 3


def test_a_setting_that_is_refused_in_the_results_is_told_after_they_are_kept(tmp_path):
  refused = {"Write 12.": "16"}  # UNAUTHENTICATED
  with made(tmp_path, "gemini", lambda prompt, attempt: refused.get(prompt, "")) as got:
    with pytest.raises(UserError, match=r"refuses: 401 scripted"):
      got.run(requests(15))
    assert len(got.jobs()) == 1 and not got.totals.jobs
    assert sum(row["status"] == "ok" for row in got.rows()) == 14
    refused.clear()
    assert all_answered(got.run(requests(15)))
    assert got.sent() == {f"Write {i}.": 1 + (i == 12) for i in range(10, 25)}


def test_a_rate_limit_in_the_results_is_no_attempt(tmp_path):
  def faults(prompt, attempt):
    # Every job brings one answer more.
    is_limited = int(prompt[6:-1]) - 10 >= len(factory.server.batches)
    return "8" if is_limited else ""  # RESOURCE_EXHAUSTED

  with made(tmp_path, "gemini", faults) as factory:
    results = factory.run(requests(6), min_job=1)
  assert all_answered(results) and len(factory.server.batches) == 6
  assert {row["attempt"] for row in factory.rows() if "attempt" in row} == {1}


def test_jobs_that_meet_nothing_but_rate_limits_stop_the_run(tmp_path):
  limited = {f"Write {i}.": "8" for i in range(10, 15)}
  with made(tmp_path, "gemini", lambda prompt, attempt: limited.get(prompt, "")) as got:
    with pytest.raises(Stopped, match="no request in it was answered"):
      got.run(requests(10))
    assert len(got.jobs()) == 3 and got.totals.lost_answers == 0
    limited.clear()
    assert all_answered(got.run(requests(10)))


def test_a_rate_limit_while_looking_is_waited_for_as_long_as_it_asks(factory):
  factory.server.look_faults = ["429"]
  began = time.monotonic()
  assert all_answered(factory.run(requests(10)))
  assert time.monotonic() - began > 1.0
  looks = [path for _, path in factory.server.calls if "batches/" in path]
  assert len(looks) < 10
