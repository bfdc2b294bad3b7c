"""A batch job whose sending goes wrong: neither paid for twice nor left uncounted."""

import datetime

import pytest
from job_runs import SERVICES, WORST, Factory, requests

from data_gen.engine import entries, ledger
from msm_jax.errors import Stopped, UserError


@pytest.fixture(autouse=True)
def keys(monkeypatch):
  for name in ("GOOGLE_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY"):
    monkeypatch.setenv(name, "not a real key")
  monkeypatch.delenv("GEMINI_API_KEY", raising=False)


@pytest.fixture(params=SERVICES)
def factory(request, tmp_path):
  if request.param == "anthropic":
    pytest.importorskip("anthropic")
  with Factory(tmp_path, service=request.param) as made:
    yield made


@pytest.fixture
def claude(tmp_path):
  pytest.importorskip("anthropic")
  with Factory(tmp_path, service="anthropic") as made:
    yield made


def nothing_is_uncounted(factory):
  return factory.totals.unknown_at_most == 0.0 and not factory.totals.jobs


@pytest.mark.parametrize("fault", ["taken drop", "taken 503"])
def test_a_job_that_was_taken_though_its_sending_failed_is_found(factory, fault):
  factory.server.submit_faults = [fault]
  results = factory.run(requests(10))
  assert {entry.status for entry in results} == {ledger.OK}
  assert set(factory.sent().values()) == {1} and len(factory.jobs()) == 1
  assert nothing_is_uncounted(factory)


def test_a_job_that_may_have_been_taken_is_counted_before_it_is_sent_again(
  factory, capsys, monkeypatch
):
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  factory.server.submit_faults = ["drop"]
  results = factory.run(requests(10))
  assert {entry.status for entry in results} == {ledger.OK}
  assert set(factory.sent().values()) == {1}
  assert factory.totals.lost_answers == 10 and not factory.totals.jobs
  assert factory.totals.unknown_at_most == pytest.approx(10 * WORST)
  assert factory.budget.unknown == pytest.approx(10 * WORST)
  assert {entry.attempt for entry in results} == {2}
  assert "10 requests are asked again, up to $0.0050" in capsys.readouterr().err


def test_jobs_that_may_have_been_taken_one_after_the_other_stop_the_run(factory):
  factory.server.submit_faults = ["drop"] * 10
  with pytest.raises(Stopped, match="2 batch jobs in a row failed"):
    factory.run(requests(10))
  assert factory.totals.lost_answers == 20 and not factory.totals.jobs
  assert len(factory.server.submit_faults) == 8


@pytest.mark.parametrize("faults", [["503"], ["429"], ["429", "503", "503"]])
def test_a_job_that_was_answered_with_an_error_costs_nothing(factory, faults):
  factory.server.submit_faults = faults
  results = factory.run(requests(10))
  assert {entry.status for entry in results} == {ledger.OK}
  assert set(factory.sent().values()) == {1} and nothing_is_uncounted(factory)


def test_a_service_that_takes_no_job_leaves_nothing_open(factory):
  factory.server.submit_faults = ["503"] * 3
  with pytest.raises(Stopped, match="takes no batch job now"):
    factory.run(requests(10), max_dollars=1.0)
  assert nothing_is_uncounted(factory) and factory.budget.left == 1.0


def test_a_job_that_was_refused_while_none_could_be_listed_costs_nothing(factory):
  factory.server.submit_faults = ["503"]
  factory.server.list_faults = ["503"] * 9
  with pytest.raises(Stopped, match="1 batch jobs cannot be fetched"):
    factory.run(requests(10))
  [job] = factory.totals.jobs.values()
  assert job.refused and job.id is None
  factory.server.list_faults = []
  results = factory.run(requests(10))
  assert {entry.status for entry in results} == {ledger.OK}
  assert set(factory.sent().values()) == {1} and nothing_is_uncounted(factory)


@pytest.mark.parametrize("was_sent", [True, False])
def test_a_job_without_an_id_is_found_or_counted_and_sent_again(factory, was_sent):
  factory.interrupted(requests(15))
  lines = factory.path.read_bytes().splitlines(keepends=True)
  assert len(lines) == 2
  factory.path.write_bytes(lines[0])  # killed before the id was noted
  if not was_sent:
    factory.server.batches.clear()  # killed before that
  results = factory.run(requests(15))
  assert {entry.status for entry in results} == {ledger.OK}
  assert set(factory.sent().values()) == {1} and len(factory.sent()) == 15
  assert factory.totals.lost_answers == (0 if was_sent else 15)
  assert not factory.totals.jobs


def test_several_jobs_without_an_id_do_not_stop_the_next_run(factory):
  factory.interrupted(requests(45))
  rows = factory.path.read_bytes().splitlines(keepends=True)
  factory.path.write_bytes(b"".join(rows[::2]))
  factory.server.batches.clear()
  results = factory.run(requests(45))
  assert {entry.status for entry in results} == {ledger.OK}
  assert factory.totals.lost_answers == 45


def test_a_refused_key_is_told_when_a_lost_job_is_looked_for(factory):
  factory.server.submit_faults, factory.server.list_faults = ["drop"], ["401"]
  with pytest.raises(UserError, match=r"refuses: 401"):
    factory.run(requests(10))
  assert factory.totals.unknown_at_most == pytest.approx(10 * WORST)
  factory.run(requests(10))


# Claude's service keeps no names.


def rows(count, prefix):
  return [
    {
      "custom_id": f"{prefix}{i}",
      "params": {"messages": [{"content": f"{prefix} {i}"}]},
    }
    for i in range(count)
  ]


@pytest.mark.parametrize("status", ["in_progress", "ended"])
def test_a_job_of_the_same_size_that_is_another_s_is_not_taken_for_ours(claude, status):
  claude.server.submit_faults = ["taken drop"]
  changes = {"created": "2099-01-01T00:00:00Z", "status": status}
  claude.server.add_batch(rows(10, "theirs"), **changes)
  claude.server.add_batch(rows(10, "old"), created="2020-01-01T00:00:00Z")
  results = claude.run(requests(10))
  assert {entry.status for entry in results} == {ledger.OK}
  assert len(claude.server.batches) == 3 and nothing_is_uncounted(claude)


def test_a_job_that_may_be_ours_is_waited_for_until_it_can_be_told(claude):
  claude.server.submit_faults = ["taken drop"]
  claude.interrupted(requests(10))
  [job] = claude.totals.jobs.values()
  assert job.id is None and claude.totals.lost_answers == 0
  results = claude.run(requests(10))
  assert {entry.status for entry in results} == {ledger.OK}
  assert set(claude.sent().values()) == {1} and nothing_is_uncounted(claude)


def test_a_job_that_ended_in_an_earlier_run_is_not_found_again(claude):
  faults = {"Write 10."}
  claude.server.faults = lambda prompt, attempt: "expired" if prompt in faults else ""
  claude.run(requests(4), max_attempts=1)
  assert len(claude.totals.job_ids) == 1
  faults.clear()
  claude.server.batches["msgbatch_0"]["created"] = "2099-01-01T00:00:00Z"
  claude.server.submit_faults = ["drop"]
  # As many as that job had, and one of them was in it.
  again = claude.run([*requests(1), *requests(10)[5:8]])
  assert {entry.status for entry in again} == {ledger.OK}
  assert claude.totals.lost_answers == 4


def test_the_note_of_a_refused_job_is_read_again(tmp_path):
  waiting = entries.Waiting("document", 0, "hash", 1, 0.5)
  sent = datetime.datetime.now(datetime.UTC).isoformat()
  job = entries.Job(name="a", sent=sent, open={"id": waiting})
  totals = entries.Totals()
  for state in (entries.PLANNED, entries.REFUSED):
    totals.add(job.row(state, sent))
  assert totals.jobs["a"].refused and totals.unknown_at_most == 0.5
  job.id = "7"
  totals.add(job.row(entries.SENT, sent))
  assert not totals.jobs["a"].refused and totals.job_ids == {"7"}
