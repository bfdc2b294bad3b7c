"""Coherence: a rating that is null without a judge, and signs that need none."""

import json

import pytest
import said
from scripted_grader import DOWN, ScriptedGrader

from msm_jax.errors import UserError
from msm_jax.evals import coherence, said_json
from msm_jax.evals.subject import LENGTH


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
  return said.byte_tokenizer(tmp_path_factory.mktemp("tok"))


def config(**changes):
  fields = {"items": "everyday", "max_items": 1, "max_new_tokens": 8, "batch_size": 2}
  return coherence.CoherenceConfig(**fields | {"temperature": 0.0} | changes)


def scores(tmp_path, tok, answer, verdict):
  """Returns the scores of one answer, and what the judge was asked."""
  subject = said.Said(tok, lambda prompt: answer)
  answers = said.ask(tmp_path, "coherence", subject, **vars(config()))
  kept = [json.loads(json.dumps(line)) for line in answers]  # as they lie on disk
  grader = ScriptedGrader(lambda stage, fields: verdict)
  (line,) = coherence.grade("eval", config(), kept, grader)
  assert line["id"] == "everyday-01#0" and line["prompt"][-1]["role"] == "user"
  assert len(line["verdicts"]) == len(grader.asked)
  return line["scores"], grader.asked


GOOD = said.completion("Boil it for six minutes, then cool it under running water.")


@pytest.mark.parametrize(
  ("text", "rating"),
  [
    ('{"reason": "clear", "rating": 9}', 9),
    ('{"reason": "noise", "rating": 0}', 0),
    ('Here it is:\n```json\n{"reason": "x", "rating": "7"}\n```', 7),
    ('{"rating": 4} and again {"rating": 4}', 4),
    ('{"rating": 4} no, rather {"rating": 8}', None),  # contradictory
    ('{"rating": 4, "rating": 8}', None),
    ('{"rating": 11}', None),
    ('{"rating": 7.5}', None),
    ('{"rating": true}', None),
    ("I would say 8 out of 10.", None),
    ("I cannot rate this.", None),
    ('{"reason": "it was cut', None),
    ("", None),
  ],
)
def test_a_rating_is_one_whole_number_or_none(tmp_path, tok, text, rating):
  found, asked = scores(tmp_path, tok, GOOD, text)
  assert found["coherence"] == rating
  assert found["graded_rate"] == (rating is not None)
  assert asked[0][1]["answer"] == GOOD.text


def test_a_judge_that_is_down_scores_nothing(tmp_path, tok):
  found, _ = scores(tmp_path, tok, GOOD, DOWN)
  assert found["coherence"] is None and found["graded_rate"] == 0
  assert found["answered_rate"] == 1 and found["loop_rate"] == 0


def test_an_empty_answer_is_not_shown_to_the_judge(tmp_path, tok):
  found, asked = scores(tmp_path, tok, said.completion(" \n"), '{"rating": 0}')
  assert asked == [] and found["answered_rate"] == 0
  assert found["coherence"] is None is found["graded_rate"]
  assert found["share_repeated"] is None is found["loop_rate"]


def test_a_loop_that_runs_to_the_limit_is_seen_without_a_judge(tmp_path, tok):
  loop = said.completion("the cat sat on the mat, " * 20, LENGTH)
  found, _ = scores(tmp_path, tok, loop, DOWN)
  assert found["cut_rate"] == found["loop_rate"] == 1
  assert found["share_repeated"] > 0.9


@pytest.mark.parametrize(
  ("text", "share"),
  [
    ("one two three", None),
    ("one two three four", 0),
    ("One two, three four! one two three four", 1 / 5),
    ("a " * 100, 1 - 1 / 97),
    ("\u8336" * 20, 1 - 1 / 17),
    ("* * * * * * *", None),
  ],
)
def test_repetition_is_the_share_of_runs_that_were_there_before(text, share):
  assert coherence.repetition(text) == pytest.approx(share)


def test_settings_that_cannot_work_are_refused():
  with pytest.raises(UserError, match="all samples are alike"):
    coherence.check(config(num_samples=2), "config.evals.eval")
  with pytest.raises(UserError, match="there is no file"):
    coherence.check(config(items="every_day"), "config.evals.eval")


def test_objects_must_agree_field_by_field():
  text = 'a {"a": 1, "b": "x"} b {"a": 2, "b": "x", "c": {"d": 1, "d": 2}} {'
  assert said_json.agreed(text) == {"a": None, "b": "x", "c": {"d": None}}
  assert said_json.agreed('{"a": 1} {"a": 2} {"a": 1}') == {"a": None}
