"""Batch jobs: noted before they are sent, found again, never sent twice."""

import time

import pytest
from fake_gemini import FakeGemini
from job_runs import ANSWER, WORST, Factory, requests

from data_gen.engine import ledger
from msm_jax.errors import Stopped, UserError


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  monkeypatch.delenv("GEMINI_API_KEY", raising=False)


@pytest.fixture
def factory(tmp_path):
  with Factory(tmp_path) as made:
    yield made


def test_requests_go_out_in_jobs_and_the_few_that_are_left_by_themselves(factory):
  results = factory.run(requests(32))
  assert {entry.status for entry in results} == {ledger.OK}
  assert sorted(len(job["rows"]) for job in factory.server.batches.values()) == [15, 15]
  assert len(factory.server.bodies) == 2
  assert factory.totals.spent == pytest.approx((30 + 2 * 2) * ANSWER)
  assert factory.totals.unknown_at_most == 0.0 and not factory.totals.jobs
  assert factory.run(requests(32)) == results
  assert set(factory.sent().values()) == {1}


def test_a_job_is_noted_by_name_before_it_is_sent_and_by_id_after(factory):
  factory.run(requests(10))
  rows = factory.rows()
  notes = [row for row in rows if row["status"] == "job"]
  assert [note["state"] for note in notes] == ["planned", "sent", "ended"]
  [job] = factory.server.batches.values()
  assert {note["id"] for note in notes} == {job["name"]}
  assert rows[0] == notes[0] and rows[-1] == notes[-1]
  assert {row["job"] for row in rows[2:-1]} == {job["name"]}


def test_a_run_that_was_stopped_is_gone_on_with_by_the_jobs_of_the_ledger(factory):
  factory.interrupted(requests(30))
  assert len(factory.server.batches) == 2
  assert factory.totals.unknown_at_most == pytest.approx(30 * WORST)
  results = factory.run(requests(30))
  assert {entry.status for entry in results} == {ledger.OK}
  assert set(factory.sent().values()) == {1} and len(factory.sent()) == 30
  assert factory.totals.unknown_at_most == 0.0


@pytest.mark.parametrize("was_sent", [True, False])
def test_a_job_without_an_id_is_found_by_its_name_or_sent_again(factory, was_sent):
  factory.interrupted(requests(15))
  lines = factory.path.read_bytes().splitlines(keepends=True)
  assert len(lines) == 2
  factory.path.write_bytes(lines[0])  # killed before the id was noted
  if not was_sent:
    factory.server.batches.clear()  # killed before that
  results = factory.run(requests(15))
  assert {entry.status for entry in results} == {ledger.OK}
  assert set(factory.sent().values()) == {1} and len(factory.sent()) == 15


def test_a_run_that_was_killed_while_it_fetched_takes_the_rest_only(factory):
  results = factory.run(requests(15))
  lines = factory.path.read_bytes().splitlines(keepends=True)
  factory.path.write_bytes(b"".join(lines[:9]) + lines[9][:40])
  assert factory.run(requests(15))[:7] == results[:7]
  assert set(factory.sent().values()) == {1}
  entries = factory.rows()
  answers = [entry["id"] for entry in entries if entry["status"] == "ok"]
  assert len(answers) == len(set(answers)) == 15


def test_what_fails_inside_a_job_is_asked_again(tmp_path):
  fails = {f"Write {i}.": "500" for i in (11, 13, 15, 17, 19)}
  fails["Write 12."] = "SAFETY"
  with Factory(tmp_path, lambda prompt, attempt: fails.get(prompt, "")) as factory:
    results = factory.run(requests(20), per_job=20)
  statuses = [entry.status for entry in results]
  assert statuses.count(ledger.OK) == 14 and statuses.count(ledger.BLOCKED) == 1
  assert statuses.count("retryable") == 5
  assert factory.sent()["Write 11."] == 3 and factory.sent()["Write 12."] == 1
  entries = factory.rows()
  failed = [entry for entry in entries if entry["status"] == "retryable"]
  assert len(failed) == 15 and {entry["attempt"] for entry in failed} == {1, 2, 3}


def test_the_worst_price_of_a_job_is_set_aside_before_it_is_sent(factory):
  with pytest.raises(Stopped, match=r"config\.budget\.max_dollars"):
    factory.run(requests(40), max_dollars=10.5 * WORST)
  jobs = [len(job["rows"]) for job in factory.server.batches.values()]
  assert jobs[0] == 10
  assert factory.budget.spent <= 10.5 * WORST
  spent = sum(factory.sent().values())
  factory.run(requests(40), max_dollars=1.0)
  assert set(factory.sent().values()) == {1} and len(factory.sent()) == 40 > spent


def test_a_job_of_an_earlier_run_counts_for_the_budget_once(factory):
  factory.interrupted(requests(15))
  factory.run(requests(15), max_dollars=15.5 * WORST)
  assert factory.budget.spent == pytest.approx(15 * ANSWER)
  assert factory.budget.unknown == pytest.approx(0.0)
  assert factory.budget.left == pytest.approx(15.5 * WORST - 15 * ANSWER)


def test_a_job_that_is_refused_is_a_user_error_with_the_way_out(factory, monkeypatch):
  handler = FakeGemini.handler

  def refuse(self):
    self._fail(400, "batch is not supported by this model")

  routes = ((r"POST .*:batchGenerateContent", refuse), *handler.routes)
  monkeypatch.setattr(handler, "routes", routes)
  with pytest.raises(UserError, match=r"refuses a batch job of 10 .*'flex'"):
    factory.run(requests(10))
  assert factory.totals.unknown_at_most == 0.0 and not factory.totals.jobs


def test_polling_slows_down_and_a_stop_does_not_wait_for_it(factory):
  factory.stop_after_s = 0.5
  began = time.monotonic()
  with pytest.raises(Stopped, match="enough"):
    factory.run(requests(10), state="", poll_s=30.0)
  assert time.monotonic() - began < 5
