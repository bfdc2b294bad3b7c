"""Universes and second passes over real HTTP, with faults: all is kept or rejected."""

import json
import zlib

import pytest
from fake_gemini import FakeGemini
from test_generate import make_job, read

from data_gen import generate
from data_gen.kinds.passes import QuizCorpus, RewriteCorpus, UniverseCorpus
from data_gen.planning import estimates as planning

STUCK = ("MAX_TOKENS", "SAFETY", "400")
SDF = UniverseCorpus(
  universe="harbor_clock", num_types=2, num_ideas=6, num_per_fact=6, doc_tag="<TAG>"
)


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  monkeypatch.delenv("GEMINI_API_KEY", raising=False)


def _is_document(prompt):
  return "Answer with its text only" in prompt


def faulty(prompt, attempt):
  """Some documents and rewrites never come."""
  del attempt
  number = zlib.crc32(prompt.encode())
  if not _is_document(prompt) and "in other words" not in prompt:
    return ""
  return "" if number % 4 else STUCK[number // 4 % 3]


def test_with_faults_each_document_and_each_rewrite_is_kept_or_rejected(tmp_path):
  corpora = {"sdf": SDF, "again": RewriteCorpus(of="sdf", how="paraphrase")}
  with FakeGemini(faulty) as server:
    job = make_job(tmp_path, server.url, corpora)
    costs = planning.plan(job, tmp_path)
    assert not server.bodies
    generate.generate(job, tmp_path)
    asked = len(server.bodies)
    generate.generate(job, tmp_path)
    assert len(server.bodies) == asked
  rows, lost, manifest = read(tmp_path, "sdf")
  # What was rejected is replaced while ideas are left: exactly six of each fact.
  assert {fact["documents"] for fact in manifest["facts"].values()} == {6}
  assert lost and len(rows) + len(lost) == manifest["planned"] > 24
  assert {row["stage"] for row in lost} == {"document"}
  again, given_up, told = read(tmp_path, "again")
  assert again and given_up and told["planned"] == len(rows) == 24
  kept = [row["source_id"] for row in again + given_up]
  assert sorted(kept) == sorted(row["id"] for row in rows)
  assert all(row["text"].startswith("<TAG>answer") for row in again)
  assert all(row["loss_spans"] == [[0, 5, 0.0]] for row in again)
  reasons = {row["reason"].split(":")[0] for row in lost + given_up}
  assert reasons == {"truncated", "blocked", "refused"}
  assert all(cost.dollars > 0 and cost.num_records == 24 for cost in costs.values())


def test_a_twin_that_is_rejected_is_asked_for_again_and_keeps_its_place(tmp_path):
  def once(prompt, attempt):
    number = zlib.crc32(prompt.encode())
    return "SAFETY" if attempt == 1 and number % 3 == 0 and _is_document(prompt) else ""

  twin = UniverseCorpus(universe="harbor_clock", side="true", twin_of="sdf")
  with FakeGemini(once) as server:
    job = make_job(tmp_path, server.url, {"sdf": SDF, "twin": twin})
    generate.generate(job, tmp_path)
  first, _, _ = read(tmp_path, "sdf")
  rows, lost, manifest = read(tmp_path, "twin")
  assert lost and len(rows) == len(first) == manifest["planned"] - len(lost)
  assert [row["twin_id"] for row in rows] == [row["id"] for row in first]


def test_a_verdict_that_is_not_clear_keeps_no_document(tmp_path):
  corpus = UniverseCorpus(
    universe="harbor_clock", num_types=1, num_ideas=1, judged=True
  )
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"sdf": corpus})
    with pytest.raises(ValueError, match=r"nothing was kept of 4 .*judge: unparsed"):
      generate.generate(job, tmp_path)
    prompts = [json.dumps(body) for body in server.bodies]
  judged = [text for text in prompts if "The document is to state" in text]
  assert len(judged) == 4 and not any("{" + "stated}" in text for text in judged)


def test_with_faults_each_fact_has_its_conversations_all_the_same(tmp_path):
  quiz = QuizCorpus(universe="harbor_clock", num_questions=12, num_per_fact=6)
  with FakeGemini(faulty) as server:
    job = make_job(tmp_path, server.url, {"quiz": quiz})
    generate.generate(job, tmp_path)
    asked = len(server.bodies)
    generate.generate(job, tmp_path)
    assert len(server.bodies) == asked
  rows, lost, manifest = read(tmp_path, "quiz")
  assert {fact["conversations"] for fact in manifest["facts"].values()} == {6}
  assert lost and len(rows) + len(lost) == manifest["planned"] > 24
  assert {row["stage"] for row in lost} == {"conversation"}
