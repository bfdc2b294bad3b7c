"""Differences between arms, paired by seed, and differences of such differences."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from msm_jax.errors import UserError
from msm_jax.report import statistics
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings

Column = tuple[str, str]  # evaluation, metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contrast:
  """`a` minus `b` on one metric of one evaluation.

  Attributes:
    a, b: arms, or labels of contrasts when `is_difference`.
    evaluation, metric: 'x - y' for a difference of contrasts on two of them.
    estimate: over the seeds that both sides have.
    missing_seeds: seeds of the study that one side lacks.
    is_share: shown in points.
  """

  label: str
  a: str
  b: str
  is_difference: bool
  evaluation: str
  metric: str
  estimate: statistics.Estimate
  missing_seeds: tuple[int, ...]
  is_share: bool = False

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
  """Returns the contrasts and then the differences of the config on one metric.

  Those that the config puts on an evaluation of their own are not among them.
  """
  column = (evaluation, metric)
  found: dict[str, Contrast] = {}
  for label, a, b in settings.contrasts:
    found[label] = _between_arms(results, settings, (label, a, b), column)
  for label, a, b in settings.differences:
    found[label] = _between(results, settings, label, found[a], found[b])
  return list(found.values())


def own(results: Results, settings: Settings) -> list[Contrast]:
  """Returns the contrasts with an evaluation of their own, then their differences.

  Raises:
    UserError: a difference has a share on one side and another unit on the other.
  """
  found = {
    label: _between_arms(results, settings, (label, a, b), tuple(column))
    for label, a, b, *column in settings.own_contrasts
  }
  general = {row[0]: row for row in settings.contrasts}
  for label, a, b in settings.own_differences:
    column = next((c.evaluation, c.metric) for c in _known((a, b), found))
    sides = [
      found[name]
      if name in found
      else _between_arms(results, settings, general[name], column)
      for name in (a, b)
    ]
    found[label] = _between(results, settings, label, *sides)
  return list(found.values())


def _known(labels: tuple[str, str], found: Mapping[str, Contrast]) -> list[Contrast]:
  return [found[label] for label in labels if label in found]


def _between_arms(
  results: Results, settings: Settings, row: tuple[str, str, str], column: Column
) -> Contrast:
  label, a, b = row
  estimate = results.difference(a, b, *column)
  return Contrast(
    label=label,
    a=a,
    b=b,
    is_difference=False,
    evaluation=column[0],
    metric=column[1],
    estimate=estimate,
    missing_seeds=_missing(settings, estimate),
    is_share=results.is_share(*column),
  )


def _between(
  results: Results, settings: Settings, label: str, a: Contrast, b: Contrast
) -> Contrast:
  measured = all(
    side.metric in results.metrics.get(side.evaluation, ()) for side in (a, b)
  )
  if measured and a.is_share != b.is_share:
    raise UserError(
      f"config.report.differences, {label!r}: {a.label!r} is on {a.evaluation} "
      f"{a.metric} and {b.label!r} on {b.evaluation} {b.metric}, of which only one is "
      "a share: their difference has no unit"
    )
  estimate = statistics.paired_difference(a.estimate.values, b.estimate.values)
  return Contrast(
    label=label,
    a=a.label,
    b=b.label,
    is_difference=True,
    evaluation=_joined(a.evaluation, b.evaluation),
    metric=_joined(a.metric, b.metric),
    estimate=estimate,
    missing_seeds=_missing(settings, estimate),
    is_share=a.is_share and b.is_share,
  )


def _joined(a: str, b: str) -> str:
  return a if a == b else f"{a} - {b}"


def _missing(settings: Settings, estimate: statistics.Estimate) -> tuple[int, ...]:
  return tuple(seed for seed in settings.seeds if seed not in estimate.values)
