"""`config.report.grids`: arms laid out by two factors.

    grids = (dict(
        title, evaluation, metric, rows=(label, ...), columns=(label, ...),
        cells=((cell, ...), ...), note), ...)

A cell is an arm, (arm, evaluation, metric) where it has its own, or None for an empty
one. Rows and columns are compared with the first row and the first column.
"""

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

from msm_jax import fields
from msm_jax.errors import UserError
from msm_jax.report.parsing import check_arm, dict_entries


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """What stands in a cell."""

  arm: str
  evaluation: str
  metric: str

  @property
  def column(self) -> tuple[str, str]:
    """(evaluation, metric)."""
    return self.evaluation, self.metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
  """Two factors; `cells` [rows, columns], None where no arm stands.

  `evaluation` and `metric` are None where every cell has its own.
  """

  title: str
  rows: tuple[str, ...]
  columns: tuple[str, ...]
  cells: tuple[tuple[Place | None, ...], ...]
  evaluation: str | None = None
  metric: str | None = None
  note: str = ""


def parse_grids(value: Any, arms: Collection[str]) -> tuple[Grid, ...]:
  """Returns `config.report.grids`; raises a UserError that names what is wrong."""
  found = []
  for i, entry in enumerate(dict_entries(value, "config.report.grids")):
    where = f"config.report.grids[{i}]"
    grid = fields.build(Grid, entry, where)
    rows = _labels(grid.rows, f"{where}.rows")
    columns = _labels(grid.columns, f"{where}.columns")
    if (grid.evaluation is None) != (grid.metric is None):
      raise UserError(f"{where} needs both evaluation and metric, or neither")
    cells = list(grid.cells or ())
    if len(cells) != len(rows):
      raise UserError(
        f"{where}.cells has {len(cells)} rows, but {where}.rows has {len(rows)} labels"
      )
    found.append(
      dataclasses.replace(
        grid,
        rows=rows,
        columns=columns,
        cells=tuple(
          _row(cells_of_row, label, grid, columns, where, arms)
          for label, cells_of_row in zip(rows, cells, strict=True)
        ),
      )
    )
  return tuple(found)


def _labels(value: Any, where: str) -> tuple[str, ...]:
  labels = tuple(str(label) for label in value or ())
  if not labels:
    raise UserError(f"{where} is empty: name its rows and its columns")
  for label in labels:
    if labels.count(label) > 1:
      raise UserError(f"{where} has {label!r} twice: rename one")
  return labels


def _row(
  cells: Any,
  label: str,
  grid: Grid,
  columns: Sequence[str],
  where: str,
  arms: Collection[str],
) -> tuple[Place | None, ...]:
  here = f"{where}.cells, row {label!r}"
  if not isinstance(cells, list | tuple) or len(cells) != len(columns):
    raise UserError(
      f"{here} is {cells!r}: give {len(columns)} cells, one for each of "
      f"{where}.columns (None for an empty one)"
    )
  return tuple(
    None if cell is None else _place(cell, grid, here, arms) for cell in cells
  )


def _place(cell: Any, grid: Grid, where: str, arms: Collection[str]) -> Place:
  if not isinstance(cell, str) and (
    not isinstance(cell, list | tuple) or len(cell) != 3
  ):
    raise UserError(
      f"{where} has the cell {cell!r}: it is an arm, (arm, evaluation, metric) or None"
    )
  arm, *column = (cell,) if isinstance(cell, str) else cell
  check_arm(arm, arms, where)
  if not column and grid.evaluation is None:
    raise UserError(
      f"{where} has the cell {cell!r} and the grid has no evaluation and metric: give "
      "it (arm, evaluation, metric)"
    )
  evaluation, metric = column or (grid.evaluation, grid.metric)
  return Place(arm=str(arm), evaluation=str(evaluation), metric=str(metric))
