"""Levels against doses, and how much of a dose midtraining stands for."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax.report import statistics, within
from msm_jax.report.curve_settings import Curve
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings

MIN_SEEDS = 3  # for an interval of a ratio; two seeds can be drawn in three ways only


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
  """An arm on a line; `dose` is None where the rows say nothing."""

  arm: str
  dose: float | None
  estimate: statistics.Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ratio:
  """How much more of the dose the line without needs for the level of a point with.

  Attributes:
    arm, dose, level: the point of the line with.
    status: 'found'; 'below' (its smallest dose is at the level already: `value` is an
      upper bound); 'not reached' (by no dose that was tried: `value` is a lower bound);
      'no result'.
    value: the dose without over the dose with.
    interval: 95 % over seeds; inf for 'not reached'. None with too few seeds.
    share_reached: of the draws of seeds in which the level was reached.
    num_seeds: that every point of both lines has.
  """

  arm: str
  dose: float
  level: float | None
  status: str
  value: float | None
  interval: tuple[float, float] | None
  share_reached: float | None
  num_seeds: int

  def to_json(self) -> dict[str, Any]:
    """Returns plain JSON values; a bound of None is 'not reached'."""
    bounds = self.interval
    return dataclasses.asdict(self) | {
      "interval": None
      if bounds is None
      else [bound if math.isfinite(bound) else None for bound in bounds]
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
  """A curve with its numbers."""

  curve: Curve
  lines: Mapping[str, tuple[Point, ...]]
  ratios: tuple[Ratio, ...]
  is_share: bool

  def to_json(self) -> dict[str, Any]:
    """Returns the curve as plain JSON values."""
    return {
      "title": self.curve.title,
      "evaluation": self.curve.evaluation,
      "metric": self.curve.metric,
      "unit": self.curve.unit,
      "lines": {
        label: [
          {"arm": point.arm, "dose": point.dose, **point.estimate.to_json()}
          for point in points
        ]
        for label, points in self.lines.items()
      },
      "ratios": [ratio.to_json() for ratio in self.ratios],
    }


def read(
  curve: Curve, results: Results, settings: Settings, rows: Mapping[str, Any]
) -> Drawn:
  """Returns a curve's points and ratios.

  Args:
    curve: what is asked for.
    results: of the arms.
    settings: the study's.
    rows: stage -> manifest of its rows.
  """
  column = (curve.evaluation, curve.metric)
  lines = {
    label: _sorted(
      Point(
        arm=arm,
        dose=dose_of(arm, curve.unit, curve.corpora, settings, rows)
        if dose is None
        else dose,
        estimate=results.estimate(arm, *column),
      )
      for arm, dose in points.items()
    )
    for label, points in curve.lines.items()
  }
  ratios: tuple[Ratio, ...] = ()
  if curve.compare:
    with_, without = (lines[label] for label in curve.compare)
    ratios = equivalent(with_, without, higher=curve.better == "higher")
  is_share = results.is_share(*column)
  return Drawn(curve=curve, lines=lines, ratios=ratios, is_share=is_share)


def _sorted(points) -> tuple[Point, ...]:
  return tuple(sorted(points, key=lambda p: -1 if p.dose is None else p.dose))


def dose_of(
  arm: str,
  unit: str,
  corpora: Sequence[str],
  settings: Settings,
  rows: Mapping[str, Any],
) -> float | None:
  """Returns what of `corpora` the stages of an arm see in a run; None if not known.

  Rows are those used; tokens are those that the corpus packs into, times its epochs.
  """
  total = 0.0
  for stage in settings.arms[arm]:
    parts = (rows.get(stage) or {}).get("components")
    if parts is None:
      return None
    for part in parts:
      if part.get("corpus") not in corpora:
        continue
      fields = ("count",) if unit == "rows" else (f"num_{unit}", "epochs")
      if any(part.get(field) is None for field in fields):
        return None
      total += math.prod(part[field] for field in fields)
  return total


def equivalent(
  with_: Sequence[Point], without: Sequence[Point], *, higher: bool
) -> tuple[Ratio, ...]:
  """Returns a ratio for every point of the line `with_` that has a dose above zero.

  The level of a line between two doses is taken as linear in the log of the dose; what
  counts is the smallest dose at which it comes to the level. The interval is over
  seeds: they are drawn again, the same for all arms, and the ratio of the drawn means
  is found anew; its bounds are the 2.5th and 97.5th percentile, with every draw that
  does not reach the level as an infinite ratio (so that percentiles, not BCa, which
  needs finite ones).
  """
  lines = [
    [p for p in line if p.dose is not None and p.estimate.values]
    for line in (with_, without)
  ]
  points = [point for line in lines for point in line]
  shared = [set(point.estimate.values) for point in points]
  seeds = sorted(set.intersection(*shared)) if all(lines) else []
  sign = 1.0 if higher else -1.0
  matrices = [
    sign * np.array([[p.estimate.values[s] for p in line] for s in seeds])
    for line in lines
  ]
  doses = [np.array([p.dose for p in line]) for line in lines]
  return tuple(
    _ratio(point, i, len(seeds), matrices, doses, sign)
    for i, point in enumerate(lines[0])
    if point.dose > 0
  )


def _ratio(point, i, num_seeds, matrices, doses, sign) -> Ratio:
  tried = doses[1][doses[1] > 0]
  if not num_seeds or not len(tried):
    return Ratio(
      arm=point.arm, dose=point.dose, level=None, status="no result", value=None,
      interval=None, share_reached=None, num_seeds=num_seeds,
    )  # fmt: skip
  weights = np.full((1, num_seeds), 1 / num_seeds)
  levels, lines = (weights @ matrix for matrix in matrices)
  reached = first_dose(doses[1], lines, levels[:, i])[0]
  status, value = "found", reached / point.dose
  if math.isinf(reached):
    status, value = "not reached", tried.max() / point.dose
  elif reached <= tried.min():
    status, value = "below", tried.min() / point.dose
  bounds = share = None
  if num_seeds >= MIN_SEEDS:
    weights = within.draws(num_seeds) / num_seeds
    levels, lines = (weights @ matrix for matrix in matrices)
    drawn = first_dose(doses[1], lines, levels[:, i])
    share = float(np.isfinite(drawn).mean())
    places = [0.5 - statistics.CONFIDENCE / 2, 0.5 + statistics.CONFIDENCE / 2]
    found = np.quantile(drawn, places, method="inverted_cdf") / point.dose
    bounds = (float(found[0]), float(found[1]))
  return Ratio(
    arm=point.arm,
    dose=point.dose,
    level=float(sign * (np.full(num_seeds, 1 / num_seeds) @ matrices[0])[i]),
    status=status,
    value=float(value),
    interval=bounds,
    share_reached=share,
    num_seeds=num_seeds,
  )


def first_dose(doses: np.ndarray, lines: np.ndarray, levels: np.ndarray) -> np.ndarray:
  """Returns the smallest dose at which each line comes to its level, [B].

  Between doses a line is linear in log dose; between zero and the first dose above it
  nothing is known, so what is at the level with none counts as the first dose.

  Args:
    doses: [K], ascending, not negative.
    lines: [B, K], larger is better.
    levels: [B].

  Returns:
    float64 [B]; inf where no dose comes to the level.
  """
  found = np.full(len(lines), np.inf)
  positive = np.flatnonzero(doses > 0)
  logs = np.log(doses[positive])
  first = positive[0]
  at_once = (lines[:, : first + 1] >= levels[:, None]).any(axis=1)
  found[at_once] = doses[first]
  for n in range(1, len(positive)):
    low, high = lines[:, positive[n - 1]], lines[:, positive[n]]
    crosses = np.isinf(found) & (high >= levels)
    rise = high[crosses] - low[crosses]  # above zero: `low` is below the level
    part = (levels[crosses] - low[crosses]) / rise
    found[crosses] = np.exp(logs[n - 1] + part * (logs[n] - logs[n - 1]))
  return found
