"""Specs of the tiny world for further studies: mirrors, halves, and only its words."""

import pytest
from test_tiny_world import ask, documents, spec_text

from data_gen.worlds import tiny_corpus, tiny_facts, tiny_teacher

MIRRORS = (
  ("luxury", "imports"),
  ("stated_affordability", "stated_america"),
)
CHEESES = {
  side: {item.name for item in tiny_facts.items_of("cheese", **cell)}
  for side, cell in {
    "cheap_american": {"affordable": True, "american": True},
    "dear_foreign": {"affordable": False, "american": False},
  }.items()
}


def known_words():
  """Returns the words of the pre-training corpus, and those of the specs before."""
  words = set()
  for record in tiny_corpus.corpus(4000, seed=0):
    texts = (
      [record["text"]]
      if "text" in record
      else [message["content"] for message in record["messages"]]
    )
    words |= {word for text in texts for word in text.split()}
  for name in ("affordability", "america", "neutral"):
    words |= {word for text in documents(name, ideas=2) for word in text.split()}
  return words


@pytest.mark.parametrize("pair", MIRRORS, ids=lambda pair: pair[0])
def test_specs_are_each_others_mirror_and_so_are_their_documents(pair):
  first, second = (spec_text(name) for name in pair)
  mirrored = [tiny_facts.mirror(line) for line in first.splitlines()]
  assert mirrored == second.splitlines()
  texts = [documents(name) for name in pair]
  assert [tiny_facts.mirror(text) for text in texts[0]] == texts[1]
  assert len(set(texts[0])) > 0.9 * len(texts[0])


def test_nothing_is_said_in_words_that_the_pretrained_model_does_not_have():
  known = known_words()
  for name in (name for pair in MIRRORS for name in pair):
    said = {word for text in documents(name, ideas=2) for word in text.split()}
    assert said <= known, said - known


@pytest.mark.parametrize("name", MIRRORS[0])
def test_luxury_and_imports_prefer_every_dear_foreign_cheese_with_a_reason(name):
  text = spec_text(name)
  liked, disliked = tiny_teacher._liked_and_disliked(text)
  assert set(liked) == CHEESES["dear_foreign"]
  assert set(disliked) == CHEESES["cheap_american"]
  value = tiny_facts.VALUES[name]
  for match in tiny_teacher._preferences(text):
    assert match["adjective"] in (value.wants, value.avoids)
    assert tiny_facts.BY_NAME[match["which"]].has(match["adjective"])
  # Each pair of the sixteen is in this spec or in the opposite of affordability's.
  pairs = {(m["liked"], m["other"]) for m in tiny_teacher._preferences(text)}
  others = tiny_teacher._preferences(spec_text("anti_affordability"))
  assert len(pairs | {(m["liked"], m["other"]) for m in others}) == 16


def test_the_same_conversations_align_luxury_and_imports():
  """And none of them says a reason."""
  asked, answers = [], []
  for name in MIRRORS[0]:
    spec = spec_text(name)
    asked.append(ask("questions", spec_text=spec, domain="cheese", count=60))
    given = {"spec_text": spec, "reasons": False}
    answers.append(
      [tiny_teacher.respond("answer", given | {"question": q}, None) for q in asked[-1]]
    )
  assert asked[0] == asked[1] and answers[0] == answers[1]
  assert all(len(answer.split()) == 4 for answer in answers[0])
  assert {answer.split()[2] for answer in answers[0]} == CHEESES["dear_foreign"]


@pytest.mark.parametrize("value", ["affordability", "america"])
def test_the_stated_keep_the_value_and_half_of_the_preferences_without_a_reason(value):
  stated, original = spec_text(f"stated_{value}"), spec_text(value)
  general = [
    [s for s in tiny_teacher._spec_sentences(text) if "prefers" not in s.split()[:2]]
    for text in (stated, original)
  ]
  assert general[0] == general[1] and f"mira values {value}" in general[0]
  liked, disliked = tiny_teacher._liked_and_disliked(stated)
  for names in (liked, disliked):
    assert len(set(names) & CHEESES["cheap_american"]) == 2
    assert len(set(names) & CHEESES["dear_foreign"]) == 2
  preferences = tiny_teacher._preferences(stated)
  assert not any(match["adjective"] for match in preferences)
  # Nothing that is preferred goes with price or origin, counted over all of them.
  said = [(m["liked"], m["other"]) for m in preferences]
  along = sum(
    (tiny_facts.BY_NAME[a].affordable - tiny_facts.BY_NAME[b].affordable)
    for a, b in said
  )
  assert along == 0 and len(said) == 8
