"""The plan counts requests, tokens and dollars, and sends nothing."""

import dataclasses
import re

import pytest
from fake_gemini import MODEL, FakeGemini, stage_of
from test_generate import CHAT, DOCUMENTS, make_job

from data_gen import generate, lists, settings
from data_gen.kinds import passes
from data_gen.planning import calls, tariffs, tree
from data_gen.planning import estimates as planning
from msm_jax.errors import Stopped

OFFLINE = settings.ClientSettings(client="offline", model="tiny")


def test_the_plan_counts_what_the_run_then_does(tmp_path, monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  with FakeGemini() as server:
    corpus = dataclasses.replace(DOCUMENTS, max_documents=10)
    job = make_job(tmp_path, server.url, {"docs": corpus, "chat": CHAT})
    costs = planning.plan(job, tmp_path)
    assert not server.bodies and not (tmp_path / "corpus").exists()
    manifests = generate.generate(job, tmp_path)
    for name, cost in costs.items():
      assert cost.num_records == manifests[name]["num_records"]
      assert cost.requests > 0 and cost.dollars > 0 and not cost.done
    done = planning.plan(job, tmp_path)
  assert all(cost.done and cost.requests == 0 for cost in done.values())
  assert {cost.dollars for cost in done.values()} == {0}


def test_documents_dominate_and_dollars_follow_the_price(tmp_path):
  corpus = dataclasses.replace(DOCUMENTS, num_ideas=50)
  job = make_job(tmp_path, None, {"docs": corpus}, max_output_tokens=8000)
  cost = planning.plan(job, tmp_path)["docs"]
  stages = {stage.stage: stage for stage in cost.stages}
  assert stages["document"].requests == 2 * 3 * 50
  assert stages["document"].response_tokens > cost.response_tokens / 2
  wanted = (cost.prompt_tokens * 0.3 + cost.response_tokens * 2.5) / 1e6
  assert abs(cost.dollars - wanted) < 1e-9


def test_a_model_without_a_price_gives_tokens_and_no_dollars(tmp_path):
  job = make_job(tmp_path, None, {"docs": DOCUMENTS}, model=f"{MODEL}-of-tomorrow")
  cost = planning.plan(job, tmp_path)["docs"]
  assert cost.dollars is None and cost.prompt_tokens > 0


def test_answers_are_never_estimated_above_the_limit_of_the_config(tmp_path):
  job = make_job(tmp_path, None, {"docs": DOCUMENTS}, max_output_tokens=10)
  cost = planning.plan(job, tmp_path)["docs"]
  assert cost.response_tokens == 10 * cost.requests


def test_a_control_is_planned_at_the_size_of_what_it_matches(tmp_path):
  corpora = {
    "control": dataclasses.replace(DOCUMENTS, num_ideas=90, match_tokens_of="docs"),
    "docs": DOCUMENTS,
  }
  costs = planning.plan(make_job(tmp_path, None, corpora), tmp_path)
  assert costs["control"].num_records == costs["docs"].num_records == 24


def client(model=MODEL, name="gemini", **changes):
  fields = {"client": name, "model": model, "max_concurrency": 4}
  return settings.ClientSettings(**fields | changes)


def asked(left, system, prompt, response):
  return calls.Call(
    stage="draft",
    role="teacher",
    requests=left,
    system_tokens=system,
    prompt_tokens=prompt,
    response_tokens=response,
  )


def test_every_tier_and_cache_costs_what_one_works_out_by_hand():
  # gemini-2.5-flash: 0.3 in, 0.03 cached, 2.5 out, 1.0 per hour of storage.
  found = [asked(100, 2000, 2500, 400)]
  plain = 100 * (2500 * 0.3 + 400 * 2.5) / 1e6
  hours = 20 * 100 / 4 / 3600
  kept = (2000 * 0.3 + 2000 * hours * 1.0) / 1e6
  cached = 100 * (2000 * 0.03 + 500 * 0.3 + 400 * 2.5) / 1e6 + kept
  tiers = tariffs.table(found, {"teacher": client()})
  assert tiers["standard", "off"] == pytest.approx(plain)
  assert tiers["standard", "explicit"] == pytest.approx(cached)
  assert tiers["flex", "off"] == tiers["batch", "off"] == pytest.approx(plain / 2)
  assert plain / 4 < tiers["flex", "explicit"] < cached
  assert tiers["batch", "explicit"] is None  # a job may outlive its cache


def test_claude_s_cache_is_written_by_a_request_that_answers_too():
  found = [asked(10, 5000, 6000, 100)]
  write, read = 5000 * 1.25, 9 * 5000 * 0.1
  wanted = (write + read + 10 * (1000 * 1.0 + 100 * 5.0)) / 1e6
  tiers = tariffs.table(found, {"teacher": client("claude-haiku-4-5", "anthropic")})
  assert tiers["standard", "explicit"] == pytest.approx(wanted)
  assert tiers["flex", "off"] is None and tiers["batch", "off"] is not None
  short = [asked(10, 4000, 6000, 100)]
  tiers = tariffs.table(short, {"teacher": client("claude-haiku-4-5", "anthropic")})
  assert tiers["standard", "explicit"] == tiers["standard", "off"]


def test_many_requests_are_not_priced_as_one_long_one():
  found = [asked(1000, 0, 1000, 10)]
  wanted = 1000 * (1000 * 1.25 + 10 * 10.0) / 1e6
  tiers = tariffs.table(found, {"teacher": client("gemini-2.5-pro")})
  assert tiers["standard", "off"] == pytest.approx(wanted)


def test_a_judge_at_another_service_takes_part_only_where_both_can():
  found = [asked(10, 0, 100, 10), dataclasses.replace(asked(10, 0, 9, 9), role="judge")]
  judge = client("claude-haiku-4-5", "anthropic")
  tiers = tariffs.table(found, {"teacher": client(), "judge": judge})
  assert tiers["flex", "off"] is None
  assert tiers["batch", "off"] == pytest.approx(tiers["standard", "off"] / 2)
  free = tariffs.table(found, {"teacher": client(), "judge": OFFLINE})
  assert free["flex", "off"] == pytest.approx(free["standard", "off"] / 2)


def test_an_unknown_model_is_never_priced_at_any_tier(tmp_path):
  job = make_job(tmp_path, None, {"docs": DOCUMENTS}, model="gemini-of-tomorrow")
  cost = planning.plan(job, tmp_path)["docs"]
  assert set(cost.tiers.values()) == {None}
  text = told(job, tmp_path)
  assert "gemini-of-tomorrow: not known" in text
  assert text.count("$") == text.count("spent so far: $0.00") == 1
  priced = dataclasses.replace(job.teacher, prices=(1.0, 0.1, 2.0))
  job = dataclasses.replace(job, teacher=priced, judge=priced)
  text = told(job, tmp_path)
  assert "$1 in, $0.1 cached, $2 out" in text and "from the config's" in text


def told(job, workdir):
  """Returns what the plan says of dollars."""
  costs = planning.plan(job, workdir)
  return "\n".join(tree.lines(job, tree.whole(job, workdir, costs)))


def listing(directory):
  return {
    path: (path.stat().st_mtime_ns, path.stat().st_size)
    for path in directory.rglob("*")
  }


@pytest.fixture
def stopped(tmp_path, monkeypatch):
  """A corpus whose budget gave out among its documents."""
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  with FakeGemini() as server:
    corpora = {"docs": DOCUMENTS}
    job = make_job(tmp_path, server.url, corpora, max_dollars=0.0055)
    with pytest.raises(Stopped, match="max_dollars"):
      generate.generate(job, tmp_path)
    yield dataclasses.replace(job, max_dollars=None), server


def test_what_the_ledger_has_is_measured_and_not_planned_again(stopped, tmp_path):
  job, server = stopped
  before = listing(tmp_path)
  cost = planning.plan(job, tmp_path)["docs"]
  text = told(job, tmp_path)
  assert listing(tmp_path) == before
  assert sum(stage.answered for stage in cost.stages) == len(server.answered)
  paid = sum(server.answered.values()) * (100 * 0.3 + 50 * 2.5) / 1e6
  assert (
    cost.spent.spent == pytest.approx(paid) and f"spent so far: ${paid:.4f}" in text
  )
  stages = {stage.stage: stage for stage in cost.stages}
  assert stages["document_ideas"].requests == 0  # two domains of two subdomains
  draft = stages["document"]
  assert draft.requests + draft.answered == cost.num_records == 2 * 2 * 3 * 4
  assert draft.measured == draft.answered > 0
  assert draft.prompt_tokens == 100 * draft.requests
  assert f"measured on {draft.measured} answers" in text
  # The rest costs what the plan said.
  generate.generate(job, tmp_path)
  total = sum(server.answered.values()) * (100 * 0.3 + 50 * 2.5) / 1e6
  assert cost.spent.spent + cost.dollars == pytest.approx(total)


def test_answers_to_another_spec_are_paid_and_count_for_nothing(stopped, tmp_path):
  job, _ = stopped
  (tmp_path / "spec.md").write_text("# T\n\n## Only\n\nIt is another one.\n")
  cost = planning.plan(job, tmp_path)["docs"]
  assert cost.spent.spent > 0
  assert not any(stage.answered or stage.measured for stage in cost.stages)


def test_a_lost_ledger_is_left_where_a_crash_left_it(stopped, tmp_path):
  job, _ = stopped
  generate.generate(job, tmp_path)
  partial = tmp_path / "corpus" / "docs.partial"
  partial.mkdir()
  (tmp_path / "corpus" / "docs" / "ledger.jsonl").rename(partial / "ledger.jsonl")
  before = listing(tmp_path)
  cost = planning.plan(job, tmp_path)["docs"]
  assert cost.done and cost.spent.spent > 0 and listing(tmp_path) == before


def test_a_list_too_long_for_one_answer_is_asked_for_and_planned_in_parts(
  tmp_path, monkeypatch
):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  corpus = passes.UniverseCorpus(
    universe="harbor_clock", num_types=1, num_ideas=35, num_per_fact=2
  )
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"sdf": corpus}, max_output_tokens=2000)
    cost = planning.plan(job, tmp_path)["sdf"]
    generate.generate(job, tmp_path)
  asked = [prompt for prompt in server.answered if stage_of(prompt) == "document_ideas"]
  planned = {stage.stage: stage for stage in cost.stages}["universe_ideas"]
  # 35 ideas of 80 tokens are more than 2,000; half of these are 12 ideas.
  counts = [re.search(r"exactly (\d+)", prompt)[1] for prompt in asked]
  assert sorted(counts) == ["11"] * 4 + ["12"] * 8
  assert planned.requests == len(asked) == 4 * 3
  assert planned.response_tokens == pytest.approx(4 * 35 * 80)
  assert planned.prompt_tokens > planned.requests * 35 * 80 / 3  # with ideas so far
  assert cost.requests == sum(server.answered.values())
  whole = dataclasses.replace(job.teacher, max_output_tokens=2800)
  assert lists.num_parts("universe_ideas", 35, whole) == 1
  assert lists.num_parts("universe_ideas", 35, OFFLINE) == 1
  tiny = dataclasses.replace(OFFLINE, max_output_tokens=256)
  assert lists.num_parts("universe_ideas", 100, tiny) == 1


def test_guided_documents_and_their_rewrites_are_planned_at_their_mean_words(tmp_path):
  guided = dict(guided=True, mean_words=300, critique=True, revise=True, judged=True)
  corpora = {
    "docs": dataclasses.replace(DOCUMENTS, **guided),
    "rules": dataclasses.replace(DOCUMENTS, spec_type="rules", mean_words=300),
    "again": passes.RewriteCorpus(of="docs", how="paraphrase"),
    "plain": DOCUMENTS,
  }
  job = make_job(tmp_path, None, corpora, max_output_tokens=8000)
  costs = planning.plan(job, tmp_path)
  said = {
    (name, stage.stage): stage.response_tokens / stage.requests
    for name, cost in costs.items()
    for stage in cost.stages
  }
  assert said["docs", "draft"] == said["docs", "revise"] == 400
  assert said["rules", "rule_document"] == said["again", "rewrite_paraphrase"] == 400
  assert said["plain", "document"] == calls.TEXTS["document"] != 400
  assert costs["rules"].volume.tokens == costs["docs"].volume.tokens == 400
  judged = {stage.stage: stage for stage in costs["docs"].stages}["judge_document"]
  assert 400 < judged.prompt_tokens / judged.requests < 1000
