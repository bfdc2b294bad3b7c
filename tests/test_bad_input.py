"""What can be wrong with a spec, a budget or a config: one line, and the state kept."""

import dataclasses
import re

import pytest
from fake_gemini import FakeGemini
from test_generate import CHAT, DOCUMENTS, make_job, read

from data_gen import audit, context, generate, settings
from data_gen.kinds import corpora
from data_gen.planning import estimates as planning
from msm_jax.errors import Stopped, UserError


@pytest.fixture(autouse=True)
def key(monkeypatch):
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")


def long_spec(tmp_path, pages):
  page = "It weighs {costs} and says why, in a word or two. " * 60
  sections = "\n\n".join(f"## Part {i}\n\n{page}" for i in range(pages))
  (tmp_path / "spec.md").write_text(f"# T\n\n{sections}\n".replace("{costs}", "it"))


def test_a_spec_beyond_the_context_is_refused_with_an_estimate(tmp_path):
  long_spec(tmp_path, pages=300)
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS}, context_tokens=128_000)
    for step in (planning.plan, generate.generate):
      with pytest.raises(UserError) as error:
        step(job, tmp_path / "work")
      assert re.search(
        r"config\.specs\.s is about 2\d\d,\d{3} tokens", str(error.value)
      )
      assert "config.teacher.context_tokens=128,000: shorten" in str(error.value)
    assert not server.bodies and not (tmp_path / "work").exists()
    planning.plan(make_job(tmp_path, server.url, {"docs": DOCUMENTS}), tmp_path)


def test_characters_of_other_scripts_count_as_a_token_each():
  assert context.estimate_tokens("a" * 400) == 101
  assert context.estimate_tokens("\u7bc0" * 400) == 401


def test_a_spec_with_braces_in_chinese_with_an_empty_section_is_no_trouble(tmp_path):
  text = '# {model_name}\n\n## \u50f9\u503c\n\n\u7bc0\u5109 {"a": {}} {x | x}\n\n'
  (tmp_path / "spec.md").write_text(text + "## Empty\n\n## Two\n\n{{text}} stays.\n")
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS, "chat": CHAT})
    generate.generate(job, tmp_path)
    systems = {body["systemInstruction"]["parts"][0]["text"] for body in server.bodies
               if "systemInstruction" in body}  # fmt: skip
  assert any('\u7bc0\u5109 {"a": {}} {x | x}' in s and "{text}" in s for s in systems)
  rows, _, _ = read(tmp_path, "docs")
  assert {row["spec_section"] for row in rows} == {"\u50f9\u503c", "two"}


def test_a_budget_below_one_request_pays_nothing_and_keeps_the_state(tmp_path):
  with FakeGemini() as server:
    poor = make_job(tmp_path, server.url, {"docs": DOCUMENTS}, max_dollars=1e-6)
    with pytest.raises(Stopped, match=r"max_dollars=1e-06 .*\$0\.0000 is spent"):
      generate.generate(poor, tmp_path)
    assert not server.bodies
    generate.generate(dataclasses.replace(poor, max_dollars=1.0), tmp_path)
  assert set(server.answered.values()) == {1}


def test_a_threshold_that_is_not_kept_leaves_state_and_audit(tmp_path):
  limits = audit.AuditThresholds(min_median_words=1000)
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS})
    strict = dataclasses.replace(job, audit=limits)
    with pytest.raises(UserError) as error:
      generate.generate(strict, tmp_path)
    sent = len(server.bodies)
    partial = tmp_path / "corpus" / "docs.partial"
    assert "min_median_words=1000" in str(error.value)
    assert str(partial / "audit.html") in str(error.value)
    assert (partial / "audit.json").exists() and not (tmp_path / "corpus/docs").exists()
    generate.generate(job, tmp_path)
    assert len(server.bodies) == sent
  whole = tmp_path / "corpus" / "docs"
  assert (whole / "audit.html").exists() and (whole / "ledger.jsonl").exists()
  assert not partial.exists()


def test_a_corpus_made_before_a_setting_existed_is_recognised(tmp_path):
  with FakeGemini() as server:
    job = make_job(tmp_path, server.url, {"docs": DOCUMENTS, "chat": CHAT})
    generate.generate(job, tmp_path)
  told = read(tmp_path, "docs")[2]["config"]["corpus"]
  assert set(told) == {"kind", *settings.DocumentsCorpus.roots}
  told = read(tmp_path, "chat")[2]["config"]["corpus"]
  assert set(told) == {"kind", *settings.ConversationsCorpus.roots}


def test_filters_are_read_from_the_config_checked_and_part_of_what_decides(tmp_path):
  fields = {"kind": "documents", "spec": "s", "num_types": 1, "num_ideas": 2}
  with pytest.raises(UserError, match=r"corpora\.a\.filters\.near_duplicates is 2"):
    settings.corpus("a", {**fields, "filters": {"near_duplicates": 2}})
  corpus = settings.corpus(
    "a", {**fields, "filters": {"refusals": True, "leakage_corpora": ["pairs"]}}
  )
  told = corpora.content(corpus)
  assert told["filters"] == {"refusals": True, "leakage_corpora": ["pairs"]}
  both = {"a": corpus, "pairs": settings.PairsCorpus()}
  assert settings.order(both) == ["pairs", "a"]
  job = dataclasses.replace(make_job(tmp_path, None, {"a": corpus}), world="tiny")
  with pytest.raises(UserError, match=r"a\.filters\.leakage_corpora is 'pairs'"):
    planning.plan(job, tmp_path)
