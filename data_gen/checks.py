"""Checks of single settings, each with the field's name in its message."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from msm_jax import errors

_COUNTS = ("num_", "max_", "mean_", "questions_", "context_", "fact_")


def counts(where: str, value: Any) -> None:
  """Checks the fields of a dataclass that count something, by their names."""
  for field in dataclasses.fields(value):
    count = getattr(value, field.name)
    if not field.name.startswith(_COUNTS) or count is None:
      continue
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
      raise errors.UserError(
        f"{where}.{field.name} is {count!r}: it is a whole number above zero"
      )


def number(where: str, value: Any, above: float | None = None) -> None:
  """Checks that a value is a number, zero or more, or greater than `above`."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  low = -1e-300 if above is None else above
  if not is_number or not value > low:
    wanted = "zero or more" if above is None else f"above {above:g}"
    raise errors.UserError(f"{where} is {value!r}: it is a number, {wanted}")


def choice(where: str, value: Any, choices: Sequence[str]) -> None:
  """Checks that a value is one of a few."""
  if value not in choices:
    named = " or ".join(repr(name) for name in choices)
    raise errors.UserError(f"{where} is {value!r}: it is {named}")
