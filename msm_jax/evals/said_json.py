"""What a grader says in JSON, however often it says it."""

import json
from collections.abc import Iterable
from typing import Any


def agreed(text: str) -> dict[str, Any]:
  """Returns what the JSON objects of a text agree on: field -> value.

  A field that is given two values, in one object or in several, is None: a grader that
  contradicts itself has said nothing. Words and code fences around do not matter.
  """
  decoder = json.JSONDecoder(object_pairs_hook=_merge)
  found: list[tuple[str, Any]] = []
  at = text.find("{")
  while at >= 0:
    try:
      value, end = decoder.raw_decode(text, at)
    except (ValueError, RecursionError):
      end = at + 1
    else:
      found += value.items()
    at = text.find("{", end)
  return _merge(found)


def _merge(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
  merged: dict[str, Any] = {}
  for key, value in pairs:
    merged[key] = value if merged.get(key, value) == value else None
  return merged
