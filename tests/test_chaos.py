"""Whatever goes wrong on the way, the corpus is whole and the bill is known."""

import random
import signal
import time

import pytest
from chaos import ANSWER_DOLLARS, PRICE, Chaos, Zygote, make_job, read
from fake_gemini import FakeGemini

from data_gen import generate
from data_gen.engine import ledger

WORST_ANSWER = 100 * PRICE[2] / 1e6


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  monkeypatch.delenv("GEMINI_API_KEY", raising=False)


@pytest.fixture(scope="module")
def zygote():
  with Zygote() as made:
    yield made


@pytest.mark.parametrize(
  "num_documents", [300, pytest.param(5000, marks=pytest.mark.slow)]
)
def test_every_planned_document_is_kept_or_rejected_and_every_cent_known(
  tmp_path, num_documents
):
  chaos = Chaos()
  with FakeGemini(chaos) as server:
    job = make_job(tmp_path, server.url, num_documents, max_concurrency=32)
    generate.generate(job, tmp_path)
  rows, rejects, manifest, entries = read(tmp_path)
  # Planned, kept, rejected: nothing missing, nothing twice, each with its reason.
  assert manifest["planned"] == num_documents == len(rows) + len(rejects)
  assert len({row["id"] for row in rows + rejects}) == num_documents
  assert {reject["reason"].split(":")[0] for reject in rejects} <= {
    "truncated",
    "blocked",
    "gave up after 5 attempts",
  }
  assert len(rejects) >= 0.015 * num_documents
  # Every attempt that the server saw is an entry; so is one that went into a connection
  # which the server was just closing.
  unseen = len(entries) - sum(server.attempts.values())
  assert 0 <= unseen <= 0.01 * num_documents
  # What the server billed is what they say.
  totals = ledger.totals_in(tmp_path / "corpus/docs/ledger.jsonl")
  too_late = totals.lost_answers - unseen - chaos.num_lost  # on a very busy machine
  billed = (sum(server.answered.values()) - too_late) * ANSWER_DOLLARS
  assert 0 <= too_late <= 0.05 * num_documents
  assert totals.spent == pytest.approx(billed)
  # Lost answers are counted, and bounded by what one can cost.
  assert totals.lost_answers >= 0.02 * num_documents
  assert totals.unknown_at_most >= totals.lost_answers * WORST_ANSWER
  assert totals.unknown_at_most <= totals.lost_answers * 20 * WORST_ANSWER


@pytest.mark.parametrize(
  ("num_kills", "num_documents"),
  [(3, 80), pytest.param(50, 2000, marks=pytest.mark.slow)],
)
def test_kills_at_random_moments_change_nothing_and_cost_what_was_in_flight(
  tmp_path, zygote, num_kills, num_documents
):
  rng = random.Random(num_kills)
  concurrency = 8
  with FakeGemini(Chaos(passing=False)) as server:
    job = make_job(tmp_path, server.url, num_documents, max_concurrency=concurrency)
    generate.generate(job, tmp_path / "straight")
  with FakeGemini(Chaos(hangs=False), delay_s=0.05) as server:
    job = make_job(tmp_path, server.url, num_documents, max_concurrency=concurrency)
    for _ in range(num_kills):
      seen = len(server.bodies)
      pid = zygote.start(job, tmp_path / "killed")
      _wait_for(lambda seen=seen: len(server.bodies) > seen)
      time.sleep(rng.uniform(0, 0.25))
      zygote.kill(pid)
      assert zygote.end() == signal.SIGKILL, "the run was over before it was killed"
    zygote.start(job, tmp_path / "killed")
    assert zygote.end() == 0
    _wait_for(lambda: server.in_flight == 0)
  straight, killed = read(tmp_path / "straight"), read(tmp_path / "killed")
  assert straight[:3] == killed[:3]
  assert straight[2]["shards"][0]["sha256"]
  # What was paid twice was in flight at a kill, and the ledger knows of it.
  lost = [entry for entry in killed[3] if entry["status"] == "lost"]
  repaid = sum(count - 1 for count in server.answered.values())
  assert repaid <= len(lost) <= num_kills * concurrency
  totals = ledger.totals_in(tmp_path / "killed/corpus/docs/ledger.jsonl")
  billed = sum(server.answered.values()) * ANSWER_DOLLARS
  assert totals.spent <= billed + 1e-9
  assert billed <= totals.spent + totals.unknown_at_most


def test_ctrl_c_is_a_clean_stop_and_the_rerun_repays_nothing(tmp_path, zygote):
  with FakeGemini(delay_s=0.05) as server:
    job = make_job(tmp_path, server.url, 100, max_concurrency=16)
    pid = zygote.start(job, tmp_path)
    _wait_for(lambda: len(server.bodies) > 60)
    zygote.kill(pid, signal.SIGTERM)
    assert zygote.end() == 75 << 8
    zygote.start(job, tmp_path)
    assert zygote.end() == 0
  assert set(server.answered.values()) == {1}
  totals = ledger.totals_in(tmp_path / "corpus/docs/ledger.jsonl")
  assert totals.lost_answers == 0


def _wait_for(condition, seconds=60):
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline
    time.sleep(0.002)
