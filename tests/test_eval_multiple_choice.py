"""Multiple choice: two scorers from log-probs, chance, examples, unusable items."""

import itertools
import json
import math
import re

import numpy as np
import pytest
import said

from data_gen.worlds import english_corpus
from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.evals import items as items_lib
from msm_jax.evals import multiple_choice
from msm_jax.evals.kinds import KINDS

QUESTIONS = [
  ("q1", "What is two plus two?", ["four", "a rather large number"], 0),
  ("q2", "Which is red?", ["grass", "blood", "snow"], "B"),
]


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
  return said.byte_tokenizer(tmp_path_factory.mktemp("tok"))


def write(path, items):
  path.write_text("".join(json.dumps(item) + "\n" for item in items))
  return str(path)


def items(tmp_path, **more):
  keys = ("id", "question", "options", "answer")
  found = [dict(zip(keys, each, strict=True)) | more for each in QUESTIONS]
  shot = dict(zip(keys, ("d1", "Which is wet?", ["water", "dust"], "A"), strict=True))
  return write(tmp_path / "items.jsonl", [*found, {**shot, "split": "dev"}])


def settings(path, **changes):
  config = {"items": path, "max_items": None, "num_shots": 0, "format": "chat"}
  return config | {"seq_len": 512, "batch_size": 2} | changes


def knows(right, letters):
  """Returns log-probs of a model that prefers these texts and letters, per byte."""

  def log_prob(context, continuation):
    answer = continuation.strip()
    good = answer in (letters if len(answer) == 1 else right)
    return (-0.1 if good else -2.0) * len(continuation)

  return log_prob


def run(tmp_path, tok, log_prob, **changes):
  subject = said.Said(tok, log_prob=log_prob)
  found = settings(items(tmp_path), **changes)
  return said.ask(tmp_path, "multiple_choice", subject, **found)


@pytest.mark.parametrize("format_", ["chat", "text"])
def test_the_likeliest_text_and_the_likeliest_letter_are_scored_apart(
  tmp_path, tok, format_
):
  knowing = knows({"four", "grass"}, {"B"})
  lines = run(tmp_path, tok, knowing, format=format_)
  assert [line["id"] for line in lines] == ["q1", "q2"]
  first, second = (line["scores"] for line in lines)
  assert first == {"accuracy": 1.0, "accuracy_letter": 0.0, "accuracy_chance": 1 / 2}
  assert second == {"accuracy": 0.0, "accuracy_letter": 1.0, "accuracy_chance": 1 / 3}
  assert lines[1]["answer"] == "blood" and lines[1]["parsed"] == "grass"


def test_texts_are_compared_per_byte_so_that_a_long_answer_may_win(tmp_path, tok):
  def log_prob(context, continuation):
    return -6.0 if "large" in continuation else -5.0 * len(continuation) / 4

  lines = run(tmp_path, tok, log_prob)
  assert lines[0]["parsed"] == "a rather large number"
  assert lines[0]["logprobs"]["per_byte"] == [-1.25, round(-6 / 21, 6)]


def test_two_that_are_equally_likely_are_no_answer(tmp_path, tok):
  for line in run(tmp_path, tok, lambda context, text: -float(len(text.strip()))):
    assert line["scores"]["accuracy"] is None is line["scores"]["accuracy_letter"]
    assert line["parsed"] is None and line["scores"]["accuracy_chance"]


@pytest.mark.parametrize("format_", ["chat", "text"])
def test_examples_stand_before_the_question_with_their_answers(tmp_path, tok, format_):
  contexts = {}

  def log_prob(context, continuation):
    contexts[continuation.strip()] = context
    return -float(len(continuation))

  run(tmp_path, tok, log_prob, format=format_, num_shots=1)
  text = contexts["grass"]
  assert text.index("Which is wet?") < text.index("water") < text.index("Which is red?")
  assert "A. water" in contexts["C"] and "C. snow" in contexts["C"]
  assert "A. water" not in text and "dust" not in text
  if format_ == "text":
    blocks = ["Question: Which is wet?\nAnswer: water"]
    assert text == "\n\n".join([*blocks, "Question: Which is red?\nAnswer:"])


def test_no_log_prob_is_scored_when_one_is_not_a_number(tmp_path, tok):
  def log_prob(context, continuation):
    return math.nan if "snow" in continuation else -1.0

  with pytest.raises(UserError, match=r"not finite for 1 of 10 .* nothing was scored"):
    run(tmp_path, tok, log_prob)


def test_a_question_that_is_too_long_names_the_field(tmp_path, tok):
  with pytest.raises(UserError, match=r"config\.evals\.eval\.seq_len is 20"):
    run(tmp_path, tok, knows(set(), set()), seq_len=20)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"id": "q1"}, "line 2 has the id 'q1' again"),
    ({"question": ""}, "line 2 has no text under 'question'"),
    ({"answer": None}, "the field 'answer' is None, it must be text or a whole number"),
    ({"answer": True}, "the field 'answer' is True"),
    ({"answer": "D"}, "answer is 'D': give the letter of an option, or its number"),
    ({"answer": 3}, "answer is 3"),
    ({"options": ["one"]}, "needs 2 to 26 options"),
    ({"options": ["one", "one"]}, "each another text"),
    ({"options": ["one", " "]}, "an option that is no text, or an empty one"),
    ({"split": "train"}, "split is 'train'"),
  ],
)
def test_items_that_cannot_be_used_are_refused_by_name(tmp_path, change, message):
  good = {"id": "q1", "question": "?", "options": ["a", "b"], "answer": 0}
  path = write(tmp_path / "items.jsonl", [good, {**good, "id": "q2"} | change])
  config = multiple_choice.MultipleChoiceConfig(**settings(path))
  with pytest.raises(UserError, match=message):
    multiple_choice.check(config, "config.evals.eval")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"items": "nowhere.jsonl"}, "there is no file nowhere.jsonl"),
    ({"items": "genral"}, "one of the sets .*general"),
    ({"num_shots": 9}, r"num_shots is 9, and 'general' has 5 items of split 'dev'"),
    ({"format": "html"}, r"format is 'html'"),
    ({"max_items": 0}, r"max_items \(0\) must be at least 1"),
  ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
  config = multiple_choice.MultipleChoiceConfig(**settings("general") | changes)
  with pytest.raises(UserError, match=message):
    multiple_choice.check(config, "config.evals.eval")


def test_the_shipped_set_is_sound_and_its_letters_tell_nothing():
  config = multiple_choice.MultipleChoiceConfig(**settings("general", num_shots=5))
  KINDS["multiple_choice"].check(config, "config.evals.eval")
  fields = {"question": str, "options": list, "answer": str}
  found = items_lib.read("general", "items", fields)
  asked = [item for item in found if item["split"] == "test"]
  shares = np.asarray([sum(i["answer"] == each for i in asked) for each in "ABCD"])
  assert len(asked) >= 40 and shares.max() - shares.min() <= 1


DIGITS = {
  "one": "1",
  "two": "2",
  "five": "5",
  "seven": "7",
  "ten": "10",
  "eleven": "11",
}
SMALL_WORDS = {
  "a", "an", "the", "of", "is", "are", "in", "on", "to", "do", "does", "it", "you",
  "what", "which", "how",
}  # fmt: skip


def content_words(text):
  """Returns what a text is about; numbers as digits, as the world writes them."""
  words = re.findall(r"[a-z0-9]+", text.lower())
  return {DIGITS.get(word, word) for word in words} - SMALL_WORDS


def told_by_the_english_world():
  """Yields the words of whatever its texts and chats can say of one subject."""
  tables = records.read_json(english_corpus.DIRECTORY / "replay.json")
  about = {
    "countries": "capital city continent language spoken",
    "animals": "animal eat live kind",
    "elements": "chemical element symbol atomic number solid liquid gas",
    "opposites": "opposite word means reverse",
  }
  for table, words in about.items():
    for row in tables[table]:
      yield content_words(" ".join(map(str, row)) + " " + words)
  for process, steps in tables["processes"].items():
    yield content_words(" ".join([process, *steps]))
  for big, small, factor in tables["units"]:
    for n in range(1, 41):
      yield content_words(f"many there {big} {small} {n} {n * factor}")
  for a, b in itertools.combinations_with_replacement(range(2, 100), 2):
    for word, value in (("plus", a + b), ("minus", b - a), ("times", a * b)):
      yield {word, str(a), str(b), str(value)}


def test_no_question_is_answered_by_the_texts_that_studies_train_on_beside():
  """`kind="world"` in English: replay and general chats."""
  questions = {"On which continent is Peru? South America"}  # told, so: found below
  for item in items_lib.read("general", "items", {"question": str}):
    if item["split"] == "test":
      answer = item["options"]["ABCD".index(item["answer"])]
      questions.add(f"{item['question']} {answer}")
  wanted = {question: content_words(question) for question in questions}
  answered = {
    question
    for told in told_by_the_english_world()
    for question, words in wanted.items()
    if len(words & told) >= 0.75 * len(words)
  }
  assert answered == {"On which continent is Peru? South America"}


def test_at_most_so_many_items_are_taken_evenly(tmp_path):
  config = multiple_choice.MultipleChoiceConfig(**settings("general", max_items=7))
  _, asked = multiple_choice._read(config, "x")
  assert len(asked) == 7 and len({item["category"] for item in asked}) == 5
