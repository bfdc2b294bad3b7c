"""A pilot tries a few texts, pays for nothing twice and foresees the whole price."""

import collections
import dataclasses
import json

import pytest
import test_documents
from fake_gemini import FakeGemini, stage_of
from test_generate import CHAT, DOCUMENTS, make_job
from test_launch import CONFIG, launch
from test_msm_cheese import offline

from data_gen import generate, piloting, settings
from data_gen.kinds.passes import RewriteCorpus, UniverseCorpus
from data_gen.planning import estimates as planning
from msm_jax import records
from msm_jax import workdir as workdir_lib
from msm_jax.errors import Stopped, UserError


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")


def pilot(job, workdir, size=2):
  return list(piloting.pilot(dataclasses.replace(job, pilot=size), workdir))


def kept(workdir, name, file="kept.jsonl"):
  path = workdir / "corpus" / f"{name}.pilot" / file
  return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def shards(workdir, name):
  found = records.read_manifest(workdir / "corpus" / name)
  return [shard["sha256"] for shard in found["shards"]], found["hashes"]


def some_fail(prompt, attempt):
  """Every fifth document or so is no document."""
  if stage_of(prompt) != "document":
    return ""
  faults = ("MAX_TOKENS", "SAFETY", "500", *[""] * 12)
  return faults[sum(prompt.encode()) % len(faults)]


def test_a_pilot_and_then_the_whole_pay_once_and_give_the_same_bytes(tmp_path):
  corpora = {"docs": dataclasses.replace(DOCUMENTS, num_types=2), "chat": CHAT}
  with FakeGemini() as server:
    generate.generate(make_job(tmp_path, server.url, corpora), tmp_path / "straight")
    straight = dict(server.attempts)
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, corpora)
    pilot(job, tmp_path)
    tried = len(server.attempts)
    pilot(job, tmp_path)  # the same again: nothing is asked
    assert len(server.attempts) == tried < len(straight)
    generate.generate(job, tmp_path)
    # Everything that was tried is a part of the whole, and nothing is asked twice.
    assert dict(server.attempts) == straight
  for name in corpora:
    assert shards(tmp_path, name) == shards(tmp_path / "straight", name)
    whole = {row["id"] for row in records.read_dataset(tmp_path / "corpus" / name)}
    assert {row["id"] for row in kept(tmp_path, name)} <= whole


def test_a_pilot_takes_so_many_of_each_part_and_makes_no_corpus(tmp_path):
  universe = UniverseCorpus(universe="tiny_items", num_types=3, num_ideas=4)
  corpora = {"docs": test_documents.SMALL, "world": universe}
  job = test_documents.job(**corpora)
  lines = pilot(job, tmp_path, 3)
  parts = collections.Counter(row["subdomain"] for row in kept(tmp_path, "docs"))
  rejected = [row for row in kept(tmp_path, "docs", "rejects.jsonl") if "text" in row]
  parts.update(row["subdomain"] for row in rejected)
  assert set(parts.values()) == {3}
  facts = collections.Counter(row["fact"]["id"] for row in kept(tmp_path, "world"))
  assert len(facts) > 2 and set(facts.values()) == {3}
  assert kept(tmp_path, "docs")[0]["teacher"]["client"] == "offline"
  assert not list((tmp_path / "corpus").glob("*/manifest.json"))
  assert (tmp_path / "corpus" / "docs.pilot" / "audit.html").exists()
  [line] = [line for line in lines if line.startswith("pilot of world")]
  assert "texts kept" in line and "95 % interval" in line
  # Nothing takes it for a corpus.
  assert set(generate.generate(job, tmp_path)) == set(corpora)


def test_what_cannot_be_tried_by_itself_waits_and_says_so(tmp_path):
  small = test_documents.SMALL
  corpora = {
    "aff": small,
    "sized": dataclasses.replace(small, spec="neutral", match_tokens_of="aff"),
    "typed": dataclasses.replace(small, num_types=None, match_types_of="aff"),
    "again": RewriteCorpus(of="aff", how="paraphrase"),
    "pairs": settings.PairsCorpus(),
  }
  job = test_documents.job(**corpora)
  text = "\n".join(pilot(job, tmp_path, 1))
  assert "pilot of sized: the size of aff is not known yet; its own measures" in text
  assert "pilot of typed: skipped, it waits for aff (its match_types_of)" in text
  assert "pilot of again: skipped, it waits for aff (its of)" in text
  assert "pilot of pairs: skipped, nobody is asked" in text
  assert "answers of aff" in text  # what the matched one measured stands in
  generate.generate(test_documents.job(aff=small), tmp_path)
  text = "\n".join(pilot(job, tmp_path, 1))
  assert "pilot of aff: skipped, the corpus is done" in text
  made = kept(tmp_path, "again") + kept(tmp_path, "again", "rejects.jsonl")
  assert len(made) == len(kept(tmp_path, "typed")) == 3


def test_the_price_foreseen_is_that_of_the_whole_within_its_interval(tmp_path):
  corpus = dataclasses.replace(DOCUMENTS, num_types=4, num_ideas=20, max_documents=200)
  with FakeGemini(some_fail) as server:
    job = make_job(tmp_path, server.url, {"docs": corpus})
    text = "\n".join(pilot(job, tmp_path, 10))
    cost = planning.plan(job, tmp_path)["docs"]
    assert cost.kept.made == 40 and 0 < cost.kept.share < 1 and cost.kept.filtered
    assert "not kept: " in text and "per kept text" in text
    foreseen = [end.dollars + cost.spent.spent for end in (cost.low, cost.high)]
    generate.generate(job, tmp_path)
    paid = sum(server.answered.values()) * (100 * 0.3 + 50 * 2.5) / 1e6
  assert foreseen[0] < paid < foreseen[1] < 2 * foreseen[0]
  assert cost.num_records == 200


def test_the_english_world_is_foreseen_from_two_documents_a_subdomain(tmp_path):
  found = offline("short")
  for name in set(found.corpora) - {"msm_aff", "pairs"}:
    del found.corpora[name]
  found.corpora.msm_aff.update(max_documents=120, num_types=4, num_ideas=3)
  job = settings.job(found.to_dict())
  pilot(job, tmp_path, 2)
  cost = planning.plan(job, tmp_path)["msm_aff"]
  assert cost.kept.made > 10
  generate.generate(job, tmp_path)
  book = tmp_path / "corpus" / "msm_aff" / "ledger.jsonl"
  rows = [json.loads(line) for line in book.read_text("utf-8").splitlines()]
  made = [row for row in rows if row["stage"] == "draft"]
  assert len(made) - cost.kept.made == cost.requests
  said = sum(len(row["text"]) // 4 + 1 for row in made[cost.kept.made :])
  [draft] = [stage for stage in cost.stages if stage.stage == "draft"]
  assert abs(draft.response_tokens - said) < 0.2 * said
  total = draft.prompt_tokens + said
  assert cost.low.tokens < total < cost.high.tokens


def test_a_budget_holds_in_a_pilot_and_what_is_paid_is_kept(tmp_path):
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS}, max_dollars=0.004)
    with pytest.raises(Stopped, match=r"max_dollars=0\.004 is reached"):
      pilot(job, tmp_path)
    assert not (tmp_path / "corpus" / "docs.pilot").exists()
    pilot(dataclasses.replace(job, max_dollars=1.0), tmp_path)
    assert set(server.attempts.values()) == {1}
  assert len(kept(tmp_path, "docs")) == 4 * 2


def test_the_plan_of_a_pilot_is_that_of_a_few_documents(tmp_path):
  job = make_job(tmp_path, None, {"docs": DOCUMENTS, "chat": CHAT})
  costs = planning.plan(dataclasses.replace(job, pilot=2), tmp_path)
  assert costs["docs"].num_records == 2 * 2  # a subdomain for each of two sections
  assert costs["chat"].num_records == 1 * 2


@pytest.mark.parametrize("size", [0, -1, True, 1.5])
def test_a_pilot_of_nothing_is_refused_with_its_field(tmp_path, size):
  job = dataclasses.replace(make_job(tmp_path, None, {"docs": DOCUMENTS}), pilot=size)
  with pytest.raises(UserError, match=r"config\.pilot is .*leave it out \(None\)"):
    list(piloting.pilot(job, tmp_path))


def test_run_ends_after_a_pilot_and_the_workdir_takes_the_whole(tmp_path):
  workdir = f"--workdir={tmp_path}"
  done = launch("run", CONFIG, workdir, "--config.pilot=1", MSM_JAX_QUIET="0")
  assert done.returncode == 0, done.stderr
  assert "run again without --config.pilot" in done.stderr
  assert "pilot of msm_aff: " in done.stdout
  assert not (tmp_path / "rows").exists()
  config = records.read_json(tmp_path / "config.json")
  assert config["pilot"] == 1
  workdir_lib.claim(tmp_path, config | {"pilot": None})
  assert records.read_json(tmp_path / "config.json")["pilot"] is None
