"""What the config asks for beside the tables: contrasts on evaluations of their own,
curves, Pareto plots, grids, papers' numbers, differences to a reference arm; and how
far two graders agree.
"""

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax.report import (
  agreement,
  curve_plots,
  curves,
  factorial,
  grid_plots,
  pareto,
  plots,
  statistics,
)
from msm_jax.report import contrasts as contrasts_lib
from msm_jax.report import paper as paper_lib
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Extras:
  """Everything that was asked for, as numbers.

  Attributes:
    own: contrasts with an evaluation of their own.
    differences: (arm, evaluation, metric) -> the arm minus the reference.
    agreement: evals/agreement.json, None without one.
  """

  own: tuple[contrasts_lib.Contrast, ...]
  curves: tuple[curves.Drawn, ...]
  pareto: tuple[pareto.Drawn, ...]
  grids: tuple[factorial.Drawn, ...]
  papers: tuple[paper_lib.Drawn, ...]
  differences: Mapping[tuple[str, str, str], statistics.Estimate]
  agreement: Mapping[str, Any] | None

  def to_json(self) -> dict[str, Any]:
    """Returns the parts of summary.json that were asked for."""
    found = {
      "curves": [drawn.to_json() for drawn in self.curves],
      "pareto": [drawn.to_json() for drawn in self.pareto],
      "grids": [drawn.to_json() for drawn in self.grids],
      "paper": [pair for drawn in self.papers for pair in drawn.to_json()],
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
  return Extras(
    own=tuple(contrasts_lib.own(results, settings)),
    curves=tuple(curves.read(c, results, settings, rows) for c in settings.curves),
    pareto=tuple(pareto.read(p, results, settings, rows) for p in settings.pareto),
    grids=tuple(factorial.read(grid, results, settings) for grid in settings.grids),
    papers=tuple(paper_lib.read(paper, results, settings) for paper in settings.papers),
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
    "own": _own_forests(found.own),
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
    "grids": [
      grid_plots.grid_plot(named("grid", i, drawn.grid.title), drawn)
      for i, drawn in enumerate(found.grids)
      if drawn.is_measured
    ],
    **_paper_plots(found.papers),
  }


def _own_forests(contrasts: Sequence[contrasts_lib.Contrast]) -> list[plots.Plot]:
  """Returns a figure for each unit; a contrast without a result stands in none."""
  grouped: dict[str, list[contrasts_lib.Contrast]] = {}
  for contrast in contrasts:
    if contrast.estimate.mean is not None:
      unit = "points" if contrast.is_share else contrast.metric
      grouped.setdefault(unit, []).append(contrast)
  return [
    plots.contrast_forest(
      rows,
      rows[0].is_share,
      name=curve_plots.file_name("own_contrasts", i, unit),
      about=" on evaluations of their own",
    )
    for i, (unit, rows) in enumerate(grouped.items())
  ]


def _paper_plots(papers: Sequence[paper_lib.Drawn]) -> dict[str, list[plots.Plot]]:
  """Returns 'paper 0', 'paper 1', ... -> plots; the figures are numbered throughout."""
  number, found = 0, {}
  for i, drawn in enumerate(papers):
    own = found[f"paper {i}"] = []
    for sheet in drawn.sheets:
      about = f"{sheet.title} {sheet.unit.split(', %')[0].removesuffix(', mean')}"
      name = curve_plots.file_name("paper", number, about)
      own.append(curve_plots.paper_plot(name, sheet))
      number += 1
  return found
