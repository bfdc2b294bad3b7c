"""Items of an evaluation: JSON lines, checked whole before a model is asked.

`items` in a config is a path, or the name of one of the sets in `evals/sets/`.
"""

import functools
import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.storage import inputs

_SETS = pathlib.Path(__file__).parent / "sets"
_NAMES = {str: "text", list: "a list", int: "a whole number"}
Types = type | tuple[type, ...]


def path_of(name: str) -> pathlib.Path:
  """Returns the file that the `items` of a config name, on this machine."""
  if "/" in name or "." in name:
    return inputs.local(name, "config.evals.*.items")
  return _SETS / f"{name}.jsonl"


def sources(config: Any) -> Mapping[str, str]:
  """Returns the digest of the file that `config.items` names, if it names one."""
  return {} if config.items is None else {"items": digest(config.items)}


def digest(name: str) -> str:
  """Returns the sha256 of the file that a field of a config names."""
  return records.sha256_file(path_of(name))


def read(
  name: str, where: str, fields: Mapping[str, Types], most: int | None = None
) -> list[dict[str, Any]]:
  """Returns the items of a file, at most `most` of them, evenly taken.

  Args:
    name: the value of a field of a config.
    where: what that field is called, for messages.
    fields: fields that every item has beside `id`, with their types; none is empty.
    most: None for all.

  Raises:
    UserError: there is no such file, no item in it, an id twice, or a field that is
      missing or of another type.
  """
  path = path_of(name)
  if not path.is_file():
    known = ", ".join(sorted(file.stem for file in _SETS.glob("*.jsonl")))
    raise UserError(
      f"{where} is {name!r}, and there is no file {path}: give a path to JSON lines, "
      f"or one of the sets {known}"
    )
  texts = [field for field, types in fields.items() if types is str]
  found = _lines(path, texts, where)
  for number, item in found:
    _check(item, fields, f"{path} line {number}: item {item['id']!r}")
  return taken([item for _, item in found], most)


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


def _check(item: Mapping[str, Any], fields: Mapping[str, Types], at: str) -> None:
  for name, types in fields.items():
    value = item.get(name)
    types = types if isinstance(types, tuple) else (types,)
    if not isinstance(value, types) or value == [] or isinstance(value, bool):
      wanted = " or ".join(_NAMES[each] for each in types)
      raise UserError(f"{at}: the field {name!r} is {value!r}, it must be {wanted}")


def taken(items: Sequence[Any], max_items: int | None) -> list[Any]:
  """Returns at most `max_items` of them (one pair at least), evenly; None: all.

  Items of one pair (`pair_id`: a question in both orders) stay together. Which pair
  stands for its neighbours is drawn by its id: in a list of orders within wordings,
  every second one would always be the same order.
  """
  if max_items is None or max_items >= len(items):
    return list(items)
  pairs: dict[Any, list[Any]] = {}
  for number, item in enumerate(items):
    own = item.get("pair_id") if isinstance(item, Mapping) else None
    pairs.setdefault(number if own is None else own, []).append(item)
  groups = list(pairs.items())
  count = max(max_items * len(groups) // len(items), 1)
  edges = [i * len(groups) // count for i in range(count + 1)]
  found = []
  for begin, end in itertools.pairwise(edges):
    is_pair = len(groups) < len(items)
    drawn = min(groups[begin:end], key=_drawn) if is_pair else groups[begin]
    found += drawn[1]
  return found


def _drawn(group: tuple[Any, Any]) -> str:
  return records.sha256_json(["taken", str(group[0])])


def _lines(
  path: pathlib.Path, needed: Sequence[str], where: str
) -> list[tuple[int, dict[str, Any]]]:
  """Returns (line, item) of a file: one JSON object a line, ids and `needed` texts."""
  found: dict[str, tuple[int, dict[str, Any]]] = {}
  for number, line in enumerate(_text(path, where).splitlines(), start=1):
    if not line.strip():
      continue
    place = f"{where}: {path} line {number}"
    item = _object(line, place)
    for field in ("id", *needed):
      if not isinstance(item.get(field), str) or not item[field].strip():
        raise UserError(f"{place} has no text under {field!r}: every item needs one")
    if item["id"] in found:
      raise UserError(f"{place} has the id {item['id']!r} again: ids must be unique")
    found[item["id"]] = (number, item)
  if not found:
    raise UserError(f"{where}: {path} has no items")
  return list(found.values())


def _text(path: pathlib.Path, where: str) -> str:
  try:
    return _read(path, path.stat().st_mtime_ns)
  except OSError as error:
    raise UserError(f"{where}: {path} cannot be read ({error.strerror})") from None
  except UnicodeDecodeError as error:
    raise UserError(f"{where}: {path} is not UTF-8 (byte {error.start})") from None


@functools.lru_cache(maxsize=8)
def _read(path: pathlib.Path, changed: int) -> str:
  del changed  # another time, another content
  return path.read_bytes().decode("utf-8-sig")


def _object(line: str, place: str) -> dict[str, Any]:
  try:
    item = json.loads(line)
  except ValueError as error:
    raise UserError(f"{place} is no JSON: {error}") from None
  if not isinstance(item, dict):
    raise UserError(f"{place} is no JSON object")
  return item
