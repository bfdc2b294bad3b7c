"""Columns of tables: one type per column that all records of a corpus share.

A type is 'string', 'int64', 'float64', 'bool', [type of the elements], or {field: type}
where every value has the same fields. What has no such type is a column of JSON text
('json'). A null means that a record does not have the field; every row has every
column, so that readers which look at the first rows only see all of them.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

Type = Any
_FIRST = ("id", "kind", "text", "messages")
_MAX_FIELDS = 64
_INT64 = 1 << 63
_EXACT = 1 << 53  # integers that a float64 holds exactly
# Types that have another in common, besides JSON text; 'int53' becomes an 'int64'.
_NUMBERS = {
  frozenset(("int53", "int64")): "int64",
  frozenset(("int53", "float64")): "float64",
}


class Columns:
  """Learns the columns of a corpus from its records, then lays records out."""

  def __init__(self) -> None:
    self._types: dict[str, Type] = {}
    self._turn: dict[str, Type] = {"role": "string", "content": "string"}

  def add(self, record: Mapping[str, Any]) -> None:
    """Takes a record into account."""
    for name, value in record.items():
      if name == "messages":
        self._add_turns(value)
        self._types[name] = None
      else:
        self._types[name] = _merge(self._types.get(name), _type_of(value))

  def _add_turns(self, messages: Any) -> None:
    # Turns differ in their fields (tool calls, names), a table needs all of them.
    for turn in messages:
      for name, value in turn.items():
        self._turn[name] = _merge(self._turn.get(name), _type_of(value))

  def types(self) -> dict[str, Type]:
    """Returns column -> type, in the order of the table."""
    names = [name for name in _FIRST if name in self._types]
    names += [name for name in self._types if name not in _FIRST]
    types = {name: _final(self._types[name]) for name in names}
    if "messages" in types:
      types["messages"] = [{name: _final(kind) for name, kind in self._turn.items()}]
    return types


def row(record: Mapping[str, Any], types: Mapping[str, Type]) -> dict[str, Any]:
  """Returns a record as a row that has every column."""
  return {name: _encode(record.get(name), kind) for name, kind in types.items()}


def decode(value: Any, kind: Type) -> Any:
  """Returns what a record had, from a value of a column of type `kind`.

  What does not fit the type is returned as it is.
  """
  if value is None:
    return None
  if kind == "json":
    try:
      return json.loads(value)
    except (TypeError, ValueError, RecursionError):
      return value
  if isinstance(kind, list) and isinstance(value, list):
    return [decode(inner, kind[0]) for inner in value]
  if isinstance(kind, dict) and isinstance(value, dict):
    return {name: decode(inner, kind.get(name)) for name, inner in value.items()}
  return value


def features(types: Mapping[str, Type]) -> list[dict[str, Any]]:
  """Returns the types as the card of a Hugging Face dataset has them."""
  return [{"name": name, **_feature(kind)} for name, kind in types.items()]


def _feature(kind: Type) -> dict[str, Any]:
  if isinstance(kind, dict):
    return {"struct": features(kind)}
  if isinstance(kind, list):
    inner = kind[0]
    return {"list": features(inner) if isinstance(inner, dict) else _scalar(inner)}
  return {"dtype": _scalar(kind)}


def _scalar(kind: str) -> str:
  return "string" if kind == "json" else kind


def _encode(value: Any, kind: Type) -> Any:
  if value is None:
    return None
  if kind == "json":
    return json.dumps(value, ensure_ascii=False)
  if kind == "float64":
    return float(value) if math.isfinite(value) else None
  if isinstance(kind, list):
    return [_encode(inner, kind[0]) for inner in value]
  if isinstance(kind, dict):
    return {name: _encode(value.get(name), inner) for name, inner in kind.items()}
  return value


def _type_of(value: Any) -> Type:
  """Returns the type of one value; None where it does not show."""
  if value is None:
    return None
  if isinstance(value, bool):
    return "bool"
  if isinstance(value, int):
    fits = -_INT64 <= value < _INT64
    return "int53" if abs(value) <= _EXACT else "int64" if fits else "json"
  if isinstance(value, float):
    return "float64"
  if isinstance(value, str):
    return "string"
  if isinstance(value, list | tuple):
    kind = None
    for inner in value:
      kind = _merge(kind, _type_of(inner))
    return [kind]
  names_are_text = isinstance(value, Mapping) and all(isinstance(k, str) for k in value)
  if names_are_text and 0 < len(value) <= _MAX_FIELDS:
    return {name: _type_of(inner) for name, inner in value.items()}
  return "json"


def _merge(a: Type, b: Type) -> Type:
  if a is None or a == b:
    return b
  if b is None:
    return a
  if isinstance(a, list) and isinstance(b, list):
    return [_merge(a[0], b[0])]
  if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
    return {name: _merge(inner, b[name]) for name, inner in a.items()}
  if isinstance(a, str) and isinstance(b, str):
    return _NUMBERS.get(frozenset((a, b)), "json")
  return "json"


def _final(kind: Type) -> Type:
  """Returns a type without holes: what never showed, and lists of lists, are JSON."""
  if isinstance(kind, list):
    nested = kind[0] is None or kind[0] == "json" or isinstance(kind[0], list)
    return "json" if nested else [_final(kind[0])]
  if isinstance(kind, dict):
    return {name: _final(inner) for name, inner in kind.items()}
  return {None: "json", "int53": "int64"}.get(kind, kind)
