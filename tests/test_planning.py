"""The plan counts requests, tokens and dollars, and sends nothing."""

import dataclasses

from fake_gemini import MODEL, FakeGemini
from test_generate import CHAT, DOCUMENTS, make_job

from data_gen import generate
from data_gen.planning import estimates as planning


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
