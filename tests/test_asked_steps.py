"""Checkpoints on the way as arms of their own: `config.asked.<name>.step`."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
import small_study

from msm_jax import asked, evaluation, experiment, subjects
from msm_jax.errors import UserError
from msm_jax.models import lora


@pytest.fixture(scope="module")
def steps() -> evaluation.Evaluation:
  """The trained study, with two steps of its arm `msm` and one of `msm+still`."""
  study = small_study.trained().study
  config = small_study.config(study.experiment.model.init_from, seeds=(0, 1))
  config["asked"] = {
    "msm_1": {"of": "msm", "step": 1},
    "msm_2": {"of": "msm", "step": 2},
    "still_1": {"of": "msm+still", "step": 1},
  }
  sizes = {"max_items": 4, "seq_len": 32, "batch_size": 2}
  config["evals"] = {"kept": {"type": "heldout", "corpus": "msm", **sizes}}
  parsed = experiment.parse(config)
  return evaluation.Evaluation(parsed, study.workdir)


def test_a_step_has_the_weights_of_its_checkpoint(steps):
  found = {name: subjects.open_(steps, name, 0) for name in ("msm", "msm_1", "msm_2")}
  direct = steps.weights(("msm",), 0, 1)
  jax.tree.map(
    np.testing.assert_array_equal, found["msm_1"].model.params, direct.params
  )
  moved = [_moved(one.model.params) for one in found.values()]
  assert moved[1] < moved[2] < moved[0]
  last = steps.last_step(("msm",), 0)
  assert [one.about["step"] for one in found.values()] == [last, 1, 2]
  assert found["msm_2"].about["asked"] == "msm, at step 2 of its last stage"
  assert found["msm_1"].differs_in_text and found["msm_1"].system_prompt is None


def _moved(params: Any) -> float:
  """Returns how large the adapters' second factors are, which begin at zero."""
  adapter, _ = lora.split(params)
  return sum(
    float(np.abs(leaf).sum())
    for path, leaf in jax.tree_util.tree_leaves_with_path(adapter)
    if jax.tree_util.keystr(path).endswith("_b']")
  )


def test_answers_of_steps_are_told_apart_and_every_evaluation_is_asked(steps):
  names = ("msm", "msm_1", "msm_2")
  assert len({steps._identity("kept", name, 0) for name in names}) == 3
  assert steps.experiment.evaluations("msm_1") == ["kept"]
  assert steps.experiment.subject_path("still_1") == ("msm", "still")
  assert [*steps.experiment.subjects] == [
    *("base", "msm", "msm_1", "msm_2", "msm+still", "still_1")
  ]


def test_a_step_of_an_unfinished_run_is_not_used(steps):
  with pytest.raises(UserError, match="is not finished"):
    subjects.open_(steps, "still_1", 1)


def _parsed(kept: Any = "log2", **fields: Any) -> dict[str, asked.AskedConfig]:
  config = small_study.config("there")
  config["stages"]["msm"] = config["stages"]["msm"] | {"checkpoint_at": kept}
  config["asked"] = {"early": {"of": "msm", **fields}}
  return asked.parse(config)


def test_steps_that_the_stage_keeps_are_allowed():
  assert _parsed(step=64)["early"].step == 64
  assert _parsed(kept=(48, "log2"), step=48)["early"].is_other_model
  behind = _parsed(step=4, system_prompt="be kind")["early"]
  assert (
    behind.says() == "msm, at step 4 of its last stage and asked behind a system prompt"
  )
  assert dataclasses.replace(behind, step=None).is_other_model is False


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"step": 48}, r"early\.step is 48, which config\.stages\.msm\.checkpoint_at"),
    ({"step": 4, "kept": (48,)}, "does not keep: add it there"),
    ({"step": 4, "kept": ()}, "does not keep"),
    ({"step": 0}, r"early\.step \(0\) must be a step from 1 on"),
    ({"step": True}, r"early\.step \(True\) must be a step"),
    ({"step": 1, "of": "base"}, "'base' has no stage, no steps"),
    ({}, "once more: give it a system_prompt or steer, or a step"),
  ],
)
def test_a_step_that_cannot_be_asked_is_named(fields: dict, message: str):
  with pytest.raises(UserError, match=message):
    _parsed(**fields)
