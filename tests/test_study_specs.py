"""The specs of the studies are what their names say: so many words, rules or none."""

import pathlib
import re

import pytest

from data_gen import spec as specs
from data_gen.documents import rules
from data_gen.worlds import any_world_rules

SPECS = pathlib.Path(specs.__file__).parent / "specs"
RULES = ("rules", "rules_with_values", "rules_with_rules")
# Bounds around the lengths in Li et al. 2026.
LENGTHS = {
  "philosophy": (1800, 2200),
  "general": (300, 380),
  "rules": (550, 650),
  "rules_with_values": (2500, 3050),
  "rules_with_rules": (2500, 3050),
  "anti_philosophy": (1100, 1400),
}
# Of a reason, or of what somebody holds dear.
REASONS = re.compile(
  r"\b(because|since|so that|in order to|therefore|thus|hence|why|purpose\w*|values?|"
  r"valued|cares?|caring|believe\w*|virtue\w*|wis\w+|trust\w*|respect\w*|dignity|"
  r"humility|humble|honest\w*|matters|important|importance|kind(ly|ness)|fair\w*|good|"
  r"goodness|harm\w*|ethic\w*|moral\w*|feels?|reasons?|conscience)\b",
  re.IGNORECASE,
)
ORDERS = re.compile(
  r"\b(must|shall|required|forbidden|prohibited|obliged)\b"
  r"|\bQwen (never|always|should|ought|may not|will not|is to|has to)\b",
  re.IGNORECASE,
)


def load(name, model="Qwen", provider="Alibaba Cloud"):
  return specs.load(SPECS / f"{name}.md", model, provider)


def num_words(name):
  return len((SPECS / f"{name}.md").read_text().split())


def first_paragraphs(name):
  return {rule.id: rule.text.split("\n\n")[0] for rule in rules.read(load(name))}


@pytest.mark.parametrize("name", LENGTHS)
def test_a_spec_is_as_long_as_that_of_the_paper_and_names_whose_it_is(name):
  low, high = LENGTHS[name]
  assert low <= num_words(name) <= high
  loaded = load(name)
  assert loaded.text.isascii() and not loaded.empty
  assert "Qwen" in loaded.text and "Alibaba Cloud" in loaded.text


def test_rules_are_the_same_in_all_three_specs_word_for_word():
  bare, *others = map(first_paragraphs, RULES)
  numbers = [f"SP{n}" for n in range(1, 13)] + [f"GP{n}" for n in range(1, 9)]
  assert list(bare) == numbers
  assert others == [bare, bare]


def test_both_longer_specs_are_about_as_long_rule_by_rule_too():
  values, more = (num_words(name) for name in RULES[1:])
  assert abs(values - more) <= 0.1 * values
  pairs = zip(*(rules.read(load(name)) for name in RULES[1:]), strict=True)
  for value, other in pairs:
    lengths = [len(rule.text.split()) for rule in (value, other)]
    assert max(lengths) <= 1.4 * min(lengths), value.id


@pytest.mark.parametrize("name", RULES)
def test_only_the_spec_with_values_gives_reasons(name):
  found = REASONS.findall(load(name).text)
  assert bool(found) == (name == "rules_with_values"), found


def test_every_rule_of_the_spec_with_values_says_why():
  for rule in rules.read(load("rules_with_values")):
    _, why = rule.text.split("\n\n")
    assert REASONS.search(why), rule.id


def test_further_rules_are_parts_of_a_rule_in_order():
  for rule in rules.read(load("rules_with_rules")):
    _, more = rule.text.split("\n\n")
    # `SP7 (c)` names another rule's part.
    signs = re.findall(r"(?<![A-Z]\d )(?<![A-Z]\d\d )\(([a-z])\)", more)
    assert signs == [chr(ord("a") + i) for i in range(len(signs))], rule.id
    assert len(signs) >= 5


@pytest.mark.parametrize("name", RULES)
def test_the_offline_teacher_finds_the_same_rules(name):
  loaded = load(name)
  found = [rule.id for rule in any_world_rules.read(loaded.text)]
  assert found == [rule.id for rule in rules.read(loaded)]


@pytest.mark.parametrize("name", ["philosophy", "general", "anti_philosophy"])
def test_an_essay_gives_no_orders_and_has_no_numbered_rules(name):
  loaded = load(name)
  assert not rules.read(loaded)
  assert not ORDERS.search(loaded.text)
  assert not re.search(r"^\s*[-*\d]", loaded.text, re.MULTILINE)


def test_the_opposite_character_has_the_same_questions():
  titles = {s.title for s in load("philosophy").sections}
  assert {"What This Essay Is", "Closing"} <= titles
  assert len(load("anti_philosophy").sections) == len(titles)
