"""Templates take exactly their fields, and put the spec where it can be cached."""

import itertools
import pathlib

import pytest

from data_gen import prompts
from data_gen.kinds import corpora, passes

IN_TWO = ("answer", "judge", "preference_questions")  # with and without reasons
PASSES = {"critique": True, "revise": True, "judged": True}
DOCUMENTS = [
  corpora.DocumentsCorpus(spec="s", num_types=1, num_ideas=1, **how, **PASSES)
  for how in ({}, {"guided": True}, {"spec_type": "rules"})
]
CONVERSATIONS = [
  corpora.ConversationsCorpus(
    spec="s",
    num_conversations=1,
    questions_per_domain=1,
    style=style,
    cot=cot,
    topics=t,
  )
  for style, cot in itertools.product(("value", "rule"), (False, True))
  for t in ("domains", "preferences")
]
CHAINS = {stage for corpus in DOCUMENTS + CONVERSATIONS for stage in corpus.stages}
STAGES = sorted(CHAINS - {*IN_TWO} | {*passes.STAGES})


def fields_for(stage, reasons=None):
  fields = {name: f"<{name}>" for name in prompts.fields_of(stage, reasons)}
  return fields if reasons is None else {**fields, "reasons": reasons}


def test_every_template_renders_with_exactly_its_fields():
  cases = [(stage, None) for stage in STAGES]
  cases += [(stage, r) for stage in IN_TWO for r in (True, False)]
  for stage, reasons in cases:
    fields = fields_for(stage, reasons)
    system, prompt = prompts.render(stage, fields)
    for name in prompts.fields_of(stage, reasons):
      assert f"<{name}>" in system + prompt
  used = {prompts._template_name(*case) for case in cases}
  directory = pathlib.Path(prompts.__file__).parent / "prompts"
  assert used == {path.stem for path in directory.glob("*.txt")}


def test_a_missing_field_and_an_unused_one_are_refused():
  fields = fields_for("subdomains")
  with pytest.raises(ValueError, match=r"no place for the fields \['mood'\]"):
    prompts.render("subdomains", {**fields, "mood": "x"})
  del fields["domain"]
  with pytest.raises(ValueError, match=r"missing fields \['domain'\]"):
    prompts.render("subdomains", fields)


def test_braces_and_field_names_in_values_are_left_alone():
  fields = fields_for("subdomains") | {"spec_text": 'say {domain} and {"a": {}}'}
  system, prompt = prompts.render("subdomains", fields)
  assert 'say {domain} and {"a": {}}' in system
  assert "<domain>" in prompt


def test_the_spec_is_in_the_part_that_stays_the_same_between_requests():
  for stage in ("domains", "subdomains", "document_ideas", "document", "questions"):
    one = fields_for(stage)
    other = {key: value + "!" for key, value in one.items()}
    other["spec_text"] = one["spec_text"]
    assert prompts.render(stage, one)[0] == prompts.render(stage, other)[0]


def test_lists_become_bullets_and_an_empty_one_says_so():
  fields = fields_for("document_types") | {
    "assertions": [{"name": "thrift", "assertion": "It saves."}],
    "existing": [],
  }
  _, prompt = prompts.render("document_types", fields)
  assert "- name: thrift; assertion: It saves." in prompt
  assert "(none)" in prompt


def test_the_hash_of_the_prompts_tells_the_chains_apart():
  hashes = [
    prompts.sha256(prompts.DOCUMENT_STAGES),
    prompts.sha256(prompts.CONVERSATION_STAGES),
  ]
  assert len(set(hashes)) == 2
  assert hashes[0] == prompts.sha256(prompts.DOCUMENT_STAGES)
