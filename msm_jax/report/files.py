"""Reading the JSON files of a work directory."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError


def read_object(path: pathlib.Path) -> dict[str, Any] | None:
  """Returns the JSON object in `path`, or None when there is no such file.

  Raises:
    UserError: the file is not valid JSON, or holds no object.
  """
  try:
    value = records.read_json(path)
  except FileNotFoundError:
    return None
  if not isinstance(value, dict):
    raise UserError(f"{path} holds no JSON object: delete it and run again")
  return value


def read_lines(path: pathlib.Path, remedy: str) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (line number from 1, object) of a JSON-lines file; blank lines are skipped.

  Raises:
    UserError: naming file and line of what is not a JSON object, with the `remedy`.
  """
  with path.open("rb") as file:
    for number, line in enumerate(file, start=1):
      if not line.strip():
        continue
      try:
        value = json.loads(line)
      except ValueError as error:
        message = f"{path} line {number} is not valid JSON ({error})"
        raise UserError(f"{message}: {remedy}") from None
      if not isinstance(value, dict):
        raise UserError(f"{path} line {number} holds no JSON object: {remedy}")
      yield number, value
