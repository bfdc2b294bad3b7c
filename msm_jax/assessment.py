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

from msm_jax import distributed, graded, progress, workers
from msm_jax.analysis import Analysis
from msm_jax.errors import UserError
from msm_jax.evals import agreement, grading, judge, reasoning_patterns
from msm_jax.evaluation import Evaluation
from msm_jax.experiment import Experiment
from msm_jax.second_opinions import SecondOpinions


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

  @functools.cached_property
  def second(self) -> SecondOpinions:
    """Compares two graders."""
    return SecondOpinions(self.evaluation, self.config)

  def run(self) -> None:
    """Asks and grades what is missing.

    Raises:
      UserError, Stopped: what was asked is kept; a rerun goes on.
    """
    found, arms, seeds = self.evaluation, self.arms, self.seeds
    self.check()
    # A list: every process looks at all of them.
    missing = any([found.missing(arm, seed) for arm in arms for seed in seeds])
    if not missing and not self.second.is_wanted():
      progress.say("evaluate: done")
    unasked = any([found.unasked(arm, seed) for arm in arms for seed in seeds])
    if unasked and not workers.deal("evaluate", seeds, self.experiment.num_workers):
      found.ask_all(seeds, arms)
    if not workers.is_worker():
      with distributed.together():
        if distributed.is_first():
          self._grade()
          self.second.compare()
          self._analyse()

  def check(self) -> None:
    """Refuses what could not be graded, or what another grader has graded.

    Raises:
      UserError: see there.
    """
    for one in self.experiment.asked.values():
      one.text(self.experiment.specs)  # refuses a spec that cannot be read
    names = graded.names(self.experiment)
    if not (names or self.experiment.analyses) or workers.is_worker():
      return
    with distributed.together():
      if distributed.is_first():
        digests = graded.digests(self.experiment, self.config)
        # A list: every file is looked at.
        open_ = [name for name in names if self._is_open(name, digests[name])]
        analyses_open = any(not one.is_done() for one in self._analyses())
        roles = [agreement.JUDGE] * bool(open_ or analyses_open)
        roles += [agreement.SECOND] * self.second.is_wanted()
        used = {graded.spec_of(self.experiment, name) for name in names} - {None}
        judge.check(self.config, roles, sorted(used))

  def _grade(self) -> None:
    if self.evaluation.ungraded(self.seeds, self.arms):
      digests = graded.digests(self.experiment, self.config)
      with judge.open_grader(self.config, self.workdir) as grader:
        self.evaluation.grade_all(self.seeds, self.arms, grader, digests)

  def _analyse(self) -> None:
    """Makes the analyses for which every arm and seed of the study is there."""
    for one in self._analyses():
      waits_for = one.missing()
      if waits_for:
        progress.say(
          f"{one.name}: waits for {len(waits_for)} sets of scores, as "
          f"{waits_for[0].name}"
        )
      elif not one.is_done():
        with judge.open_grader(self.config, self.workdir) as grader:
          one.run(grader)

  def _analyses(self) -> list[Analysis]:
    if not self.experiment.analyses:
      return []
    stages = reasoning_patterns.STAGES
    grading_of = judge.identity(self.config, agreement.JUDGE, stages, None)
    is_rehearsal = self.config[agreement.JUDGE]["client"] == "offline"
    prefix = grading.REHEARSAL if is_rehearsal else ""
    return [
      Analysis(self.evaluation, name, grading_of, prefix)
      for name in self.experiment.analyses
    ]

  def _is_open(self, name: str, grading: str) -> bool:
    """Returns whether answers of an evaluation are to be graded, or still to come."""
    found = False
    for arm in self.arms:
      for seed in self.seeds if name in self.experiment.evaluations(arm) else ():
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
