"""Two measures against one another: which arms no other arm beats on both."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax.report import curves, statistics
from msm_jax.report.curve_settings import Axis, Pareto
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
  """Where an arm lies on an axis: `value` None is not known; a dose has no interval."""

  value: float | None
  interval: tuple[float, float] | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """An arm; `beaten_by` names the arms that are better on one side and no worse on
  the other, by their means.
  """

  arm: str
  x: Side
  y: Side
  beaten_by: tuple[str, ...]

  @property
  def is_known(self) -> bool:
    return self.x.value is not None and self.y.value is not None

  @property
  def is_on_front(self) -> bool:
    return self.is_known and not self.beaten_by


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
  """A plot with its numbers; `shares`: whether x and y are shown in per cent."""

  plot: Pareto
  places: tuple[Place, ...]
  shares: tuple[bool, bool]

  def to_json(self) -> dict[str, Any]:
    """Returns the places as plain JSON values."""
    return {
      "title": self.plot.title,
      "x": dataclasses.asdict(self.plot.x),
      "y": dataclasses.asdict(self.plot.y),
      "arms": {
        place.arm: {
          "x": place.x.value,
          "y": place.y.value,
          "on_front": place.is_on_front,
          "beaten_by": list(place.beaten_by),
        }
        for place in self.places
      },
    }


def read(
  plot: Pareto, results: Results, settings: Settings, rows: Mapping[str, Any]
) -> Drawn:
  """Returns where each arm lies; `rows`: stage -> manifest of its rows."""
  found = {
    arm: tuple(_side(axis, arm, results, settings, rows) for axis in (plot.x, plot.y))
    for arm in plot.arms
  }
  return Drawn(
    plot=plot,
    places=tuple(
      Place(arm=arm, x=x, y=y, beaten_by=beaten_by(plot, arm, found))
      for arm, (x, y) in found.items()
    ),
    shares=tuple(
      axis.evaluation is not None and results.is_share(axis.evaluation, axis.metric)
      for axis in (plot.x, plot.y)
    ),
  )


def beaten_by(
  plot: Pareto, arm: str, sides: Mapping[str, Sequence[Side]]
) -> tuple[str, ...]:
  """Returns the arms that are no worse than `arm` on both axes and better on one."""
  signs = [1 if axis.better == "higher" else -1 for axis in (plot.x, plot.y)]
  own = [side.value for side in sides[arm]]
  if None in own:
    return ()
  found = []
  for other, pair in sides.items():
    theirs = [side.value for side in pair]
    if None in theirs:
      continue
    gains = [s * (b - a) for s, a, b in zip(signs, own, theirs, strict=True)]
    if min(gains) >= 0 and max(gains) > 0:
      found.append(other)
  return tuple(found)


def _side(
  axis: Axis,
  arm: str,
  results: Results,
  settings: Settings,
  rows: Mapping[str, Any],
) -> Side:
  if axis.evaluation is not None:
    estimate: statistics.Estimate = results.estimate(arm, axis.evaluation, axis.metric)
    return Side(value=estimate.mean, interval=estimate.interval)
  if arm in axis.doses:
    return Side(value=axis.doses[arm], interval=None)
  if not axis.corpora:
    return Side(value=None, interval=None)
  dose = curves.dose_of(arm, axis.unit, axis.corpora, settings, rows)
  return Side(value=dose, interval=None)
