"""What is asked, in files of JSON lines: one object with an `id` on each line.

`items` in a config is a path, or the name of one of the sets in `evals/sets/`.
"""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError

_SETS = pathlib.Path(__file__).parent / "sets"
_NAMES = {str: "text", list: "a list", int: "a whole number", dict: "an object"}
Types = type | tuple[type, ...]


def path_of(items: str) -> pathlib.Path:
  """Returns the file that `items` names."""
  shipped = _SETS / f"{items}.jsonl"
  is_path = "/" in items or "." in items
  return pathlib.Path(items).expanduser() if is_path else shipped


def digest(items: str) -> str:
  """Returns the sha256 of the file that `items` names."""
  return records.sha256_file(path_of(items))


def read(
  items: str, where: str, fields: Mapping[str, Types], most: int | None = None
) -> list[dict[str, Any]]:
  """Returns the items of a file, at most `most` of them, evenly taken.

  Args:
    items: the value of a field of a config.
    where: what that field is called, for messages.
    fields: fields that every item has beside `id`, with their types; text and lists
      are not empty.
    most: None for all.

  Raises:
    UserError: there is no such file, no item in it, an id twice, or a field that is
      missing or of another type; it names the line.
  """
  path = path_of(items)
  if not path.is_file():
    known = ", ".join(sorted(file.stem for file in _SETS.glob("*.jsonl")))
    raise UserError(
      f"{where} is {items!r}, and there is no file {path}: give a path to JSON lines, "
      f"or one of the sets {known}"
    )
  found: dict[str, dict[str, Any]] = {}
  lines = path.read_bytes().splitlines()
  for number, line in enumerate(lines, start=1):
    if not line.strip():
      continue
    at = f"{path} line {number}"
    item = _item(line, {"id": str} | dict(fields), at)
    if item["id"] in found:
      raise UserError(f"{at}: the id {item['id']!r} is there twice: make ids unique")
    found[item["id"]] = item
  if not found:
    raise UserError(f"{where}: {path} has no items")
  return take(list(found.values()), most)


def take(items: list[Any], most: int | None) -> list[Any]:
  """Returns at most `most` of the items, evenly taken."""
  count = len(items) if most is None else min(most, len(items))
  return [items[i * len(items) // count] for i in range(count)]


def shares(most: int, sizes: Sequence[int]) -> list[int]:
  """Returns how many to take of each of several lists, `most` in all, evenly.

  What a short list cannot give, the others do.
  """
  found = [0] * len(sizes)
  left = min(most, sum(sizes))
  while left:
    open_ = [i for i, size in enumerate(sizes) if found[i] < size]
    step = max(left // len(open_), 1)
    for i in open_[:left]:
      taken = min(step, sizes[i] - found[i])
      found[i] += taken
      left -= taken
  return found


def _item(line: bytes, fields: Mapping[str, Types], at: str) -> dict[str, Any]:
  try:
    item = json.loads(line)
  except ValueError as error:
    raise UserError(f"{at} is not valid JSON ({error}): mend it") from None
  if not isinstance(item, dict):
    raise UserError(f"{at} holds no JSON object: every line is one item")
  for name, types in fields.items():
    value = item.get(name)
    types = types if isinstance(types, tuple) else (types,)
    if not isinstance(value, types) or value in ("", []) or isinstance(value, bool):
      wanted = " or ".join(_NAMES[each] for each in types)
      raise UserError(f"{at}: the field {name!r} is {value!r}, it must be {wanted}")
  return item
