"""Stretches of text move with the text; what was put in is where it says."""

import random

import pytest

from data_gen.rewrites import spans
from data_gen.rewrites.spans import Edit


def insert(at, text, weight=1.0):
  return Edit(start=at, end=at, text=text, weight=weight)


def without(edited):
  """Returns the text without what was put in."""
  text = edited.text
  for start, end, _ in reversed(edited.spans):
    text = text[:start] + text[end:]
  return text


def test_a_notice_stands_where_its_span_says():
  #          0123456789012345678
  text = "The tower is white."
  edited = spans.apply(text, [insert(0, "Note: "), insert(19, " No.", weight=0.0)])
  #                      000000000011111111112222222222
  #                      012345678901234567890123456789
  assert edited.text == "Note: The tower is white. No."
  assert edited.spans == ((0, 6, "notice"), (25, 29, "notice"))
  assert edited.loss_spans == ((25, 29, 0.0),)


def test_spans_of_the_source_move_and_are_divided_by_what_is_put_in():
  #          0123456789012
  text = "<TAG> abc def"
  source = dict(spans=[[0, 6, "doc_tag"]], loss_spans=[[0, 6, 0.0], [8, 13, 0.5]])
  edited = spans.apply(text, [insert(6, "No! "), insert(10, "[x]")], **source)
  assert edited.text == "<TAG> No! abc [x]def"
  assert edited.spans == ((0, 6, "doc_tag"), (6, 10, "notice"), (14, 17, "notice"))
  assert edited.loss_spans == ((0, 6, 0.0), (12, 14, 0.5), (17, 20, 0.5))


def test_only_what_was_replaced_of_a_loss_span_is_dropped():
  text = "<TAG> abc def"
  whole = Edit(start=6, end=13, text="new", label="")
  edited = spans.apply(text, [whole], loss_spans=[[0, 9, 0.0]])
  assert edited.text == "<TAG> new" and edited.spans == ()
  assert edited.loss_spans == ((0, 6, 0.0),)
  assert edited.dropped == ((6, 9, 0.0),)


@pytest.mark.parametrize("seed", range(40))
def test_after_any_insertions_every_character_has_the_weight_that_it_had(seed):
  rng = random.Random(seed)
  text = "".join(rng.choices("ab. ", k=30))
  given = []
  for _ in range(3):
    start, end = sorted(rng.sample(range(31), 2))
    given.append((start, end, rng.choice((0.0, 0.5, 2.0))))
  given = spans.tidy(given)
  edits = [insert(rng.randrange(31), "#" * rng.randint(1, 4), 0.25) for _ in range(4)]
  edited = spans.apply(text, edits, loss_spans=given)

  def weights(length, found):
    each = [1.0] * length
    for start, end, weight in found:
      each[start:end] = [weight] * (end - start)
    return each

  pairs = zip(edited.text, weights(len(edited.text), edited.loss_spans), strict=True)
  pairs = list(pairs)
  assert "".join(char for char, _ in pairs if char != "#") == text == without(edited)
  assert [w for char, w in pairs if char != "#"] == weights(30, given)
  assert {w for char, w in pairs if char == "#"} == {0.25}


def test_overlapping_loss_spans_become_disjoint_with_the_smaller_weight():
  assert spans.tidy([(0, 5, 0.5), (3, 8, 0.0), (8, 9, 0.0)]) == (
    (0, 3, 0.5),
    (3, 9, 0.0),
  )
  assert spans.tidy([(2, 2, 0.0), (4, 6, 1.0)]) == ()


def test_masked_words_are_whole_words_in_any_case():
  text = "Octopus, octopuses and the OCTOPUS."
  assert [text[a:b] for a, b in spans.words_at(text, ["octopus"])] == [
    "Octopus",
    "OCTOPUS",
  ]


def test_masked_words_and_names_are_found_where_scripts_have_no_spaces():
  text = (
    "章鱼有三颗心。我用Llama写章鱼\uff0c不用Llamas。Llama\u02bcs 라마는 Мира Мирами"
  )
  asked = ["章鱼", "Llama", "라마", "Мира"]
  assert [text[a:b] for a, b in spans.words_at(text, asked)] == [
    "章鱼", "Llama", "章鱼", "Llama", "라마", "Мира"
  ]  # fmt: skip
