"""JSON schemas as services want them that take only closed objects at the root."""

import json
import re
from collections.abc import Mapping
from typing import Any

# A name that no schema and no text of its own begins with.
_ROOT = "list_of_items"
_WRAPPED = re.compile(r'\s*\{\s*"' + _ROOT + '"')


def closed_object(schema: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `schema` with nothing optional, wrapped in an object if it is none."""
  if schema.get("type") != "object":
    schema = {"type": "object", "properties": {_ROOT: schema}}
  return _closed(schema)


def unwrapped(text: str) -> str:
  """Returns an answer to `closed_object(schema)` as an answer to `schema`.

  Any other text, such as an answer that was cut off, is returned as it is.
  """
  if not _WRAPPED.match(text):
    return text
  try:
    value = json.loads(text)
  except ValueError:
    return text
  if set(value) != {_ROOT}:
    return text
  return json.dumps(value[_ROOT], ensure_ascii=False)


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
  found = dict(schema)
  if "enum" in found and "type" not in found:
    found["type"] = "string"
  if "items" in found:
    found["items"] = _closed(found["items"])
  if found.get("type") == "object":
    inner = {name: _closed(value) for name, value in found["properties"].items()}
    found |= {"properties": inner, "required": list(inner)}
    found["additionalProperties"] = False
  return found
