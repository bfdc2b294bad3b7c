"""Differences between arms, paired by seed, and differences of such differences."""

import dataclasses
from typing import Any

from msm_jax.report import statistics
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
  """`a` minus `b` on one metric of one evaluation.

  Attributes:
    a, b: arms, or labels of contrasts when `is_difference`.
    estimate: over the seeds that both sides have.
    missing_seeds: seeds of the study that one side lacks.
  """

  label: str
  a: str
  b: str
  is_difference: bool
  evaluation: str
  metric: str
  estimate: statistics.Estimate
  missing_seeds: tuple[int, ...]

  def to_json(self) -> dict[str, Any]:
    """Returns the contrast as plain JSON values."""
    found = self.estimate
    return {
      "label": self.label,
      "a": self.a,
      "b": self.b,
      "evaluation": self.evaluation,
      "metric": self.metric,
      **found.to_json(),
      "includes_zero": found.includes_zero,
      "num_positive": found.num_positive,
      "num_negative": found.num_negative,
      "seeds": {str(seed): value for seed, value in found.values.items()},
      "missing_seeds": list(self.missing_seeds),
    }


def compare(
  results: Results, settings: Settings, evaluation: str, metric: str
) -> list[Contrast]:
  """Returns the contrasts and then the differences of the config on one metric."""
  found: dict[str, Contrast] = {}
  rows = [(row, False) for row in settings.contrasts]
  rows += [(row, True) for row in settings.differences]
  for (label, a, b), is_difference in rows:
    if is_difference:
      sides = (found[a].estimate.values, found[b].estimate.values)
      estimate = statistics.paired_difference(*sides)
    else:
      estimate = results.difference(a, b, evaluation, metric)
    found[label] = Contrast(
      label=label,
      a=a,
      b=b,
      is_difference=is_difference,
      evaluation=evaluation,
      metric=metric,
      estimate=estimate,
      missing_seeds=tuple(s for s in settings.seeds if s not in estimate.values),
    )
  return list(found.values())
