"""Plain mappings to frozen dataclasses, with errors that name the field and the near
one.

The sections of a config become values here, once, at the entrance.
"""

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from msm_jax.errors import UserError

T = TypeVar("T")


def build(cls: type[T], fields: Mapping[str, Any], where: str) -> T:
  """Returns `cls(**fields)`.

  Args:
    cls: a dataclass.
    fields: its fields by name.
    where: what the mapping is called in the config, for messages.

  Raises:
    UserError: a field that `cls` does not have, or one without a default is missing.
  """
  known = {field.name: field for field in dataclasses.fields(cls)}
  for name in fields:
    check_known(name, known, where, cls.__name__)
  missing = [
    name
    for name, field in known.items()
    if name not in fields
    and field.default is dataclasses.MISSING
    and field.default_factory is dataclasses.MISSING
  ]
  if missing:
    raise UserError(f"{where}.{missing[0]} is missing: add it to the config")
  return cls(**fields)


def check_known(name: str, known: Iterable[str], where: str, what: str) -> None:
  """Raises a UserError that names the nearest field when `name` is not in `known`."""
  known = list(known)
  if name not in known:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
    raise UserError(f"{where}.{name} is not a field of {what}: {hint}")
