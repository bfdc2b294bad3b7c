"""Items of an evaluation from a JSONL file: checked whole before a model is asked."""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError


def read(path: str, needed: Sequence[str], where: str) -> list[dict[str, Any]]:
  """Returns the items of a file, one JSON object a line; empty lines are no items.

  Args:
    path: a UTF-8 file.
    needed: fields that have a text in every item, beside `id`.
    where: what the path is called in the config.

  Raises:
    UserError: the file or a field is missing, a line is no object, an id comes twice.
  """
  found: dict[str, dict[str, Any]] = {}
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
    found[item["id"]] = item
  if not found:
    raise UserError(f"{where}: {path} has no items")
  return list(found.values())


def sources(config: Any) -> Mapping[str, str]:
  """Returns the digest of the file that `config.items` names, if it names one."""
  if config.items is None:
    return {}
  return {"items": records.sha256_text(_text(config.items, "items"))}


def taken(items: Sequence[Any], max_items: int | None) -> list[Any]:
  """Returns at most `max_items` of them, evenly taken; None: all."""
  count = len(items) if max_items is None else min(max_items, len(items))
  return [items[i * len(items) // count] for i in range(count)]


def _text(path: str, where: str) -> str:
  try:
    return _read(path, pathlib.Path(path).stat().st_mtime_ns)
  except OSError as error:
    raise UserError(f"{where}: {path} cannot be read ({error.strerror})") from None
  except UnicodeDecodeError as error:
    raise UserError(f"{where}: {path} is not UTF-8 (byte {error.start})") from None


@functools.lru_cache(maxsize=8)
def _read(path: str, changed: int) -> str:
  del changed  # another time, another content
  return pathlib.Path(path).read_bytes().decode("utf-8-sig")


def _object(line: str, place: str) -> dict[str, Any]:
  try:
    item = json.loads(line)
  except ValueError as error:
    raise UserError(f"{place} is no JSON: {error}") from None
  if not isinstance(item, dict):
    raise UserError(f"{place} is no JSON object")
  return item
