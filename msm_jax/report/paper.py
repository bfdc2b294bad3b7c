"""The numbers of a paper beside ours."""

import dataclasses
from typing import Any

from msm_jax.report import statistics
from msm_jax.report.curve_settings import Paper
from msm_jax.report.results import Results


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
  """Our estimate and the paper's number for an arm on one metric."""

  arm: str
  evaluation: str
  metric: str
  paper: float
  ours: statistics.Estimate

  @property
  def difference(self) -> statistics.Estimate:
    """Ours minus the paper's, whose number is taken as it stands."""
    found = self.ours
    bounds = found.interval
    return dataclasses.replace(
      found,
      values={seed: value - self.paper for seed, value in found.values.items()},
      mean=None if found.mean is None else found.mean - self.paper,
      interval=None if bounds is None else tuple(b - self.paper for b in bounds),
    )

  def to_json(self) -> dict[str, Any]:
    """Returns the pair as plain JSON values."""
    difference = self.difference
    return {
      "arm": self.arm,
      "evaluation": self.evaluation,
      "metric": self.metric,
      "paper": self.paper,
      "ours": self.ours.to_json(),
      "difference": difference.mean,
      "includes_paper": difference.includes_zero,
    }


def compare(paper: Paper | None, results: Results) -> list[Pair]:
  """Returns a pair for every number of the paper, in the config's order."""
  return [
    Pair(
      arm=arm,
      evaluation=evaluation,
      metric=metric,
      paper=value,
      ours=results.estimate(arm, evaluation, metric),
    )
    for (arm, evaluation, metric), value in (paper.values if paper else {}).items()
  ]
