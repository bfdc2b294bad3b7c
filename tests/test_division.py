"""Domains are divided into what the spec has: its parts, its rules, all of them."""

import json
import random
import re

import pytest
from fake_answers import answer
from fake_gemini import MODEL, FakeGemini
from test_outline import build

from data_gen import generate, settings, spec
from data_gen.audit.settings import AuditThresholds
from data_gen.documents import rules
from data_gen.settings import DocumentsCorpus
from msm_jax import records
from msm_jax.errors import UserError

SIZES = {"num_types": 1, "num_ideas": 1}
LONG = "# T\n\n## First\n\nOne saves.\n\nTwo tells.\n\nThree waits.\n\n"
LONG += "## Second\n\nIt ends.\n"


def parts(plan):
  return {(i.subdomain.domain, i.subdomain.name): i.subdomain for i in plan.ideas}


def reasons(plan):
  return sorted({(reject["stage"], reject["reason"]) for reject in plan.rejects})


def divide(answers):
  """Answers `subdomains` by domain: (name, quote) pairs; the rest is the fake's."""

  def change(stage, prompt, text):
    if stage != "subdomains":
      return text
    domain = re.search(r'domain "(.+?)"', prompt)[1]
    keys = ("name", "spec_section")
    return json.dumps([dict(zip(keys, one, strict=True)) for one in answers[domain]])

  return change


def test_a_part_is_the_specs_text_to_where_the_next_one_begins(tmp_path, monkeypatch):
  change = divide(
    {
      "what": [("a", "## First One saves."), ("b", "## First\nThree waits")],
      "why": [("c", "Second"), ("d", "First")],
    }
  )
  plan, _ = build(tmp_path, monkeypatch, change, spec_text=LONG, **SIZES)
  assert {key: part.section_text for key, part in parts(plan).items()} == {
    ("what", "a"): "One saves.\n\nTwo tells.",
    ("what", "b"): "Three waits.",
    ("why", "c"): "It ends.",
    ("why", "d"): "One saves.\n\nTwo tells.\n\nThree waits.",
  }
  assert not plan.rejects


def test_a_teacher_is_not_asked_to_copy_sections(tmp_path, monkeypatch):
  text = LONG.replace("It ends.", "Word after word. " * 400)
  plan, server = build(tmp_path, monkeypatch, spec_text=text, **SIZES)
  assert max(len(part.section_text) for part in parts(plan).values()) > 6000
  prompts = [body["contents"][0]["parts"][0]["text"] for body in server.bodies]
  [asked] = {prompt for prompt in prompts if 'Divide the domain "what"' in prompt}
  assert "first twenty words" in asked and "do not copy all of it" in asked


def test_a_missed_section_is_asked_for_once_more_as_a_domain(tmp_path, monkeypatch):
  first = [("a", "First")]
  change = divide(
    {"what": first, "why": first, "Second": [("z", "## Second It ends.")]}
  )
  plan, server = build(tmp_path, monkeypatch, change, spec_text=LONG, **SIZES)
  assert ("Second", "z") in parts(plan) and not plan.rejects
  asked = [str(body).count("Divide the domain") for body in server.bodies]
  assert sum(asked) == 3


def test_what_is_missed_again_is_reported_and_not_asked_for_ever(tmp_path, monkeypatch):
  first = [("a", "First")]
  change = divide({"what": first, "why": first, "Second": first})
  plan, server = build(tmp_path, monkeypatch, change, spec_text=LONG, **SIZES)
  assert set(parts(plan)) == {("what", "a"), ("why", "a")}
  assert reasons(plan) == [("subdomains", "no subdomain covers this section")]
  assert sum(str(body).count("Divide the domain") for body in server.bodies) == 3


def make(tmp_path, monkeypatch, change, least, **sizes):
  """Makes a corpus with a threshold; returns (error, how many documents were asked)."""
  tmp_path.mkdir(exist_ok=True)
  monkeypatch.setenv("GOOGLE_API_KEY", "not a real key")
  monkeypatch.setattr(
    "fake_gemini.answer",
    lambda system, prompt: change(
      "subdomains" if "Divide the domain" in prompt else "",
      prompt,
      answer(system, prompt),
    ),
  )
  path = tmp_path / "spec.md"
  path.write_text(LONG)
  named = settings.SpecSettings(
    path=str(path), model_name="Mira", provider_name="Lumen"
  )
  with FakeGemini() as server:
    client = settings.ClientSettings(client="gemini", model=MODEL, base_url=server.url)
    job = settings.Job(
      corpora={"docs": DocumentsCorpus(spec="s", **sizes)},
      specs={"s": named},
      teacher=client,
      judge=client,
      audit=AuditThresholds(min_section_share=least),
    )
    error = None
    try:
      generate.generate(job, tmp_path)
    except UserError as caught:
      error = str(caught)
    return error, sum("Write the document" in str(body) for body in server.bodies)


def test_a_threshold_that_cannot_be_kept_is_refused_before_documents(
  tmp_path, monkeypatch
):
  first = [("a", "First")]
  change = divide({"what": first, "why": first, "Second": first})
  error, asked = make(tmp_path, monkeypatch, change, 0.05, num_types=2, num_ideas=3)
  assert asked == 0 and "min_section_share=0.05 cannot be kept" in error
  assert "second (0 ideas)" in error and "no subdomain covers this section (1)" in error


def test_too_few_ideas_for_a_share_are_refused_as_well(tmp_path, monkeypatch):
  many = [("a", "One saves"), ("b", "Two tells"), ("c", "Three waits")]
  change = divide({"what": many, "why": [*many, ("z", "Second")]})
  sizes = dict(num_types=2, num_ideas=3)
  error, asked = make(tmp_path / "w", monkeypatch, change, 0.2, **sizes)
  assert asked == 0 and "second (6 ideas)" in error  # of 42
  error, asked = make(
    tmp_path / "v", monkeypatch, change, 0.2, **sizes, max_documents=20
  )
  assert error is None and asked == 20


def test_a_share_for_more_sections_than_there_can_be_is_refused_first(
  tmp_path, monkeypatch
):
  error, _ = make(tmp_path, monkeypatch, divide({}), 0.6, **SIZES)
  assert "has 2 sections; set at most 0.5" in error


RULES = """# Rules

## Data

GP1. The model answers in the language of the user and is polite to all of them.

GP2. The model does not share what a user has told it with others.

## Power

SP1. The model never takes control of a system that it has not been given.
"""


def test_a_rule_is_taken_by_its_id_and_words_in_the_specs_text(tmp_path, monkeypatch):
  gp1, gp2, sp1 = (line for line in RULES.splitlines() if line[1:2] == "P")
  listed = {
    "what": [
      ("GP7", "GP7. The model shares what a user has told it with others."),
      ("GP2", "The model shares what a user has told it with the systems of others."),
      ("GP1", gp2),
      ("[GP2]", gp2.replace("told it", "told")),
    ],
    "why": [("gp-1", gp1.partition(" ")[2]), ("GP2", gp2)],
    "Power": [("SP1", sp1), ("GP1", gp1)],
  }
  plan, server = list_rules(tmp_path, monkeypatch, listed)
  found = {
    part.rule["id"]: (part.domain, part.rule["text"]) for part in rule_parts(plan)
  }
  assert found == {"GP2": ("what", gp2), "GP1": ("why", gp1), "SP1": ("Power", sp1)}
  lost = [(r["rule"], r["reason"]) for r in plan.rejects]
  assert lost == [
    ("GP7", "the rule is not in the spec"),
    ("GP2", "the rule is not in the spec"),
    ("GP1", "the rule is not in the spec"),
    ("GP2", "the rule is in the domain 'what' already"),
  ]
  [again] = [str(body) for body in server.bodies if '"Power' in str(body)][:1]
  assert "Of its rules these: SP1." in again


def test_a_rule_that_nobody_lists_is_reported(tmp_path, monkeypatch):
  gp1 = [("GP1", "The model answers in the language of the user")]
  plan, _ = list_rules(
    tmp_path, monkeypatch, {"what": gp1, "why": gp1, "Data": gp1, "Power": gp1}
  )
  lost = {(r.get("rule"), r["reason"]) for r in plan.rejects if r["reason"][:2] == "no"}
  assert lost == {
    ("GP2", "no domain lists this rule"),
    ("SP1", "no domain lists this rule"),
    (None, "no subdomain covers this section"),
  }


def list_rules(tmp_path, monkeypatch, listed):
  def change(stage, prompt, text):
    if "List the rules" in prompt:
      domain = re.search(r'domain "(.+?)"', prompt)[1]
      return json.dumps([{"id": i, "text": t} for i, t in listed[domain]])
    if "Divide the rules" in prompt:
      return '[{"name": "what"}, {"name": "why"}]'
    if "further" in prompt:
      return '[{"name": "n", "idea": "i"}]'
    return text

  return build(tmp_path, monkeypatch, change, spec_text=RULES, by_rules=True, **SIZES)


def rule_parts(plan):
  return [idea.subdomain for idea in plan.ideas]


@pytest.mark.parametrize(
  ("text", "ids"),
  [
    ("GP1. One.\nGP2. Two 3.5 times.\n\n1. step\n", ["GP1", "GP2"]),
    ("1. One.\n2. Two.\n   1. deeper\n", ["1", "2"]),
    ("- [A1] Foo: bar.\n- **A-2: Baz.** Qux.\n", ["A1", "A-2"]),
    ("## SP1 Never lie\n\nBody.\n\n## SP2\n\nOther.\n", ["SP1", "SP2"]),
    ("1.1 Foo is\n\n1.2 Bar is\n\n2026 was good.\n", ["1.1", "1.2"]),
    ("规则1\uff1a不说谎。\n\n规则2\uff1a不泄露用户的话。\n", ["1", "2"]),
    ("第一条 不说谎。\n\n第二条 友好。\n", ["第一条", "第二条"]),
    ("No rules, 3 ideas. A1 is a road.\n", []),
  ],
)
def test_the_rules_of_a_spec_are_found_by_their_numbers(tmp_path, text, ids):
  path = tmp_path / "s.md"
  path.write_text(f"# R\n\n{text}")
  assert [rule.id for rule in rules.read(spec.load(path, "Mira", "Lumen"))] == ids


@pytest.mark.parametrize("seed", range(20))
def test_drawn_rules_are_read_whole_in_every_notation(tmp_path, seed):
  rng = random.Random(seed)
  words = ("ask", "never", "files", "用户", "说谎", "keep", "it")
  forms = ("{0}. {1}", "**{0}. {1}**", "- [{0}] {1}", "{0}: {1}", "### {0}) {1}")
  drawn = [
    (f"{rng.choice('AGS')}P{i}", " ".join(rng.choices(words, k=8))) for i in range(1, 6)
  ]
  lines = [rng.choice(forms).format(*rule) for rule in drawn]
  path = tmp_path / "s.md"
  path.write_text("# R\n\n## A\n\n" + "\n\n".join(lines) + "\n")
  found = rules.read(spec.load(path, "Mira", "Lumen"))
  assert [(rule.id, rule.text) for rule in found] == [
    (sign, line) for (sign, _), line in zip(drawn, lines, strict=True)
  ]


def test_the_audit_counts_rules_and_subdomains(tmp_path):
  from test_drafting import rules_job

  generate.generate(rules_job(tmp_path), tmp_path)
  audit = records.read_json(tmp_path / "corpus" / "docs" / "audit.json")
  counted = {row["id"]: row["records"] for row in audit["coverage"]["rule"]}
  assert counted == {"H1": 4, "H2": 4, "F-1": 4, "F-2": 4}
  assert len(audit["coverage"]["subdomain"]) == 4
  page = (tmp_path / "corpus" / "docs" / "audit.html").read_text("utf-8")
  assert "Rules" in page and "Subdomains" in page
