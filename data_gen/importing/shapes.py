"""A row of somebody's data to a record, or the reason why it is none.

    {text}                             a document
    {messages: [{role, content}]}      a conversation
    {conversations: [{from, value}]}   ShareGPT: a conversation, roles renamed
    {prompt, completion}               a conversation of two turns, or of two lists
    {question, options}                an item of an evaluation, see `choices`

The text of a document and of a turn is kept to the letter. Further columns stay with
the record: under their own names where they are provenance that this code writes, or
the row says its `kind` as our records do; else under `metadata`. A document whose
`loss_spans` are no such spans is rejected: they would be trained on.
"""

import collections
import datetime
import decimal
import difflib
import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Any

from data_gen import columns as columns_lib
from data_gen.importing import choices, spans, turns
from data_gen.importing.readers import Bad
from data_gen.importing.settings import ChoiceColumns, ImportCorpus
from msm_jax import records

# What records say about themselves, with the type that a column has to have for it.
_PROVENANCE: dict[str, type] = {
  "spec": str,
  "spec_hash": str,
  "spec_section": str,
  "subdomain": str,
  "assertion": str,
  "doc_type": str,
  "idea": str,
  "question_type": str,
  "finish_reason": str,
  "prompt_hash": str,
  "reasons": bool,
  "teacher": dict,
  "usage": dict,
  "verdicts": dict,
  "tools": list,
  "draft": dict,
  "fact": dict,
  "side": str,
  "states_fact": bool,
  "source_teacher": dict,
  "rewrite": dict,
  spans.SPANS: object,
  spans.LOSS_SPANS: object,
}
_KINDS = ("document", "conversation")
_MAX_FIELDS = 100  # names that are remembered for messages
_SMALLEST, _LARGEST = -(1 << 63), (1 << 64) - 1  # integers that a record can hold


class Shaper:
  """Makes records of the rows of one import and counts what it saw."""

  def __init__(self, corpus: ImportCorpus, columns: Mapping[str, Any] | None = None):
    """Takes the settings and, for a folder that we exported, its column types."""
    self._corpus, self._columns = corpus, columns
    self._needs = _needs(corpus)
    self._choices = choices.Choices(corpus.choice or ChoiceColumns())
    self._seen: set[bytes] = set()
    self.shapes: collections.Counter[str] = collections.Counter()
    self.fields: dict[str, None] = {}

  def record(self, row: Any, place: str, prune: bool = False) -> dict[str, Any] | Bad:
    """Returns the record in a row.

    Args:
      row: as it was parsed.
      place: `file:number`, the id of a row that has none.
      prune: whether nulls inside of turns only fill up the fixed columns of a table.
    """
    if isinstance(row, Bad):
      return row
    if not isinstance(row, dict):
      return Bad(f"{turns.name_of(row)} where a row of named fields is needed")
    if len(self.fields) < _MAX_FIELDS:
      self.fields |= dict.fromkeys(row)
    row = {key: value for key, value in row.items() if value is not None}
    ours = self._columns is not None
    if ours:
      row = {key: self._decoded(key, value) for key, value in row.items()}
    made = self._made(row, place, prune and not ours)
    return made if isinstance(made, Bad) else self._checked(made)

  def did_you_mean(self) -> str:
    """Returns what may help where no row became a record."""
    if not self.fields:
      return "the rows have no fields"
    corpus = self._corpus
    wanted = ("text_field", "messages_field", "prompt_field", "completion_field")
    hints = []
    for field in wanted:
      name = getattr(corpus, field)
      near = difflib.get_close_matches(name, self.fields, n=1)
      if near and name not in self.fields:
        hints.append(f"{field}={near[0]!r}")
    hint = f"; did you mean {', '.join(hints)}?" if hints else ""
    return f"the rows have the fields {', '.join(self.fields)}{hint}"

  def _decoded(self, key: str, value: Any) -> Any:
    return columns_lib.decode(value, self._columns.get(key, "string"))

  def _made(self, row: dict[str, Any], place: str, prune: bool) -> dict[str, Any] | Bad:
    if self._columns is not None and row.get("kind", "document") not in _KINDS:
      return {"id": place, **row}  # of our own export: evaluation pairs
    shape = self._shape(row)
    if isinstance(shape, Bad):
      return shape
    if shape == choices.SHAPE:
      body = self._choices.body(row, place)
    else:
      body = self._body(shape, row, prune)
    if isinstance(body, Bad):
      return body
    self.shapes[shape] += 1
    about = self._about(body["kind"], shape, row)
    given = row.get(self._corpus.id_field)
    is_id = isinstance(given, str | int) and not isinstance(given, bool) and given != ""
    if not is_id and given is not None:
      about.setdefault("metadata", {})[self._corpus.id_field] = jsonable(given)
    identity = str(given) if is_id else place
    made = {"kind": body.pop("kind"), "id": identity, **body, **about}
    return spans.mend(made) or made

  def _shape(self, row: Mapping[str, Any]) -> str | Bad:
    if self._corpus.shape == choices.SHAPE:
      return choices.SHAPE
    needs = self._needs
    wanted = [self._corpus.shape] if self._corpus.shape else list(needs)
    found = [s for s in wanted if all(column in row for column in needs.get(s, ("",)))]
    if len(found) > 1:
      return Bad(f"has both {' and '.join(found)}: set shape to one of them")
    if not found:
      names = " or ".join(" + ".join(needs.get(shape, (shape,))) for shape in wanted)
      return Bad(f"missing field: there is no {names}")
    return found[0]

  def _body(self, shape: str, row: Mapping[str, Any], prune: bool) -> dict | Bad:
    columns = [row[column] for column in self._needs[shape]]
    if shape == "text":
      return _document(columns[0])
    if shape == "prompt":
      messages = turns.of_prompt(*columns)
    elif shape == "conversations":
      messages = turns.of_sharegpt(columns[0], row.get("system"))
    else:
      messages = turns.of_messages(columns[0], prune)
    if isinstance(messages, Bad):
      return messages
    fault = turns.fault_of(messages, self._corpus.alternate)
    return fault or {"kind": "conversation", "messages": messages}

  def _about(self, kind: str, shape: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns domain, provenance and metadata of a row."""
    corpus = self._corpus
    needs = self._choices.used if shape == choices.SHAPE else self._needs[shape]
    used = {corpus.id_field, *needs}
    if shape == "conversations":
      used.add("system")
    ours = self._columns is not None or row.get("kind") == kind
    if row.get("kind") == kind:
      used.add("kind")
    about: dict[str, Any] = {}
    rest: dict[str, Any] = {}
    for key, value in row.items():
      if key in used:
        continue
      if _PROVENANCE.get(key) in (dict, list, object) and isinstance(value, str):
        value = columns_lib.decode(value, "json")  # one of our columns of JSON text
      if key == corpus.domain_field and isinstance(value, str | int | float):
        about["domain"] = str(value)
      elif ours or _is_provenance(key, value):
        about[key] = jsonable(value)
      else:
        rest[str(key)] = jsonable(value)
    if rest:
      only = set(rest) == {"metadata"} and isinstance(rest["metadata"], dict)
      about["metadata"] = rest["metadata"] if only else rest
    return about

  def _checked(self, record: dict[str, Any]) -> dict[str, Any] | Bad:
    """Returns the record unless its id was seen, or it cannot be written."""
    try:
      size = len(records.encode(record))
    except UnicodeEncodeError:
      return Bad("half a character: a lone surrogate")
    except (OverflowError, ValueError, TypeError, RecursionError) as error:
      return Bad(f"cannot be written ({error})")
    if size > self._corpus.max_row_mb << 20:
      return Bad(f"longer than {self._corpus.max_row_mb} MB (max_row_mb)")
    key = hashlib.blake2b(record["id"].encode(), digest_size=16).digest()
    if key in self._seen:
      return Bad(f"duplicate id: {record['id']}")
    self._seen.add(key)
    return record


def _needs(corpus: ImportCorpus) -> dict[str, tuple[str, ...]]:
  """Returns shape -> the columns that make it."""
  needs = {
    "text": (corpus.text_field,),
    "messages": (corpus.messages_field,),
    "conversations": ("conversations",),
    "prompt": (corpus.prompt_field, corpus.completion_field),
  }
  if corpus.messages_field == "conversations":
    del needs["conversations"]
  return needs


def _document(text: Any) -> dict[str, Any] | Bad:
  if not isinstance(text, str):
    return Bad(f"text is {turns.name_of(text)}")
  if not text.strip():
    return Bad("empty text")
  if "\0" in text:
    return Bad("NUL character")
  return {"kind": "document", "text": text}


def _is_provenance(key: str, value: Any) -> bool:
  return key in _PROVENANCE and isinstance(value, _PROVENANCE[key])


def jsonable(value: Any) -> Any:
  """Returns `value` as JSON has it: dates and decimals as text, NaN as null."""
  if value is None or isinstance(value, str | bool):
    return value
  if isinstance(value, int):
    return value if _SMALLEST <= value <= _LARGEST else str(value)
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, Mapping):
    return {str(key): jsonable(inner) for key, inner in value.items()}
  if isinstance(value, datetime.date | datetime.time):
    return value.isoformat()
  if isinstance(value, decimal.Decimal):
    return str(value)
  if isinstance(value, Iterable) and not isinstance(value, bytes):
    return [jsonable(inner) for inner in value]
  return str(value)
