"""Rows of the config's report section: names and numbers, checked once."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError


def dict_entries(value: Any, where: str) -> list[Mapping[str, Any]]:
  """Returns a sequence of dicts; raises a UserError for what is none."""
  found = list(value or ())
  for entry in found:
    if not isinstance(entry, Mapping):
      raise UserError(f"{where} has the entry {entry!r}: each is a dict of fields")
  return found


def rows_of(value: Any, sizes: int | Sequence[int], where: str) -> list[Sequence[Any]]:
  """Returns the rows of a tuple (or the items of a dict), each of one of `sizes`."""
  allowed = (sizes,) if isinstance(sizes, int) else tuple(sizes)
  found = list(value.items()) if isinstance(value, Mapping) else list(value or ())
  for row in found:
    if not isinstance(row, list | tuple) or len(row) not in allowed:
      parts = " or ".join(map(str, allowed))
      raise UserError(f"{where} has the entry {row!r}: each needs {parts} parts")
  return found


def as_number(value: Any, where: str) -> float:
  """Returns a number as a float; raises a UserError for what is none."""
  if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
    raise UserError(f"{where}: {value!r} is no number")
  return float(value)


def check_arm(arm: Any, arms: Collection[str], where: str) -> None:
  """Raises a UserError that names an arm that the study lacks."""
  if arm not in arms:
    raise UserError(
      f"{where} names the arm {arm!r}, which is not there: use one of {', '.join(arms)}"
    )
