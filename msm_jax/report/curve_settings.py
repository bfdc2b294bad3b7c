"""`config.report.curves` and `.pareto`: what is drawn beside the tables.

    curves = (dict(
        title, evaluation, metric, better="higher" | "lower", unit="tokens",
        lines=((label, (point, ...)), ...), compare=(label with, label without),
        corpora=(...)), ...)
    pareto = (dict(title, x=axis, y=axis, arms=(...)), ...)

A point is an arm, or (arm, dose). Without a dose it is read from the prepared rows:
what of `corpora` the arm's stages see in a run, in `unit` (tokens, target_tokens,
rows). An axis is dict(evaluation=, metric=, better=), or a dose: dict(unit=, corpora=,
better=), with doses=((arm, dose), ...) instead of corpora where they are known.
"""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msm_jax import fields
from msm_jax.errors import UserError
from msm_jax.report.parsing import as_number, check_arm, dict_entries, rows_of

UNITS = ("tokens", "target_tokens", "rows")
_BETTER = ("higher", "lower")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
  """One metric against a dose.

  Attributes:
    lines: label -> arm -> dose; None: read from the rows.
    compare: (line with, line without) for the equivalent-data ratio; () for none.
    better: which way the level goes that the ratio asks for.
  """

  title: str
  evaluation: str
  metric: str
  lines: Mapping[str, Mapping[str, float | None]]
  better: str
  unit: str = "tokens"
  corpora: tuple[str, ...] = ()
  compare: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
  """A metric of an evaluation, or a dose (`evaluation` is then None)."""

  better: str
  evaluation: str | None = None
  metric: str | None = None
  unit: str = "tokens"
  corpora: tuple[str, ...] = ()
  doses: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pareto:
  """Two axes against one another; `arms` () for all."""

  title: str
  x: Axis
  y: Axis
  arms: tuple[str, ...] = ()


def parse_curves(value: Any, arms: Collection[str]) -> tuple[Curve, ...]:
  """Returns `config.report.curves`; raises a UserError that names what is wrong."""
  found = []
  for i, entry in enumerate(dict_entries(value, "config.report.curves")):
    where = f"config.report.curves[{i}]"
    curve = fields.build(Curve, entry, where)
    lines = {
      str(label): _points(points, f"{where}, line {label!r}", arms)
      for label, points in rows_of(curve.lines, 2, f"{where}.lines")
    }
    curve = dataclasses.replace(
      curve,
      lines=lines,
      corpora=tuple(curve.corpora or ()),
      compare=tuple(curve.compare or ()),
    )
    _check_better(curve.better, where)
    points = {arm: dose for line in lines.values() for arm, dose in line.items()}
    if None in points.values():
      _check_dose(curve.unit, curve.corpora, where)
    if curve.compare and len(curve.compare) != 2:
      raise UserError(f"{where}.compare is {curve.compare!r}: give two lines")
    for label in curve.compare:
      if label not in lines:
        raise UserError(
          f"{where}.compare names the line {label!r}, it has {', '.join(lines)}"
        )
    found.append(curve)
  return tuple(found)


def parse_pareto(value: Any, arms: Collection[str]) -> tuple[Pareto, ...]:
  """Returns `config.report.pareto`; raises a UserError that names what is wrong."""
  found = []
  for i, entry in enumerate(dict_entries(value, "config.report.pareto")):
    where = f"config.report.pareto[{i}]"
    plot = fields.build(Pareto, entry, where)
    chosen = tuple(plot.arms or arms)
    for arm in chosen:
      check_arm(arm, arms, where)
    axes = {side: _axis(getattr(plot, side), f"{where}.{side}", arms) for side in "xy"}
    found.append(dataclasses.replace(plot, arms=chosen, **axes))
  return tuple(found)


def _axis(value: Any, where: str, arms: Collection[str]) -> Axis:
  (entry,) = dict_entries((value,), where)
  axis = fields.build(Axis, entry, where)
  _check_better(axis.better, where)
  if (axis.evaluation is None) != (axis.metric is None):
    raise UserError(f"{where} needs both evaluation and metric, or neither (a dose)")
  doses = {
    str(arm): as_number(dose, f"{where}.doses, {arm!r}")
    for arm, dose in rows_of(axis.doses or (), 2, f"{where}.doses")
  }
  for arm in doses:
    check_arm(arm, arms, f"{where}.doses")
  corpora = tuple(axis.corpora or ())
  if axis.evaluation is None and not doses:
    _check_dose(axis.unit, corpora, where)
  return dataclasses.replace(axis, doses=doses, corpora=corpora)


def _points(points: Any, where: str, arms: Collection[str]) -> dict[str, float | None]:
  found: dict[str, float | None] = {}
  for point in points:
    arm, dose = (point, None) if isinstance(point, str) else (*point, None)[:2]
    check_arm(arm, arms, where)
    found[str(arm)] = None if dose is None else as_number(dose, f"{where}, {arm!r}")
  return found


def _check_better(value: Any, where: str) -> None:
  if value not in _BETTER:
    raise UserError(f"{where}.better is {value!r}: say 'higher' or 'lower'")


def _check_dose(unit: str, corpora: Sequence[str], where: str) -> None:
  if not corpora:
    raise UserError(
      f"{where} has no doses: give (arm, dose), or name the corpora to count in "
      f"{where}.corpora"
    )
  if unit not in UNITS:
    raise UserError(
      f"{where}.unit is {unit!r}: rows are counted in {', '.join(UNITS)}; other units "
      "need (arm, dose)"
    )
