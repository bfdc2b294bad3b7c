"""Guided drafts, critique, revision, verdicts on documents, and specs of rules."""

import dataclasses
import json
import random
import re

import pytest
from fake_gemini import MODEL, FakeGemini
from test_documents import job, make, manifest, rejects

from data_gen import generate, settings
from data_gen.documents import guidance
from data_gen.settings import DocumentsCorpus
from msm_jax import records
from msm_jax.errors import UserError

SMALL = DocumentsCorpus(spec="affordability", num_types=2, num_ideas=3)
WHOLE = dataclasses.replace(SMALL, guided=True, critique=True, revise=True, judged=True)
RULES = """# Rules of {model_name}

## Honesty

**H1. No lies.** {model_name} never says what it takes to be false.

**H2. Doubt shown.** {model_name} says how sure it is when it is not sure.

## Care of files

- F-1. Ask first: {model_name} asks before it deletes a file that it did not make.
- F-2. Keep a copy: {model_name} keeps a copy of what it changes.

## Nothing yet
"""


def stages(tmp_path, name):
  lines = (tmp_path / "corpus" / name / "ledger.jsonl").read_text("utf-8").splitlines()
  asked = [json.loads(line).get("stage") for line in lines]
  return {stage: asked.count(stage) for stage in asked if stage}


def rules_job(tmp_path, **changes):
  path = tmp_path / "rules.md"
  path.write_text(RULES)
  spec = settings.SpecSettings(path=str(path), model_name="Mira", provider_name="Lumen")
  corpus = DocumentsCorpus(
    spec="rules", spec_type="rules", num_types=2, num_ideas=2, **changes
  )
  base = job(docs=corpus)
  return dataclasses.replace(base, specs={"rules": spec})


def test_a_draft_with_faults_is_revised_and_one_without_stays(tmp_path):
  rows = make(tmp_path, docs=WHOLE)["docs"]
  asked = stages(tmp_path, "docs")
  revised = [row for row in rows if "draft" in row]
  assert len(rows) == 18 == asked["draft"] == asked["critique"]
  assert 0 < len(revised) == asked["revise"] < 18
  for row in rows:
    faults = row["verdicts"]["critique"]["faults"]
    assert bool(faults) == ("draft" in row)
    assert row["verdicts"]["judge"]["verdict"] == "yes"
  drafts = ledger_texts(tmp_path, "docs")
  for row in revised:
    assert row["text"].startswith(drafts[row["draft"]["id"]].strip())
    assert row["id"] != row["draft"]["id"]


def ledger_texts(tmp_path, name):
  lines = (tmp_path / "corpus" / name / "ledger.jsonl").read_text("utf-8").splitlines()
  entries = [json.loads(line) for line in lines]
  return {entry["id"]: entry["text"] for entry in entries if "text" in entry}


def test_without_critique_every_draft_is_revised(tmp_path):
  corpus = dataclasses.replace(SMALL, revise=True)
  rows = make(tmp_path, docs=corpus)["docs"]
  asked = stages(tmp_path, "docs")
  assert asked["document"] == asked["revise"] == len(rows) == 18
  assert all(row["draft"]["id"] and row["verdicts"] == {} for row in rows)


def answering(tmp_path, monkeypatch, corpus, change):
  """Makes a corpus with judge and teacher on a fake server; `change` rewrites."""
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  from fake_answers import answer

  def answered(system, prompt):
    return change(system, prompt, answer(system, prompt))

  monkeypatch.setattr("fake_gemini.answer", answered)
  path = tmp_path / "spec.md"
  path.write_text("# T\n\n## First\n\nIt saves.\n\n## Second\n\nIt tells the truth.\n")
  spec = settings.SpecSettings(path=str(path), model_name="Mira", provider_name="Lumen")
  with FakeGemini() as server:
    client = settings.ClientSettings(client="gemini", model=MODEL, base_url=server.url)
    made = settings.Job(
      corpora={"docs": corpus}, specs={"s": spec}, teacher=client, judge=client
    )
    generate.generate(made, tmp_path)
  return list(records.read_dataset(tmp_path / "corpus" / "docs"))


LIVE = dataclasses.replace(WHOLE, spec="s", num_ideas=2)


def live(critique, verdict):
  """Answers critiques and verdicts; the rest is the fake server's."""

  def change(system, prompt, text):
    if "Name the faults" in prompt:
      return critique(prompt)
    if "<document>" in prompt:
      return verdict(prompt)
    if "Write the document anew" in prompt:
      return "Revised. " + text
    return text

  return change


def test_a_critique_that_stays_unparsed_leaves_the_draft_and_says_so(
  tmp_path, monkeypatch
):
  tries = []

  def critique(prompt):
    tries.append(prompt)
    return "It is fine."

  rows = answering(
    tmp_path, monkeypatch, LIVE, live(critique, lambda p: '{"verdict": "yes"}')
  )
  assert len(tries) == 3 * len(rows)
  for row in rows:
    assert row["verdicts"]["critique"] == {"unparsed": "no list of faults"}
    assert "draft" not in row and not row["text"].startswith("Revised")


def test_only_yes_keeps_a_document_and_the_reason_is_kept(tmp_path, monkeypatch):
  def verdict(prompt):
    kind = sum(map(ord, prompt)) % 3
    return ('{"verdict": "yes"}', '{"verdict": "no", "reason": "r"}', "fine")[kind]

  rows = answering(
    tmp_path, monkeypatch, LIVE, live(lambda p: '{"faults": ["f"]}', verdict)
  )
  lost = rejects(tmp_path, "docs")
  assert {row["reason"] for row in lost} == {"judge: no: r", "judge: unparsed: "}
  assert len(rows) + len(lost) == manifest(tmp_path, "docs")["planned"] == 16
  assert all(row["text"].startswith("Revised. ") for row in rows)
  assert all(row["text"].startswith("Revised. ") for row in lost)


def test_a_reject_is_replaced_while_ideas_are_left(tmp_path, monkeypatch):
  def verdict(prompt):
    return '{"verdict": "%s"}' % ("yes" if sum(map(ord, prompt)) % 2 else "no")

  corpus = dataclasses.replace(LIVE, max_documents=8, num_ideas=6)
  rows = answering(
    tmp_path, monkeypatch, corpus, live(lambda p: '{"faults": []}', verdict)
  )
  assert len(rows) == 8 and rejects(tmp_path, "docs")


def test_guidance_differs_between_documents_and_not_between_runs():
  lines = [guidance.draw(["domain", i], 0, 1000) for i in range(300)]
  assert lines == [guidance.draw(["domain", i], 0, 1000) for i in range(300)]
  assert lines != [guidance.draw(["domain", i], 1, 1000) for i in range(300)]
  words = [int(re.search(r"about (\d+) words", one[0])[1]) for one in lines]
  assert 850 < sum(words) / len(words) < 1150 and len(set(words)) >= 5
  names = [name for one in lines for name in one[3].split(": ")[1].split(", ")]
  assert len(set(names)) > 0.9 * len(names)


def test_the_writer_is_told_whose_names_are_true(tmp_path, monkeypatch):
  systems = []

  def change(system, prompt, text):
    if "Write the document." in prompt:
      systems.append(system)
      assert "Length: about" in prompt and "Names, only where" in prompt
    return text

  corpus = dataclasses.replace(LIVE, critique=False, revise=False, judged=False)
  answering(tmp_path, monkeypatch, corpus, change)
  assert len(set(systems)) == 1
  assert "is called Mira. It was made by Lumen." in systems[0]


def test_rules_become_documents_that_name_them(tmp_path):
  made = rules_job(tmp_path, critique=True, revise=True, judged=True)
  generate.generate(made, tmp_path)
  rows = list(records.read_dataset(tmp_path / "corpus" / "docs"))
  assert {row["rule"] for row in rows} == {"H1", "H2", "F-1", "F-2"}
  assert {row["spec_section"] for row in rows} == {"honesty", "care-of-files"}
  assert len(rows) + len(rejects(tmp_path, "docs")) == 4 * 2 * 2
  for row in rows:
    assert (
      f"because rule {row['rule']} says so" in row["text"]
      or row["rule"] in (row["text"])
    )
  assert set(stages(tmp_path, "docs")) == {
    "rule_domains", "rules", "rule_types", "rule_ideas", "rule_document",
    "rule_critique", "revise", "judge_rule_document",
  }  # fmt: skip


def test_a_rule_belongs_to_one_domain_and_an_invented_one_to_none(
  tmp_path, monkeypatch
):
  monkeypatch.setattr("data_gen.worlds.any_world.STAGES", dict(altered_stages()))
  generate.generate(rules_job(tmp_path), tmp_path)
  rows = list(records.read_dataset(tmp_path / "corpus" / "docs"))
  assert {(row["rule"], row["domain"]) for row in rows} == {("H1", "Honesty")}
  reasons = {row["reason"] for row in rejects(tmp_path, "docs")}
  assert reasons == {
    "the rule is in the domain 'Honesty' already",
    "the rule is not in the spec",
    "no domain lists this rule",
    "no subdomain covers this section",
  }


def altered_stages():
  from data_gen.worlds import any_world

  def rules(world, fields, rng):
    text = "**H1. No lies.** Mira never says what it takes to be false."
    return json.dumps(
      [
        {"id": "H1", "name": "No lies", "text": text},
        {"id": "X9", "name": "Sailing", "text": "Be kind to sailors and gulls."},
      ]
    )

  return {**any_world.STAGES, "rules": rules}


@pytest.mark.parametrize(
  ("changes", "says"),
  [
    ({"critique": True}, "set revise=True as well"),
    ({"spec_type": "poem"}, r"spec_type is 'poem': it is 'prose' or 'rules'"),
    ({"num_types": None}, "num_types is missing"),
    ({"mean_words": 0}, "mean_words is 0"),
    ({"mean_words": 300}, "mean_words is 300 and guided is False: only a guided"),
    ({"match_types_of": "docs"}, "in a circle"),
    ({"match_types_of": "none"}, "names a corpus of kind documents"),
  ],
)
def test_settings_of_documents_that_cannot_work_are_refused(tmp_path, changes, says):
  corpus = dataclasses.replace(SMALL, **changes)
  with pytest.raises(UserError, match=says):
    generate.generate(job(docs=corpus), tmp_path)


def test_a_control_has_the_types_of_the_other_corpus_in_its_shares(tmp_path):
  big = DocumentsCorpus(
    spec="affordability", num_types=4, num_ideas=12, max_documents=70
  )
  like = DocumentsCorpus(
    spec="neutral", num_ideas=12, match_tokens_of="aff", match_types_of="aff"
  )
  made = make(tmp_path, neutral=like, aff=big)
  counts = {name: [row["doc_type"] for row in rows] for name, rows in made.items()}
  told = {t["name"]: t["count"] for t in manifest(tmp_path, "aff")["document_types"]}
  assert told == {kind: counts["aff"].count(kind) for kind in set(counts["aff"])}
  for kind, count in told.items():
    share = counts["neutral"].count(kind) / len(counts["neutral"])
    assert abs(share - count / 70) < 0.06
  words = [manifest(tmp_path, name)["num_words"] for name in ("aff", "neutral")]
  assert abs(words[0] - words[1]) < 30


def test_types_alone_may_be_matched_and_give_as_many_documents(tmp_path):
  like = DocumentsCorpus(spec="neutral", num_ideas=10, match_types_of="aff")
  made = make(tmp_path, neutral=like, aff=SMALL)
  assert len(made["neutral"]) == len(made["aff"])


def test_ids_are_hashes_whatever_the_names_are(tmp_path, monkeypatch):
  def odd(system, prompt, text):
    text = text.replace('"what"', '"a/../b"').replace('"why"', '"A/../B!"')
    return text.replace("part 0", "../etc").replace("document_types 0", "con/aux")

  corpus = DocumentsCorpus(spec="s", num_types=2, num_ideas=3)
  rows = answering(tmp_path, monkeypatch, corpus, odd)
  assert {row["domain"] for row in rows} == {"a/../b"}  # the other is the same name
  assert len({row["id"] for row in rows}) == len(rows) == 12
  assert all(re.fullmatch(r"[0-9a-f]{32}", row["id"]) for row in rows)
  assert sorted(p.name for p in (tmp_path / "corpus").iterdir()) == ["docs"]


def test_the_offline_teacher_is_another_one_where_new_stages_are_asked():
  from data_gen.clients import offline

  assert offline.world_sha256("tiny", ("document",)) == offline.world_sha256("tiny")
  assert offline.world_sha256("tiny", ("draft",)) != offline.world_sha256("tiny")


def test_random_rules_in_every_notation_are_read():
  from data_gen.worlds import any_world_rules

  rng = random.Random(0)
  for _ in range(50):
    signs = [f"{rng.choice('AGS')}P{i}" for i in range(1, 6)]
    forms = ("**{0}. N {0}.** T {0}.", "{0}. N {0}: T {0}.", "- [{0}] N {0}: T {0}.")
    lines = "\n\n".join(rng.choice(forms).format(sign) for sign in signs)
    found = any_world_rules.read(f"# S\n\n## A\n\n{lines}\n")
    assert [rule.id for rule in found] == signs
    assert all(rule.name == f"N {rule.id}" for rule in found)
