"""What the config asks for beside the tables: curves, Pareto plots, a paper's numbers,
differences to a reference arm; and how far two graders agree.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any

from msm_jax.report import agreement, curve_plots, curves, pareto, plots, statistics
from msm_jax.report import paper as paper_lib
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings

Column = tuple[str, str]  # evaluation, metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extras:
  """Everything that was asked for, as numbers.

  Attributes:
    paper: (evaluation, metric) -> pairs.
    shares: those of them that are shown in per cent.
    differences: (arm, evaluation, metric) -> the arm minus the reference.
    agreement: evals/agreement.json, None without one.
  """

  curves: tuple[curves.Drawn, ...]
  pareto: tuple[pareto.Drawn, ...]
  paper: Mapping[Column, list[paper_lib.Pair]]
  shares: frozenset[Column]
  differences: Mapping[tuple[str, str, str], statistics.Estimate]
  agreement: Mapping[str, Any] | None

  def to_json(self) -> dict[str, Any]:
    """Returns the parts of summary.json that were asked for."""
    found = {
      "curves": [drawn.to_json() for drawn in self.curves],
      "pareto": [drawn.to_json() for drawn in self.pareto],
      "paper": [pair.to_json() for pairs in self.paper.values() for pair in pairs],
      "reference": [
        {"arm": arm, "evaluation": evaluation, "metric": metric}
        | estimate.to_json()
        | {"includes_zero": estimate.includes_zero}
        for (arm, evaluation, metric), estimate in self.differences.items()
      ],
      "agreement": self.agreement,
    }
    return {key: value for key, value in found.items() if value}


def read(
  workdir: pathlib.Path,
  results: Results,
  settings: Settings,
  rows: Mapping[str, Any],
) -> Extras:
  """Returns what `settings` asks for; `rows`: stage -> manifest of its rows."""
  pairs: dict[Column, list[paper_lib.Pair]] = {}
  for pair in paper_lib.compare(settings.paper, results):
    pairs.setdefault((pair.evaluation, pair.metric), []).append(pair)
  return Extras(
    curves=tuple(curves.read(c, results, settings, rows) for c in settings.curves),
    pareto=tuple(pareto.read(p, results, settings, rows) for p in settings.pareto),
    paper=pairs,
    shares=frozenset(column for column in pairs if results.is_share(*column)),
    differences=_differences(results, settings),
    agreement=agreement.read(workdir),
  )


def _differences(
  results: Results, settings: Settings
) -> dict[tuple[str, str, str], statistics.Estimate]:
  reference = settings.reference
  if reference is None:
    return {}
  columns = [(name, key) for name, keys in results.metrics.items() for key in keys]
  return {
    (arm, *column): results.difference(arm, reference, *column)
    for arm, column in itertools.product(settings.arms, columns)
    if arm != reference
  }


def draw(found: Extras) -> dict[str, list[plots.Plot]]:
  """Returns section -> plots; what has no number to show is not drawn."""
  named = curve_plots.file_name
  return {
    "curves": [
      curve_plots.dose_curve(named("curve", i, drawn.curve.title), drawn)
      for i, drawn in enumerate(found.curves)
      if any(
        point.dose is not None and point.estimate.mean is not None
        for line in drawn.lines.values()
        for point in line
      )
    ],
    "pareto": [
      curve_plots.pareto_plot(named("pareto", i, drawn.plot.title), drawn)
      for i, drawn in enumerate(found.pareto)
      if any(place.is_known for place in drawn.places)
    ],
    "paper": [
      curve_plots.paper_plot(
        named("paper", i, f"{column[0]} {column[1]}"), pairs, column in found.shares
      )
      for i, (column, pairs) in enumerate(found.paper.items())
    ],
  }
