"""Typed values of one `config.json`; errors name file, field, value and the way out."""

from collections.abc import Mapping
from typing import Any

from msm_jax.errors import UserError


def is_off(value: Any) -> bool:
  """Says whether a value asks for nothing: null, false, or empty. 0 is a setting."""
  return value is None or value is False or value in ({}, [])


class Fields:
  """Reads one JSON object; `source` names it in errors, `prefix` the object in it."""

  def __init__(self, config: Mapping[str, Any], source: str, prefix: str = ""):
    self.config, self.source, self.prefix = config, source, prefix

  def error(self, field: str, value: Any, way_out: str) -> UserError:
    """Returns the error about a field, to be raised."""
    return UserError(
      f"{self.source}: field {self.prefix}{field} is {value!r}: {way_out}"
    )

  def get(self, field: str, default: Any = None) -> Any:
    """Returns the value of a field, `default` where it is absent or null."""
    value = self.config.get(field)
    return default if value is None else value

  def inner(self, field: str) -> "Fields":
    """Returns the fields of an object within (absent or null: none)."""
    value = self.get(field, {})
    if not isinstance(value, dict):
      raise self.error(field, value, "it must be an object or null")
    return Fields(value, self.source, f"{self.prefix}{field}.")

  def whole(self, field: str, default: Any = None) -> int:
    """Returns a whole number above 0."""
    value = self.get(field, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise self.error(field, value, "it must be a whole number above 0")
    return value

  def number(self, field: str, default: float | None = None) -> float:
    """Returns a finite number above 0."""
    value = self.get(field, default)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
      raise self.error(field, value, "it must be a number above 0")
    return float(value)

  def maybe_number(self, field: str, absent: float | None = None) -> float | None:
    """Returns a number above 0, or None for null; `absent` is what no key means."""
    if field not in self.config:
      return absent
    return None if self.config[field] is None else self.number(field)

  def flag(self, field: str, default: bool) -> bool:
    """Returns true or false."""
    value = self.get(field, default)
    if not isinstance(value, bool):
      raise self.error(field, value, "it must be true or false")
    return value

  def choice(self, field: str, choices: Mapping[str, str], default: str) -> str:
    """Returns what the value stands for in `choices`."""
    value = self.get(field, default)
    if not isinstance(value, str) or value not in choices:
      raise self.error(field, value, f"supported are {', '.join(choices)}")
    return choices[value]
