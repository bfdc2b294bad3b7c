"""JSON in a text that a model wrote: with prose around it, and broken escapes."""

import json
import re
from typing import Any

_OPENING = re.compile(r"[\[{]")


def printable(text: str) -> str:
  """Returns `text` with `?` for every half of a character, which no file can hold.

  Models write broken escapes such as `\\ud83d` into JSON.
  """
  return text.encode("utf-8", "replace").decode()


def find(text: str) -> Any:
  """Returns the longest JSON list or object in `text`, or None; prose may be around."""
  decoder = json.JSONDecoder()
  found, longest, start = None, 0, 0
  while (opening := _OPENING.search(text, start)) is not None:
    start = opening.start() + 1
    try:
      value, end = decoder.raw_decode(text, opening.start())
    except (ValueError, RecursionError):
      continue
    if end - opening.start() > longest:
      found, longest = value, end - opening.start()
    start = end
  return _printable(found)


def _printable(value: Any) -> Any:
  """Returns a JSON value whose texts any file can hold."""
  if isinstance(value, str):
    return printable(value)
  if isinstance(value, list):
    return [_printable(item) for item in value]
  if isinstance(value, dict):
    return {_printable(key): _printable(item) for key, item in value.items()}
  return value
