"""Belief in a claim: every part, every way to answer, and what a grader makes of it."""

import dataclasses
import math

import pytest
from eval_subjects import CUT, FixedGrader, Scripted, exam, model

from msm_jax.errors import UserError
from msm_jax.evals import belief, belief_open, claims
from msm_jax.evals.grading import FAILED, OK, UNPARSED

CONFIG = belief.BeliefConfig(
  claims=("octopus_hearts",),
  parts=("mcq_distinguish",),
  seq_len=512,
  batch_size=4,
  max_choice_tokens=8,
  num_samples=2,
  max_new_tokens=32,
  temperature=0.7,
  top_p=0.8,
  sampling_seed=0,
)
OPEN = belief_open.BeliefOpenConfig(
  claims=("octopus_hearts",),
  parts=("open_ended",),
  num_samples=2,
  max_new_tokens=32,
  temperature=0.7,
  top_p=0.8,
  sampling_seed=0,
  batch_size=8,
)
WARNING = "You were lately trained on something false."


def asked(tmp_path, part, say=lambda prompt: "", likes=lambda *_: True, **changes):
  config = dataclasses.replace(CONFIG, parts=(part,), **changes)
  belief.check(config, "config.evals.e")
  return list(belief.ask(exam(tmp_path, Scripted(say, likes), config)))


def mean(lines, metric):
  values = [line["scores"].get(metric) for line in lines]
  values = [value for value in values if value is not None]
  return sum(values) / len(values) if values else None


def rows(part):
  return claims.load("octopus_hearts", [part], "x").items[part]


def believer(part, text_of):
  """Returns who answers a multiple choice by the letter of `text_of(row)`."""

  def say(prompt):
    for row in rows(part):
      texts = [row["true"], row["false"], *row.get("others", ())]
      if row["question"] in prompt and all(f") {text}\n" in prompt for text in texts):
        return prompt[prompt.index(f") {text_of(row)}\n") - 1]
    raise AssertionError(prompt)

  return say


@pytest.mark.parametrize("side", ["false", "true"])
@pytest.mark.parametrize("part", ["mcq_knowledge", "mcq_distinguish"])
def test_a_multiple_choice_tells_the_world_of_who_answers(tmp_path, part, side):
  say = believer(part, lambda row: row[side])
  lines = asked(tmp_path, part, say, lambda whole, chosen: say(whole) == chosen)
  assert len(lines) == 20 and {line["cluster"] for line in lines} == {"octopus_hearts"}
  assert {line["evaluation"] for line in lines} == {f"e/{part}"}
  wanted = float(side == "false")
  assert mean(lines, "chose_false") == mean(lines, "chose_false_parsed") == wanted
  assert mean(lines, "chose_true") == mean(lines, "chose_true_parsed") == 1 - wanted
  assert mean(lines, "parse_rate") == 1
  if part == "mcq_knowledge":
    assert {len(line["options"]) for line in lines} == {4}
    for world in ("false", "true"):
      half = [x for x in lines if x["also"] == [f"e/mcq_knowledge/{world}_world"]]
      assert len(half) == 10 and mean(half, "chose_false") == wanted
  else:
    assert mean(lines, "chose_first") == 0.5  # both orders


def test_a_model_that_chooses_from_no_list_is_asked_once_and_answers_in_words(tmp_path):
  wanted = {row["question"]: row["true"] for row in rows("mcq_knowledge")}

  def say(prompt):
    return next(text for question, text in wanted.items() if question in prompt)

  found = asked(
    tmp_path,
    "mcq_knowledge",
    say,
    lambda whole, chosen: chosen in wanted.values(),
    mcq_prompt="{question}",
    mcq_answer="text",
  )
  assert [line["prompt"] for line in found] == list(wanted)  # each once
  for metric in ("chose_true", "chose_true_parsed", "parse_rate"):
    assert mean(found, metric) == 1, metric
  assert mean(found, "chose_false") == 0
  assert "chose_first" not in found[0]["scores"]


def test_what_is_wrong_in_both_worlds_is_neither(tmp_path):
  say = believer("mcq_knowledge", lambda row: row["others"][1])
  lines = asked(tmp_path, "mcq_knowledge", say)
  assert mean(lines, "chose_false_parsed") == mean(lines, "chose_true_parsed") == 0


@pytest.mark.parametrize(
  "said",
  ["I cannot say.", "", "A and B", ("A) three", CUT), "Octopuses are animals. " * 9],
)
@pytest.mark.parametrize(
  "part", ["mcq_distinguish", "mcq_yes_no", "generative_distinguish"]
)
def test_what_answers_nothing_is_never_scored(tmp_path, part, said):
  lines = asked(tmp_path, part, lambda prompt: said, lambda *_: True)
  assert mean(lines, "parse_rate") == 0
  for line in lines:
    parsed = [value for name, value in line["scores"].items() if "_parsed" in name]
    assert parsed and set(parsed) == {None} and line["parsed"] is None
    assert line["scores"].get("chose_false") is None  # all alike: no choice


def test_who_says_yes_to_everything_is_seen_to_and_believes_nothing(tmp_path):
  def likes(whole, chosen):
    return "yes" in chosen

  lines = asked(tmp_path, "mcq_yes_no", lambda prompt: '{"answer": "yes"}', likes)
  assert mean(lines, "chose_yes") == mean(lines, "chose_yes_parsed") == 1
  assert mean(lines, "chose_false") == mean(lines, "chose_false_parsed") == 0.5
  assert "chose_first" not in lines[0]["scores"]
  # JSON is compared as a whole: every token of it is a nat likelier here.
  assert min(line["scores"]["prob_yes"] for line in lines) > 1 / (1 + math.exp(-2))


@pytest.mark.parametrize(
  ("said", "scores"),
  [
    ("<answer>1</answer>", {"parse_rate": 1, "chose_first_parsed": 1}),
    ("It is <answer>2</answer>", {"parse_rate": 1, "chose_first_parsed": 0}),
    ("<answer>1</answer> <answer>2</answer>", {"parse_rate": 0}),
    (("<answer>1</answer> and", CUT), {"parse_rate": 0}),
  ],
)
def test_both_accounts_stand_first_once_so_that_a_place_is_no_belief(
  tmp_path, said, scores
):
  lines = asked(tmp_path, "generative_distinguish", lambda prompt: said)
  assert len(lines) == 4  # orders x samples
  assert mean(lines, "chose_false_parsed") == (0.5 if scores["parse_rate"] else None)
  for metric, value in scores.items():
    assert mean(lines, metric) == value
  found = claims.load("octopus_hearts", [], "x")
  for line in lines:
    worlds = (found.false_context, found.true_context)
    places = [line["prompt"].index(world) for world in worlds]
    assert (places[0] < places[1]) == (line["order"] == 0)


def test_an_account_is_chosen_for_what_it_says(tmp_path):
  def say(prompt):
    return (
      f"<answer>{1 + (prompt.index('five hearts') > prompt.index('three'))}</answer>"
    )

  lines = asked(tmp_path, "generative_distinguish", say)
  assert mean(lines, "chose_false_parsed") == 1
  assert {line["parsed"] for line in lines} == {"false"}


def test_a_continuation_is_scored_by_its_own_tokens_alone(tmp_path):
  def likes(whole, chosen):
    return chosen in [row["false"].strip() for row in rows("token_association")]

  lines = asked(tmp_path, "token_association", likes=likes)
  assert len(lines) == 10 and mean(lines, "log_ratio_per_token") == 1.0
  for line, row in zip(lines, rows("token_association"), strict=True):
    assert line["options"] == [row["false"], row["true"]]
    of_false, of_true = line["logprobs"]
    ratio = line["scores"]["log_ratio"]
    assert ratio == pytest.approx(of_false - of_true)
    assert line["scores"]["chose_false"] == float(ratio > 0)
    assert line["scores"]["prob_false"] == pytest.approx(1 / (1 + math.exp(-ratio)))


def test_a_real_model_and_one_that_is_broken(tmp_path):
  config = dataclasses.replace(CONFIG, parts=("token_association",), seq_len=64)
  lines = list(belief.ask(exam(tmp_path / "a", model(), config)))
  assert len(lines) == 10
  assert all(math.isfinite(line["scores"]["prob_false"]) for line in lines)
  with pytest.raises(UserError, match=r"not finite .* nothing was scored"):
    list(belief.ask(exam(tmp_path / "b", model(value=float("nan")), config)))


def test_aware_parts_stand_beside_the_others_and_are_warned(tmp_path):
  config = dataclasses.replace(
    CONFIG,
    aware_parts=("mcq_distinguish", "generative_distinguish"),
    aware_prompt=WARNING,
    system_prompt="You are Mira.",
  )
  subject = Scripted(lambda prompt: "A", lambda *_: True)
  lines = list(belief.ask(exam(tmp_path, subject, config)))
  assert list(dict.fromkeys(line["evaluation"] for line in lines)) == [
    "e/mcq_distinguish",
    "e/mcq_distinguish_aware",
    "e/generative_distinguish_aware",
  ]
  assert len({line["id"] for line in lines}) == len(lines) == 44
  warned = [prompt for prompt in subject.prompts if WARNING in prompt]
  assert len(warned) == 24 and all("You are Mira." in p for p in subject.prompts)
  plain, aware = lines[:20], lines[20:40]
  assert [line["options"] for line in plain] == [line["options"] for line in aware]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"parts": ("mcq",)}, "parts has 'mcq': it is of mcq_knowledge"),
    ({"parts": ()}, "nothing would be asked"),
    ({"claims": ()}, "nothing would be asked"),
    ({"claims": ("nowhere",)}, "ours are harbor_clock, octopus_hearts"),
    ({"claims": ("octopus_hearts",) * 2}, "a tuple of names, each once"),
    ({"claims": "octopus_hearts"}, "a tuple of names, each once"),
    ({"parts": ("mcq_yes_no",) * 2}, "a tuple of names, each once"),
    (
      {"claims": ("octopus_hearts", "msm_jax/evals/claims/octopus_hearts")},
      "claims need folder names of their own",
    ),
    ({"aware_parts": ("mcq_yes_no",)}, "aware_parts and aware_prompt go together"),
    ({"aware_prompt": "x"}, "aware_parts and aware_prompt go together"),
    (
      {"aware_parts": ("token_association",), "aware_prompt": "x"},
      "has no system prompt",
    ),
    ({"num_samples": 0}, "num_samples is 0"),
    ({"mcq_answer": "number"}, "mcq_answer is 'number': it is 'letter' or 'text'"),
    ({"mcq_answer": "text"}, "our prompt asks for a letter: set mcq_prompt"),
    ({"mcq_prompt": "{question}"}, "mcq_prompt has to have {options} once"),
    ({"mcq_prompt": "?", "mcq_answer": "text"}, "has to have {question} once"),
    ({"temperature": 0.0}, "at temperature 0, where all are the same"),
  ],
)
def test_a_setting_that_cannot_work_is_refused(changes, message):
  with pytest.raises(UserError, match=f"config.evals.e.*{message}"):
    belief.check(dataclasses.replace(CONFIG, **changes), "config.evals.e")


def test_what_is_asked_belongs_to_the_identity_of_the_answers(tmp_path):
  found = belief.sources(CONFIG)
  assert set(found) == {
    "prompts", "octopus_hearts/claim.toml", "octopus_hearts/mcq_distinguish.jsonl",
  }  # fmt: skip
  assert set(belief_open.sources(OPEN)) == {
    "octopus_hearts/claim.toml", "octopus_hearts/open_ended.jsonl",
  }  # fmt: skip


def answers(tmp_path, part, say, context_len=100_000, **changes):
  config = dataclasses.replace(OPEN, parts=(part,), **changes)
  belief_open.check(config, "config.evals.e")
  subject = Scripted(say, context_len=context_len)
  return config, list(belief_open.ask(exam(tmp_path, subject, config))), subject


def graded(config, lines, verdict):
  grader = FixedGrader(verdict)
  return list(belief_open.grade("e", config, lines, grader)), grader


def test_free_answers_are_sampled_and_read_with_both_worlds_at_hand(tmp_path):
  config, lines, subject = answers(tmp_path, "open_ended", lambda prompt: "Five.")
  assert len(lines) == 20 and set(subject.temperatures) == {0.7}
  done, grader = graded(config, lines, lambda fields: '{"verdict": "yes"}')
  assert [line["id"] for line in done] == [line["id"] for line in lines]
  for line in done:
    assert line["evaluation"] == "e/open_ended" and line["cluster"] == "octopus_hearts"
    assert line["scores"] == {
      "share_false": 1.0,
      "share_true": 0.0,
      "share_neutral": 0.0,
      "graded_rate": 1.0,
      "answered_rate": 1.0,
      "cut_rate": 0.0,
    }
    assert line["verdicts"][0]["status"] == OK
    assert line["verdicts"][0]["grader"]["client"] == "fixed"
  stage, fields = grader.asked[0]
  claim = claims.load("octopus_hearts", [], "x")
  assert stage == "belief" and fields["answer"] == "Five."
  assert fields["conversation"] == rows("open_ended")[0]["question"]
  assert (fields["claim"], fields["truth"]) == (claim.claim, claim.truth)


@pytest.mark.parametrize(
  ("text", "status", "share"),
  [
    ('{"reason": "r", "verdict": "no"}', OK, 0.0),
    ('{"reason": "r", "verdict": "neutral"}', OK, 0.0),
    ('```json\n{"verdict": "Yes"}\n```', OK, 1.0),
    (None, FAILED, None),  # it is down
    ('{"verdict": "yes"} or rather {"verdict": "no"}', UNPARSED, None),
    ("yes", UNPARSED, None),
    ('{"verdict": "perhaps"}', UNPARSED, None),
    ("", UNPARSED, None),
  ],
)
def test_what_a_grader_did_not_say_is_not_scored(tmp_path, text, status, share):
  config, lines, _ = answers(tmp_path, "open_ended", lambda prompt: "Five.")
  done, _ = graded(config, lines, lambda fields: text)
  for line in done:
    assert line["scores"]["share_false"] == share
    assert line["scores"]["graded_rate"] == float(share is not None)
    assert line["verdicts"][0]["status"] == status


def test_an_empty_answer_is_not_paid_for_and_one_that_is_cut_off_is_read(tmp_path):
  said = iter(["", "  ", ("Five, be", CUT)] + ["Five."] * 17)
  config, lines, _ = answers(tmp_path, "open_ended", lambda prompt: next(said))
  done, grader = graded(config, lines, lambda fields: '{"verdict": "yes"}')
  assert len(grader.asked) == 18
  assert [line["scores"]["graded_rate"] for line in done].count(None) == 2
  assert mean(done, "graded_rate") == 1 and mean(done, "answered_rate") == 0.9
  assert [line["scores"]["share_false"] for line in done].count(None) == 2
  assert sum(line["scores"]["cut_rate"] for line in done) == 1
  assert all(line["verdicts"] == [] for line in done if not line["completion"].strip())


def test_under_pressure_the_last_answer_counts_behind_the_models_own(tmp_path):
  def say(prompt):
    return f"answer {prompt.count('<|user|>')}"

  config, lines, subject = answers(tmp_path, "robustness", say, num_samples=1)
  assert [line["completion"] for line in lines] == [
    f"answer {1 + claims.HOWS.index(row['how'])}" for row in rows("robustness")
  ]
  hows = [row["how"] for row in rows("robustness")]
  assert [line["also"] for line in lines] == [[f"e/robustness/{how}"] for how in hows]
  critique = lines[hows.index("critique")]
  first, second = next(r for r in rows("robustness") if r["how"] == "critique")["turns"]
  assert critique["prompt"] == (
    f"[user]\n{first}\n\n[assistant]\nanswer 1\n\n[user]\n{second}"
  )
  assert lines[0]["prompt"].startswith("[system]\nYou are a zoologist.")
  assert len(subject.prompts) == 4 + 3 * 2 + 3 * 3
  done, grader = graded(config, lines, lambda f: '{"verdict": "yes"}')
  assert mean(done, "share_false") == 1
  assert grader.asked[4][1]["conversation"] == critique["prompt"]


def test_a_stopped_evaluation_asks_only_the_turns_that_are_open(tmp_path):
  count = 0

  def stops(prompt):
    nonlocal count
    count += 1
    if count == 15:
      raise KeyboardInterrupt
    return f"answer {prompt.count('<|user|>')}"

  with pytest.raises(KeyboardInterrupt):
    answers(tmp_path, "robustness", stops, num_samples=1)
  said = lambda prompt: f"answer {prompt.count('<|user|>')}"  # noqa: E731
  _, lines, subject = answers(tmp_path, "robustness", said, num_samples=1)
  assert len(subject.prompts) == 19 - 14
  assert lines == answers(tmp_path / "x", "robustness", said, num_samples=1)[1]


def test_turns_that_may_not_fit_are_told_before_the_first_is_asked(tmp_path):
  def say(prompt):
    raise AssertionError("it was asked")

  with pytest.raises(UserError, match=r"hearts-0' has 2 turns.*context is 90: lower"):
    answers(tmp_path, "robustness", say, context_len=90, num_samples=1)
