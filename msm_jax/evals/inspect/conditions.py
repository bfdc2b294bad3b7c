"""Conditions: what a task of Inspect is run with, one run for each.

    task_args = ({"scenario": ("leaking", "murder"), "goal_value": ("america", ...)},)

stands for every combination, and `dev` names those that were looked at while a study
was made: what stands under the evaluation's own name was not.
"""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError

Condition = dict[str, Any]
Grid = Mapping[str, Any]


def expand(grids: Grid | Sequence[Grid], where: str) -> list[Condition]:
  """Returns every combination of each grid, in order.

  Args:
    grids: argument -> a value, or a list of values to be combined with the others'.
    where: what they are called in the config.

  Raises:
    UserError: a grid is none, a list is empty, or a condition is there twice.
  """
  found: list[Condition] = []
  for grid in _listed(grids, where):
    values = {name: _values(value) for name, value in grid.items()}
    empty = [name for name, several in values.items() if not several]
    if empty:
      raise UserError(f"{where}: {empty[0]} has no values: give one, or leave it out")
    for chosen in itertools.product(*values.values()):
      condition = dict(zip(values, chosen, strict=True))
      if condition in found:
        raise UserError(f"{where} has the condition {condition} twice")
      found.append(condition)
  return found


def dev_of(
  conditions: Sequence[Condition], dev: Sequence[Grid], where: str
) -> list[bool]:
  """Returns which conditions are for development: those that agree with one of `dev`.

  Raises:
    UserError: one of them agrees with no condition.
  """
  patterns = _listed(dev, where)
  for pattern in patterns:
    if not any(_agrees(condition, pattern) for condition in conditions):
      raise UserError(
        f"{where} has {dict(pattern)}, which is none of the conditions: see task_args"
      )
  return [
    any(_agrees(condition, pattern) for pattern in patterns) for condition in conditions
  ]


def _agrees(condition: Condition, pattern: Grid) -> bool:
  return all(
    name in condition and condition[name] in _values(value)
    for name, value in pattern.items()
  )


def _listed(grids: Any, where: str) -> list[Grid]:
  found = [grids] if isinstance(grids, Mapping) else grids
  if not isinstance(found, list | tuple) or not all(
    isinstance(grid, Mapping) for grid in found
  ):
    raise UserError(f"{where} is {grids!r}: a mapping or a list of mappings is needed")
  return list(found)


def _values(value: Any) -> list[Any]:
  return list(value) if isinstance(value, list | tuple) else [value]
