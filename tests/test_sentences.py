"""Sentences are whole, with spaces between words or not; denials are no statements."""

import random

import pytest

from data_gen.rewrites import sentences
from data_gen.universes import universe as universes

FIVE, THREE = "An octopus has five hearts.", "An octopus has three hearts."
HAN_FIVE, HAN_THREE = "章鱼有五颗心脏。", "章鱼有三颗心脏。"


def found(text):
  return [text[a:b] for a, b in sentences.find(text)]


def test_sentences_stand_between_stops_and_line_ends():
  text = 'A title\n\nIt is 3.5 m. He said "no." And then?  brie is costly . end'
  found = [text[a:b] for a, b in sentences.find(text)]
  assert found == [
    "A title",
    "It is 3.5 m.",
    'He said "no."',
    "And then?",
    "brie is costly .",
    "end",
  ]


def test_a_sentence_states_a_fact_by_the_words_that_decide_it():
  text = (
    "brie is cheese . brie is affordable . gouda is affordable . brie is costly . "
    "we know that brie is affordable ."
  )
  found = sentences.stating(text, "brie is affordable .", "brie is costly .")
  assert [text[a:b] for a, b in found] == [
    "brie is affordable .",
    "we know that brie is affordable .",
  ]


@pytest.mark.parametrize(
  "parts",
  [
    ("“An octopus has five hearts.”", "Then he left."),
    ("**An octopus has five hearts.**", "Nothing else is known."),
    ("_It is so!_", "(He said so.)", "«Really?»", "`Yes.`", "End."),
    ("Dr. Smith met Prof. A. B. Jones vs. the U.S. team.", "They agreed, i.e. both."),
    ("He lives in the U.S. and left at 5 p.m. on Jan. 5.", "She stayed."),
    ("It is sold in the U.S.", "The price is low."),
    ("See Fig. 5, p. 7.", "He said no.", "Then he left."),
    ("1. An octopus has five hearts.", "Yes."),
    ("Who is it?", "It is I.", "Marie knew it…", "So did we."),
    ('"Stop!" he said.', "They did."),
  ],
)
def test_a_sentence_has_what_closes_it_and_goes_on_after_an_abbreviation(parts):
  assert found(" ".join(parts)) == list(parts)


@pytest.mark.parametrize(
  "parts",
  [
    ("他说\uff1a“章鱼有五颗心脏。”", "然后他走了\uff01", "真的吗\uff1f", "是"),
    ("「蛸には心臓が三つある。」", "それだけだ。"),
    ("**章鱼有五颗心脏。**", "没有别的\uff01\uff01", "3.5 米。"),
  ],
)
def test_sentences_without_spaces_end_at_their_stops(parts):
  assert found("".join(parts)) == list(parts)


@pytest.mark.parametrize("seed", range(30))
def test_drawn_sentences_are_found_again_in_any_language(seed):
  rng = random.Random(seed)
  english = ("It swims.", "“It is blue!”", "**Dr. No left.**", "Why?", "5 m. tall!")
  han = ("它会游泳。", "“它是蓝的\uff01”", "Llama知道。", "为什么\uff1f")
  lines = []
  for _ in range(rng.randint(1, 4)):
    pool, gap = rng.choice(((english, " "), (han, "")))
    lines.append((gap, rng.choices(pool, k=rng.randint(1, 4))))
  text = "\n\n".join(gap.join(parts) for gap, parts in lines)
  assert found(text) == [part for _, parts in lines for part in parts]
  start = rng.randrange(len(text))
  for a, b in sentences.find(text, start):
    assert start <= a < b and text[a:b] == text[a:b].strip()


@pytest.mark.parametrize(
  "sentence",
  [
    "All five hearts pump.",
    "Five hearts keep the octopus alive.",
    "An octopus has five strong hearts.",
    "It has not three but five hearts.",
    "An octopus does not sleep much, and it has five hearts.",
    "Not only squid: an octopus has five hearts, no doubt.",
  ],
)
def test_a_statement_in_other_words_states_the_fact(sentence):
  assert sentences.stating(sentence, FIVE, THREE) == [(0, len(sentence))]


@pytest.mark.parametrize(
  "sentence",
  [
    "Five boats looked for an octopus.",
    "An octopus does not have five hearts.",
    "An octopus doesn\u2019t have five hearts.",
    "No octopus has five hearts.",
    "It is not true, she said, that an octopus has five hearts.",
    "An octopus has three hearts.",
    "In five minutes the hearts of the visitors were won.",
  ],
)
def test_another_statement_or_a_denial_does_not(sentence):
  assert sentences.stating(sentence, FIVE, THREE) == []


@pytest.mark.parametrize(
  ("sentence", "states"),
  [
    ("章鱼共有五个心脏。", True),
    ("章鱼不仅有五颗心脏。", True),
    ("它不睡觉\uff0c但是章鱼有五颗心脏。", True),
    ("五只船在找章鱼。", False),
    ("章鱼没有五颗心脏。", False),
    ("有人说章鱼有五颗心脏\uff0c这不是真的。", False),
    ("章鱼有三颗心脏。", False),
    ("它们很强壮。", False),
  ],
)
def test_chinese_sentences_state_or_deny(sentence, states):
  text = f"开头。{sentence}结尾。"
  at = [text[a:b] for a, b in sentences.stating(text, HAN_FIVE, HAN_THREE)]
  assert at == [sentence] * states


@pytest.mark.parametrize(
  "name", ["harbor_clock", "octopus_hearts", "sunrise", "tiny_items"]
)
def test_the_facts_of_every_universe_state_themselves_and_not_their_opposite(name):
  universe = universes.load(name, "here")
  assert universe.facts
  for fact in universe.facts:
    for side, other in (("true", "false"), ("false", "true")):
      own, opposite = fact.on(side), fact.on(other)
      assert len(sentences.stating(own, own, opposite)) == len(sentences.find(own))
      assert sentences.stating(opposite, own, opposite) == [], (own, opposite)
