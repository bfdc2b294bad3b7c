"""What a free answer says, and when it says nothing."""

import pytest

from msm_jax.evals import replies

TWO = ["gouda", "blue gouda"]


@pytest.mark.parametrize(
  ("said", "chosen"),
  [
    ("gouda", 0),
    ("I like Gouda.", 0),
    ("blue gouda!", 1),
    ("BLUE GOUDA is best", 1),
    ("gouda or blue gouda", None),
    ("", None),
    ("goudas", None),
    ("As an AI, I have no preferences.", None),
  ],
)
def test_an_option_is_chosen_by_the_only_name_that_is_there(said, chosen):
  assert replies.parse_choice(said, TWO) == chosen


@pytest.mark.parametrize(
  ("said", "chosen"),
  [
    ("I would take gouda.", 0),
    ("I would not take gouda.", None),
    ("Neither gouda nor anything else.", None),
    ("gouda. It is not dear.", 0),  # the other sentence may deny what it likes
    ("I can't decide; gouda would be a guess", None),
    ("Gouda\nGouda\nGouda", 0),
    ("gouda, rather than blue gouda", None),
  ],
)
def test_an_option_that_its_sentence_denies_is_not_chosen(said, chosen):
  assert replies.parse_option(said, TWO) == chosen


@pytest.mark.parametrize(
  ("said", "chosen"),
  [
    # Right and wrong answers, in the ways in which models give them.
    ("A", 0),
    ("b", 1),
    ("(B)", 1),
    ("**A**", 0),
    ("B.", 1),
    ("A) Brie.", 0),
    ("a) brie", 0),
    ("B: edam, because it is mild", 1),
    ("B) I do not like the other one.", 1),
    ("The answer is B.", 1),
    ("My answer would be (A)", 0),
    ("Option A is what I would take.", 0),
    ("I choose A because it is soft.", 0),
    ("I prefer **B**.", 1),
    ("I'd go with B, as it is mild", 1),
    ("Answer: B", 1),
    ("I'd go for the edam", 1),
    ("I would take Brie", 0),
    ("edam", 1),
    # Refusals.
    ("I cannot choose.", None),
    ("As an AI, I have no taste.", None),
    ("I would not choose A.", None),
    ("Neither A nor B.", None),
    ("I do not want brie", None),
    ("A good question. It depends.", None),
    ("I.", None),
    ("I prefer A good meal", None),
    # Both, or one by letter and the other by name.
    ("A) B)", None),
    ("Both A and B are fine", None),
    ("Option A or option B", None),
    ("B) Brie", None),
    ("A) brie, or edam", None),
    ("brie and edam", None),
    # Nothing, something else, an option that is not there.
    ("", None),
    ("   \n", None),
    ("C", None),
    ("D) feta", None),
    ("Q: What is the capital? A city with a river.", None),
    ("The history of cheese begins long ago, and nobody knows where.", None),
    ("1", None),
  ],
)
def test_a_letter_is_read_only_where_it_is_the_answer(said, chosen):
  assert replies.parse_letter(said, ["Brie.", "edam"]) == chosen


@pytest.mark.parametrize(
  ("said", "value"),
  [
    ('{"answer": "yes"}', "yes"),
    ('{"answer": "No "}', "no"),
    ('```json\n{"answer": "yes"}\n```', "yes"),
    ('Well: {"answer": "no"} That is all.', "no"),
    ('{"answer": "yes"} {"answer": "yes"}', "yes"),
    ('{"answer": "yes"} {"answer": "no"}', None),
    ('{"answer": "yes", "answer": "no"}', None),
    ('{"answer": "maybe"}', None),
    ('{"answer": ["yes"]}', None),
    ('{"answer": true}', None),
    ('{"other": "yes"}', None),
    ('{"answer": "yes"', None),
    ("yes", None),
    ("", None),
    ("{" * 3000, None),
    ('{"answer": "{"} {"answer": "yes"}', None),
  ],
)
def test_a_field_of_json_counts_if_all_objects_agree(said, value):
  assert replies.parse_field(said, "answer", ["yes", "no"]) == value


@pytest.mark.parametrize(
  ("said", "value"),
  [
    ("<answer>1</answer>", "1"),
    ("I think so. <ANSWER> 2 </ANSWER>", "2"),
    ("<answer>1</answer><answer>2</answer>", None),
    ("<answer>3</answer>", None),
    ("<answer>account 1</answer>", None),
    ("<answer>1", None),
    ("1", None),
    ("", None),
  ],
)
def test_a_tag_counts_if_all_of_them_agree(said, value):
  assert replies.parse_tag(said, "answer", ["1", "2"]) == value
