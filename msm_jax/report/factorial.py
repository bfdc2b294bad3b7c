"""Arms by two factors: levels, means of rows and columns, effects, interaction."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax.report import statistics
from msm_jax.report.grid_settings import Grid, Place
from msm_jax.report.paper_settings import Stated
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings
from msm_jax.report.statistics import Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """One arm of a grid.

  Attributes:
    estimate: its level.
    is_share: shown in per cent.
    is_measured: whether the study has any result on its evaluation and metric.
    paper: the number of the first paper that has one, else None.
  """

  place: Place
  estimate: Estimate
  is_share: bool
  is_measured: bool
  paper: Stated | None

  def to_json(self) -> dict[str, Any]:
    """Returns the cell as plain JSON values."""
    return {
      **dataclasses.asdict(self.place),
      **self.estimate.to_json(),
      "is_measured": self.is_measured,
      "paper": None if self.paper is None else self.paper.value,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Marginal:
  """A row or column as a whole.

  Attributes:
    mean: by seed over its cells, then over seeds.
    num_cells: that the mean is over.
    effect: it minus the first one, by seed, over the cells that both have; None for
      the first.
    num_pairs: of cells that the effect is over.
  """

  mean: Estimate
  num_cells: int
  effect: Estimate | None
  num_pairs: int

  def to_json(self) -> dict[str, Any]:
    """Returns the marginal as plain JSON values."""
    found: dict[str, Any] = {"mean": self.mean.to_json(), "num_cells": self.num_cells}
    if self.effect is not None:
      found["effect"] = _effect_json(self.effect) | {"num_pairs": self.num_pairs}
    return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
  """A grid with its numbers.

  Attributes:
    cells: [rows, columns]; None where the grid is empty.
    rows, columns: label -> marginal; {} where the cells have no common unit, or the
      grid has one row or column only.
    interaction: of a full two by two, else None.
  """

  grid: Grid
  cells: tuple[tuple[Cell | None, ...], ...]
  rows: Mapping[str, Marginal]
  columns: Mapping[str, Marginal]
  interaction: Estimate | None

  @property
  def known(self) -> list[Cell]:
    """The cells that are measured in this study."""
    return [cell for row in self.cells for cell in row if is_usable(cell)]

  @property
  def has_unit(self) -> bool:
    """Whether the cells can be averaged and drawn on one axis."""
    shares = {cell.is_share for cell in self.known}
    return shares == {True} or len({cell.place.column for cell in self.known}) == 1

  @property
  def is_share(self) -> bool:
    """Whether every measured cell is shown in per cent."""
    return all(cell.is_share for cell in self.known)

  @property
  def is_measured(self) -> bool:
    """Whether there is a number to draw."""
    known = (cell.estimate.mean is not None for cell in self.known)
    return self.has_unit and any(known)

  @property
  def has_paper(self) -> bool:
    """Whether a paper has a number for some measured cell."""
    return any(cell.paper is not None for cell in self.known)

  @property
  def unit(self) -> str:
    """The metric where all cells have one, with what it is counted in."""
    metrics = {cell.place.metric for cell in self.known}
    unit = "% of answers" if self.is_share else "mean"
    return f"{metrics.pop()}, {unit}" if len(metrics) == 1 else unit

  def to_json(self) -> dict[str, Any]:
    """Returns the grid as plain JSON values."""
    grid = self.grid
    return {
      "title": grid.title,
      "rows": list(grid.rows),
      "columns": list(grid.columns),
      "cells": [[cell and cell.to_json() for cell in row] for row in self.cells],
      "row_marginals": {name: each.to_json() for name, each in self.rows.items()},
      "column_marginals": {name: each.to_json() for name, each in self.columns.items()},
      "interaction": self.interaction and _effect_json(self.interaction),
    }


def read(grid: Grid, results: Results, settings: Settings) -> Drawn:
  """Returns the numbers of a grid."""
  cells = tuple(
    tuple(place and _cell(place, results, settings) for place in row)
    for row in grid.cells
  )
  drawn = Drawn(grid=grid, cells=cells, rows={}, columns={}, interaction=None)
  if not drawn.has_unit or len(grid.rows) == 1 or len(grid.columns) == 1:
    return drawn
  turned = list(zip(*cells, strict=True))
  return dataclasses.replace(
    drawn,
    rows=dict(zip(grid.rows, _marginals(cells), strict=True)),
    columns=dict(zip(grid.columns, _marginals(turned), strict=True)),
    interaction=_interaction(cells),
  )


def _cell(place: Place, results: Results, settings: Settings) -> Cell:
  key = (place.arm, *place.column)
  stated = (p.values[key] for p in settings.papers if key in p.values)
  return Cell(
    place=place,
    estimate=results.estimate(*key),
    is_share=results.is_share(*place.column),
    is_measured=place.metric in results.metrics.get(place.evaluation, ()),
    paper=next(stated, None),
  )


def is_usable(cell: Cell | None) -> bool:
  """Whether an arm stands there and its metric is measured in this study."""
  return cell is not None and cell.is_measured


def _marginals(lines: Sequence[Sequence[Cell | None]]) -> list[Marginal]:
  """Returns a marginal for each line, compared with the first one."""
  found = []
  for i, line in enumerate(lines):
    own = [cell for cell in line if is_usable(cell)]
    pairs = [
      (cell, other)
      for cell, other in zip(line, lines[0], strict=True)
      if is_usable(cell) and is_usable(other)
    ]
    marginal = Marginal(
      mean=_combined([(cell, 1.0) for cell in own], len(own)),
      num_cells=len(own),
      effect=_contrast(pairs) if i else None,
      num_pairs=len(pairs),
    )
    found.append(marginal)
  return found


def _contrast(pairs: Sequence[tuple[Cell, Cell]]) -> Estimate:
  signed = [*((cell, 1.0) for cell, _ in pairs), *((other, -1.0) for _, other in pairs)]
  return _combined(signed, len(pairs))


def _interaction(cells: Sequence[Sequence[Cell | None]]) -> Estimate | None:
  """Returns what the second row adds in the second column beyond the first one."""
  flat = [cell for row in cells for cell in row]
  if len(cells) != 2 or len(flat) != 4 or not all(map(is_usable, flat)):
    return None
  return _combined(list(zip(flat, (1.0, -1.0, -1.0, 1.0), strict=True)), 1)


def _combined(signed: Sequence[tuple[Cell, float]], count: int) -> Estimate:
  """Returns the estimate of sum(sign x level) / count on the seeds that all have."""
  levels = [cell.estimate.values for cell, _ in signed]
  shared = set.intersection(*map(set, levels)) if levels else set()
  return statistics.estimate(
    {
      seed: sum(sign * cell.estimate.values[seed] for cell, sign in signed) / count
      for seed in shared
    }
  )


def _effect_json(estimate: Estimate) -> dict[str, Any]:
  return {**estimate.to_json(), "includes_zero": estimate.includes_zero}
