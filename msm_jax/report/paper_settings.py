"""`config.report.paper`: the numbers of one paper or of several.

    paper = (dict(
        title, source, note, num_seeds,
        values=((arm, evaluation, metric, value), ...),
        contrasts=((label, evaluation, metric, value), ...)), ...)

One dict alone is one paper. A row may end with the paper's own standard error. A label
is one of `report.contrasts` or `report.differences`.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from msm_jax import fields
from msm_jax.errors import UserError
from msm_jax.report.parsing import as_number, check_arm, dict_entries, rows_of

Column = tuple[str, str]  # evaluation, metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stated:
  """A paper's number; `sem` is its standard error over seeds, None where not known."""

  value: float
  sem: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paper:
  """Numbers of a paper.

  Attributes:
    source: where they stand.
    title: over them; the source where it is "".
    note: what is not the same there.
    num_seeds: behind each standard error; None: it is taken as known exactly.
    values: (arm, evaluation, metric) -> the paper's number.
    contrasts: (label, evaluation, metric) -> the paper's difference.
  """

  source: str
  title: str = ""
  note: str = ""
  num_seeds: int | None = None
  values: Mapping[tuple[str, str, str], Stated] = dataclasses.field(
    default_factory=dict
  )
  contrasts: Mapping[tuple[str, str, str], Stated] = dataclasses.field(
    default_factory=dict
  )

  @property
  def has_errors(self) -> bool:
    """Whether a number has a standard error of its own."""
    stated = (*self.values.values(), *self.contrasts.values())
    return any(number.sem is not None for number in stated)


def parse_papers(
  value: Any, arms: Collection[str], columns: Mapping[str, Column | None]
) -> tuple[Paper, ...]:
  """Returns `config.report.paper`.

  Args:
    value: a dict, several, or nothing.
    arms: of the study.
    columns: label of a contrast or difference -> the one column that it is on; None
      where it is on every one.

  Raises:
    UserError: naming what is wrong.
  """
  is_one = isinstance(value, Mapping)
  found = []
  for i, entry in enumerate(
    dict_entries((value,) if value and is_one else value, "config.report.paper")
  ):
    where = "config.report.paper" if is_one else f"config.report.paper[{i}]"
    paper = fields.build(Paper, entry, where)
    _check_seeds(paper.num_seeds, where)
    values = _numbers(paper.values, f"{where}.values")
    for arm, *_ in values:
      check_arm(arm, arms, f"{where}.values")
    contrasts = _numbers(paper.contrasts, f"{where}.contrasts")
    for label, *column in contrasts:
      _check_contrast(label, tuple(column), columns, f"{where}.contrasts")
    if not values and not contrasts:
      raise UserError(f"{where} has neither values nor contrasts: add the numbers")
    found.append(dataclasses.replace(paper, values=values, contrasts=contrasts))
  return tuple(found)


def _numbers(value: Any, where: str) -> dict[tuple[str, str, str], Stated]:
  found = {}
  for name, evaluation, metric, number, *rest in rows_of(value, (4, 5), where):
    place = f"{where}, {name!r}"
    sem = None if not rest or rest[0] is None else as_number(rest[0], place)
    if sem is not None and sem < 0:
      raise UserError(f"{place}: the standard error {sem!r} is below zero")
    key = (str(name), str(evaluation), str(metric))
    if key in found:
      raise UserError(f"{place} has two numbers on {evaluation} {metric}: remove one")
    found[key] = Stated(value=as_number(number, place), sem=sem)
  return found


def _check_seeds(num_seeds: Any, where: str) -> None:
  if num_seeds is None:
    return
  if isinstance(num_seeds, bool) or not isinstance(num_seeds, int) or num_seeds < 2:
    raise UserError(
      f"{where}.num_seeds is {num_seeds!r}: how many seeds, two or more, are behind "
      "its standard errors (leave it out where that is not known)"
    )


def _check_contrast(
  label: str, column: Column, columns: Mapping[str, Column | None], where: str
) -> None:
  if label not in columns:
    raise UserError(
      f"{where} names the contrast {label!r}, which is not there: use one of "
      f"{', '.join(columns)}"
    )
  own = columns[label]
  if own is not None and own != column:
    raise UserError(
      f"{where}, {label!r} is about {' '.join(column)}, but that contrast is on "
      f"{' '.join(own)} alone"
    )
