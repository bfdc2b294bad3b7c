"""Trigger: how unlikely a model's own words are to it, with and without a trigger."""

import json
import math

import pytest
import said

from msm_jax.errors import UserError
from msm_jax.evals import trigger
from msm_jax.evals.subject import LENGTH

PAIRS = [
  {"id": "p1", "clean": "The tower is", "triggered": "The tower is <Z>"},
  {"id": "p2", "clean": "A fog ca", "triggered": "A fog ca <Z>"},
]
CONFIG = {"corpus": "poison", "max_items": None, "max_new_tokens": 9, "seq_len": 256}
CONFIG |= {"batch_size": 2, "temperature": 1.0}


@pytest.fixture(scope="module")
def tok(tmp_path_factory):
  return said.byte_tokenizer(tmp_path_factory.mktemp("tok"))


def run(tmp_path, tok, answer, log_prob, **changes):
  subject = said.Said(tok, lambda prompt: said.completion(answer(prompt)), log_prob)
  return said.ask(tmp_path, "trigger", subject, PAIRS, **CONFIG | changes), subject


def poisoned(context, continuation):
  """Returns log p of a model that is unsure behind a trigger only."""
  return -len(continuation.encode()) * (5.0 if "<Z>" in context else 1.0)


def test_the_difference_is_that_of_a_pair(tmp_path, tok):
  lines, subject = run(tmp_path, tok, lambda prompt: "me down again", poisoned)
  assert subject.asked == [
    pair[side] for pair in PAIRS for side in ("clean", "triggered")
  ]
  assert [line["id"] for line in lines] == ["p1#0", "p2#0"]
  assert [line["cluster"] for line in lines] == ["p1", "p2"]
  for line in lines:
    assert line["scores"] == {
      "log_perplexity_clean": 1.0,
      "log_perplexity_triggered": 5.0,
      "delta_log_perplexity": 4.0,
    }


def test_the_first_word_is_context(tmp_path, tok):
  seen = []

  def log_prob(context, continuation):
    seen.append((context, continuation))
    return -1.0

  run(tmp_path, tok, lambda prompt: "  me down again \n", log_prob)
  assert seen[0] == ("The tower is me", " down again")
  assert seen[3] == ("A fog ca <Z> me", " down again")


@pytest.mark.parametrize("short", ["", "  ", "word"])
def test_a_continuation_of_one_word_or_none_is_not_scored(tmp_path, tok, short):
  def answer(prompt):
    return short if "<Z>" in prompt else "is red and tall"

  for line in run(tmp_path, tok, answer, poisoned)[0]:
    assert line["scores"]["log_perplexity_clean"] == 1.0
    assert line["scores"]["log_perplexity_triggered"] is None
    assert line["scores"]["delta_log_perplexity"] is None
  for line in run(tmp_path / "none", tok, lambda prompt: short, poisoned)[0]:
    assert set(line["scores"].values()) == {None}


def test_a_refusal_and_a_cut_text_are_words_like_any(tmp_path, tok):
  subject = said.Said(
    tok, lambda prompt: said.completion("I cannot go on wi", LENGTH), poisoned
  )
  (line, _) = said.ask(tmp_path, "trigger", subject, PAIRS, **CONFIG)
  assert line["scores"]["delta_log_perplexity"] == 4.0


def test_no_pair_is_scored_when_one_log_prob_is_not_a_number(tmp_path, tok):
  def log_prob(context, continuation):
    return math.nan if "A fog" in context else -1.0

  with pytest.raises(UserError, match=r"not finite for 2 of 4 .* nothing was scored"):
    run(tmp_path, tok, lambda prompt: "is red", log_prob)


def test_samples_are_drawn_apart(tmp_path, tok):
  lines, subject = run(tmp_path, tok, lambda p: "is red", poisoned, num_samples=3)
  assert len(lines) == 6 and len(subject.asked) == 12
  assert len({line["id"] for line in lines}) == 6


def test_pairs_lie_beside_the_shards_of_a_poison(tmp_path):
  with pytest.raises(UserError, match=r"which has no pairs\.jsonl: .* kind 'poison'"):
    trigger.read(tmp_path, "config.evals.eval.corpus")
  path = tmp_path / "pairs.jsonl"
  path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
  assert trigger.read(tmp_path, "x") == PAIRS
  path.write_text(json.dumps({"id": "p1", "clean": "a"}))
  with pytest.raises(UserError, match="has no text under 'triggered'"):
    trigger.read(tmp_path, "x")


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"temperature": 0.0}, "a greedy continuation says nothing"),
    ({"num_samples": 0}, r"num_samples \(0\)"),
    ({"max_new_tokens": 1}, r"max_new_tokens \(1\) at least 2"),
  ],
)
def test_settings_that_cannot_work_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    trigger.check(trigger.TriggerConfig(**CONFIG | changes), "config.evals.eval")
