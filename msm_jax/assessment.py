"""`evaluate` as a whole: models are asked, then graders read what they said.

What could not be graded is refused before a model is asked: no key, no price within a
budget, a spec that cannot be read. Worker processes ask models; the first process alone
asks graders.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import distributed, progress, workers
from msm_jax import experiment as experiment_lib
from msm_jax.errors import UserError
from msm_jax.evals import judge
from msm_jax.evals.kinds import KINDS
from msm_jax.evaluation import Evaluation
from msm_jax.experiment import Experiment

JUDGE = "judge"  # a section of the config


@dataclasses.dataclass(frozen=True)
class Assessment:
  """Evaluations of some arms and seeds.

  Attributes:
    experiment: what is evaluated.
    workdir: where.
    config: the whole config, as plain dicts: who grades, and which specs.
    seeds, arms: what is asked for.
  """

  experiment: Experiment
  workdir: pathlib.Path
  config: Mapping[str, Any]
  seeds: Sequence[int]
  arms: Sequence[str]

  @functools.cached_property
  def evaluation(self) -> Evaluation:
    """Asks the models."""
    return Evaluation(self.experiment, self.workdir)

  def run(self) -> None:
    """Asks and grades what is missing.

    Raises:
      UserError, Stopped: what was asked is kept; a rerun goes on.
    """
    found, arms, seeds = self.evaluation, self.arms, self.seeds
    self.check()
    # A list: every process looks at all of them.
    if not any([found.missing(arm, seed) for arm in arms for seed in seeds]):
      return progress.say("evaluate: done")
    unasked = any([found.unasked(arm, seed) for arm in arms for seed in seeds])
    if unasked and not workers.deal("evaluate", seeds, self.experiment.num_workers):
      found.ask_all(seeds, arms)
    if not workers.is_worker():
      with distributed.together():
        if distributed.is_first():
          self._grade()
    return None

  def check(self) -> None:
    """Refuses what could not be graded, or what another grader has graded.

    Raises:
      UserError: see there.
    """
    graded = self._graded()
    if not graded or workers.is_worker():
      return
    with distributed.together():
      if distributed.is_first():
        gradings = self._gradings()
        open_ = [name for name in graded if self._is_open(name, gradings[name])]
        if open_:
          used = {spec for name in open_ if (spec := self._spec(name)) is not None}
          judge.check(self.config, (JUDGE,), sorted(used))

  def _grade(self) -> None:
    if self.evaluation.ungraded(self.seeds, self.arms):
      with judge.open_grader(self.config, self.workdir, JUDGE) as grader:
        self.evaluation.grade_all(self.seeds, self.arms, grader, self._gradings())

  def _graded(self) -> list[str]:
    """Returns the evaluations that take a grader."""
    evals = self.experiment.evals
    return [name for name, value in evals.items() if KINDS[value["type"]].grade]

  def _gradings(self) -> dict[str, str]:
    """Returns evaluation -> digest of grader, prompts and spec."""
    found = {}
    for name in self._graded():
      stages = KINDS[self.experiment.evals[name]["type"]].stages
      asked = [] if stages is None else [one.name for one in stages(self._fields(name))]
      found[name] = judge.identity(self.config, JUDGE, asked, self._spec(name))
    return found

  def _fields(self, name: str) -> Any:
    return experiment_lib.eval_config(name, self.experiment.evals[name])

  def _spec(self, name: str) -> str | None:
    return getattr(self._fields(name), "spec", None)

  def _is_open(self, name: str, grading: str) -> bool:
    """Returns whether answers of an evaluation are to be graded, or still to come."""
    found = False
    for arm in self.arms:
      for seed in self.seeds:
        path = self.evaluation.eval_path(name, arm, seed)
        if not path.exists():
          found = True
          continue
        with path.open(encoding="utf-8") as file:
          first = json.loads(file.readline() or "{}")
        if first.get("grading") != grading:
          raise UserError(
            f"{path} was graded by another grader, with other prompts or by another "
            f"spec: delete {path.parent}/{name}.*.jsonl to have the answers, which are "
            "kept, graded again, or set config.judge back"
          )
    return found
