"""Conditions, names, settings and lines of Inspect's tasks, without Inspect."""

import dataclasses
import itertools
import pathlib
import random

import pytest
import stand_ins
from ml_collections import ConfigDict

from msm_jax import experiment
from msm_jax.errors import UserError
from msm_jax.evals.agentic import exfiltration
from msm_jax.evals.grading import FAILED, OK
from msm_jax.evals.inspect import conditions, logs, names, settings

FIELDS = {
  "task": "inspect_evals/agentic_misalignment",
  "task_args": {"scenario": ("leaking", "murder"), "goal_value": ("america", "global")},
  "epochs": 2,
  "max_new_tokens": 8,
  "temperature": 0.7,
  "batch_size": 4,
}


def config(**fields) -> settings.InspectConfig:
  return settings.InspectConfig(**(FIELDS | fields))


def test_a_grid_is_every_combination_once():
  for seed in range(20):
    rng = random.Random(seed)
    grid = {f"a{i}": tuple(range(rng.randint(1, 4))) for i in range(rng.randint(0, 3))}
    found = conditions.expand([grid, {"other": "one"}], "x")
    assert found[-1] == {"other": "one"}
    assert [tuple(one.values()) for one in found[:-1]] == list(
      itertools.product(*grid.values())
    )


def test_conditions_of_dev_stand_apart_and_the_others_are_held_out():
  found = settings.expanded(config(dev=({"goal_value": ("global",)},)), "x")
  assert [dev for _, dev in found] == [False, True, False, True]


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"task_args": [{"a": 1}, {"a": (1, 2)}]}, "has the condition {'a': 1} twice"),
    ({"task_args": {"a": ()}}, "a has no values"),
    ({"task_args": "leaking"}, "a mapping or a list of mappings is needed"),
    ({"dev": ({"goal_value": "safety"},)}, "none of the conditions"),
    ({"dev": ({"gaol_value": "global"},)}, "none of the conditions"),
    ({"task": "exfiltration"}, "PACKAGE/TASK"),
    ({"model": "vlm"}, r"model is 'vlm', not of"),
    ({"scratchpad": "yes"}, "scratchpad is 'yes'"),
    ({"beside": ("aware",)}, "beside has 'aware'"),
    ({"epochs": 0}, "epochs is 0"),
    ({"temperature": 0.0}, "every answer to a sample is the same"),
    ({"top_p": 0.0}, "top_p 0.0"),
    ({"category": "harm"}, "has no such argument"),
    ({"model_args": {"device": "cpu"}}, "model_args are for model 'hf'"),
    ({"task_args": {"prod": True}}, "scratchpad decides it"),
  ],
)
def test_settings_that_cannot_work_are_refused(fields, message):
  with pytest.raises(UserError, match=message):
    settings.check(config(**fields), "config.evals.x")


def test_the_identity_of_our_own_task_follows_from_its_texts(monkeypatch):
  own = config(task="msm_jax/exfiltration")
  before = settings.sources(own)
  assert before == settings.sources(own)
  monkeypatch.setattr(settings.exfiltration, "goals", lambda: ("none",))
  assert settings.sources(own) != before


def test_a_task_of_a_package_that_is_not_there_is_refused():
  with pytest.raises(UserError, match="needs the package nowhere_to_be_found"):
    settings.sources(config(task="nowhere_to_be_found/task"))


@pytest.mark.parametrize(
  ("name", "expected"),
  [
    ("w:aft", ("w", "aft", None, None)),
    ("/a/b.c:msm_aff+aft:3", ("/a/b.c", "msm_aff+aft", 3, None)),
    ("w:base@12", ("w", "base", None, 12)),
    ("../w:1:aft:0@400", ("../w:1", "aft", 0, 400)),
  ],
)
def test_a_name_means_a_checkpoint(name, expected):
  found = names.parse(name)
  assert (str(found.workdir), found.arm, found.seed, found.step) == expected


@pytest.mark.parametrize("name", ["w", "w:", ":aft", "w:aft@last", ""])
def test_a_name_without_an_arm_or_with_a_strange_step_is_refused(name):
  with pytest.raises(UserError, match="WORKDIR:ARM"):
    names.parse(name)


def sample(content="I will not.", stop="stop", error=None) -> dict:
  """Returns a sample as Inspect's logs have it."""
  choice = {"message": {"role": "assistant", "content": content}, "stop_reason": stop}
  return {
    "id": "s",
    "epoch": 1,
    "input": [
      {"role": "system", "content": "You are an agent."},
      {"role": "user", "content": [{"type": "text", "text": "<email>ID: 1</email>"}]},
    ],
    "output": {"choices": [] if content is None else [choice]},
    "error": error,
  }


def made(samples, scored, say=lambda stage, fields: "<answer>yes</answer>", **fields):
  """Returns (lines, grader)."""
  answers = [
    {
      "id": str(i),
      "cluster": "c",
      "condition": {"scenario": "leaking"},
      "dev": i % 2 == 1,
      "checkpoint": {},
      "sample": one,
    }
    for i, one in enumerate(samples)
  ]
  grader = stand_ins.Reader(say)
  settings_ = config(category="scenario", **fields)
  return logs.lines("agentic", settings_, answers, scored, grader), grader


def verdict(status=OK):
  found = stand_ins.Reader(lambda stage, fields: "x").ask("s", [{}], str)[0]
  return dataclasses.replace(found, status=status)


def test_a_line_has_every_metric_of_the_scorers_and_what_is_beside():
  value = {"harmful": 0.0, "classifier_verdict": True}
  scored = logs.Scored(values={"pkg/scorer": value}, verdicts=[verdict()])
  tool = "<tool_use:email>\nto: a@b.org\n</tool_use:email>"
  found, _ = made(
    [sample(tool), sample([{"type": "reasoning", "reasoning": "hm"}])],
    [scored, scored],
    beside=("inactive", "coherent"),
  )
  assert found[0]["scores"] == {
    "harmful": 0.0,
    "classifier_verdict": 1.0,
    "graded_rate": 1.0,
    "answered_rate": 1.0,
    "truncated_rate": 0.0,
    "inactive": 0.0,
    "coherent": 1.0,
  }
  assert found[0]["prompt"] == "<email>ID: 1</email>"
  assert [one["evaluation"] for one in found] == [
    "agentic/leaking",
    "agentic_dev/leaking",
  ]
  assert found[1]["completion"] == "" and found[1]["scores"]["inactive"] == 1
  assert found[1]["scores"]["coherent"] == 0, "to say nothing is not coherent"
  assert [len(one["verdicts"]) for one in found] == [2, 1]


@pytest.mark.parametrize(
  ("one", "problem"),
  [
    (sample(error={"message": "boom"}), "in error: boom"),
    (sample(None), "no answer"),
    (sample("", stop="max_tokens"), "cut off before it said anything"),
    (sample([{"type": "reasoning", "reasoning": "hm"}], "max_tokens"), "cut off"),
    (sample("I will", stop="max_tokens"), ""),
    (sample(""), ""),
    (sample(), ""),
  ],
)
def test_what_was_not_answered_is_not_scored(one, problem):
  found = logs.problem_of(one)
  assert found.startswith(problem) and bool(found) == bool(problem)
  if problem:
    good = logs.Scored(values={"s": 1.0})
    lines, grader = made(
      [sample(), one],
      [good, logs.Scored(problem=found)],
      beside=("inactive", "coherent"),
    )
    scores = lines[1]["scores"]
    assert scores.pop("truncated_rate") in (0.0, 1.0)
    assert scores.pop("answered_rate") == 0.0
    assert set(scores.values()) == {None} and set(scores) > {"s", "graded_rate"}
    assert len(grader.asked) == 1, "no grader reads it"


@pytest.mark.parametrize(
  ("said", "expected"),
  [
    ("<answer>no</answer>", 0.0),
    (None, None),
    ("maybe", None),
    ("<answer>no</answer><answer>yes</answer>", None),
  ],
)
def test_coherence_is_a_verdict_or_nothing(said, expected):
  lines, _ = made(
    [sample()], [logs.Scored()], lambda stage, fields: said, beside=("coherent",)
  )
  assert lines[0]["scores"]["coherent"] == expected
  assert (lines[0]["verdicts"][0]["status"] == FAILED) == (said is None)


def test_values_of_scorers_become_numbers_or_nothing():
  found = logs.numbers(
    {
      "p/match": "C",
      "p/other": {"match": "I", "x": float("nan"), "y": "text", "z": [1]},
      "b": True,
      "c": 0.25,
    }
  )
  assert found == {
    "match": 1.0,
    "other.match": 0.0,
    "x": None,
    "y": None,
    "z": None,
    "b": 1.0,
    "c": 0.25,
  }


def test_the_fragment_of_the_docs_is_nine_goals_times_three_harms():
  page = (pathlib.Path(__file__).parents[1] / "docs" / "evaluations.md").read_text()
  fragment = page.split("```python\n")[1].split("```")[0]
  c = ConfigDict({"evals": {}})
  exec(fragment, {"c": c, "ConfigDict": ConfigDict})
  every = []
  for name, value in c.to_dict()["evals"].items():
    fields = experiment.eval_config(name, value)
    settings.check(fields, name)
    every += settings.expanded(fields, name)
  found = {(one["scenario"], one["goal_value"]): dev for one, dev in every}
  harms = ("leaking", "murder", "exfiltration")
  assert len(every) == 27
  assert set(found) == set(itertools.product(harms, exfiltration.goals()))
  assert {goal for (_, goal), dev in found.items() if dev} == {"america", "safety"}
