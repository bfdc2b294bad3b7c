"""A row of an evaluation set to a question with options: shape `choice`.

    {question, options: [{text, tags}]}     as our own files have them
    {question, option_a, option_b, label}   as `choice` in the config maps them

Nothing of an evaluation set is lost: what is wrong with a row ends the import.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen.importing.readers import Bad
from data_gen.importing.settings import SKIP, ChoiceColumns

SHAPE = "choice"
MIRRORED = "mirrored"  # the reason of rows that may be skipped
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERED = re.compile(r"[A-Z][.)]\s+")
Option = dict[str, Any]


class Choices:
  """Makes items of rows, and knows those that it made."""

  def __init__(self, columns: ChoiceColumns):
    """Takes the mapping of `config.corpora.<name>.choice`."""
    self._columns = columns
    self._seen: dict[tuple, tuple[str, list[str]]] = {}

  @property
  def used(self) -> set[str]:
    """The columns that an item is made of."""
    columns = self._columns
    single = (
      columns.question_field, columns.options_field, columns.answer_field,
      columns.category_field, columns.topic_field, columns.split_field,
    )  # fmt: skip
    return {name for name in (*single, *columns.option_fields) if name}

  def body(self, row: Mapping[str, Any], place: str) -> dict[str, Any] | Bad:
    """Returns kind, question, options and groups of a row.

    Args:
      row: its columns, nulls left out.
      place: `file:number`.
    """
    columns = self._columns
    question = columns.question
    if question is None:
      question = row.get(columns.question_field)
      if fault := _fault_of_text(columns.question_field, question):
        return fault
    if columns.question_ends is not None:
      parts = self._within(question)
      if isinstance(parts, Bad):
        return parts
      question, row = parts[0], {**row, columns.options_field: parts[1]}
    options = self._options(row)
    if isinstance(options, Bad):
      return options
    about = self._about(row)
    if isinstance(about, Bad):
      return about
    return self._repeated(question, options, place) or {
      "kind": SHAPE,
      "question": question,
      "options": options,
      **about,
    }

  def _within(self, text: str) -> tuple[str, list[str]] | Bad:
    """Returns the question and its options, which stand below it in lettered lines."""
    lines = [line.strip() for line in text.strip().splitlines()]
    at = [i for i, line in enumerate(lines) if _LETTERED.match(line)]
    whole = bool(at) and at[0] > 0 and at == list(range(at[0], at[0] + len(at)))
    if not whole or "".join(lines[i][0] for i in at) != _LETTERS[: len(at)]:
      return Bad(
        f"field {self._columns.question_field!r} is {text!r:.80}: below a question it "
        "has to have options, each in a line with its letter (A), from A on"
      )
    end = "\n".join(lines[at[-1] + 1 :])
    if end != self._columns.question_ends:
      return Bad(
        f"field {self._columns.question_field!r} ends in {end!r:.80}, and "
        f"question_ends is {self._columns.question_ends!r}"
      )
    options = [_LETTERED.sub("", lines[i]) for i in at]
    return "\n".join(lines[: at[0]]).strip(), options

  def _options(self, row: Mapping[str, Any]) -> list[Option] | Bad:
    columns = self._columns
    if columns.option_fields:
      fields = list(columns.option_fields)
      given = [row.get(field) for field in fields]
    else:
      given = row.get(columns.options_field)
      if not isinstance(given, Sequence) or isinstance(given, str):
        return _missing(columns.options_field, given, "a list")
      fields = [f"{columns.options_field}[{i}]" for i in range(len(given))]
    options = []
    for i, (field, value) in enumerate(zip(fields, given, strict=True)):
      option = _option(field, value)
      if isinstance(option, Bad):
        return option
      option["tags"] += columns.option_tags[i : i + 1] if columns.option_tags else []
      options.append(option)
    if not 2 <= len(options) <= len(_LETTERS):
      return Bad(
        f"field {columns.options_field!r} has {len(options)} options: 2 or more"
      )
    texts = [option["text"].strip().casefold() for option in options]
    if len(set(texts)) < len(texts):
      return Bad(f"fields {', '.join(fields)} have the same option twice")
    if columns.answer_field is not None:
      fault = self._mark(row, options, fields)
      if fault:
        return fault
    return options

  def _mark(self, row, options: list[Option], fields: Sequence[str]) -> Bad | None:
    """Gives its tag to the option that a row names, the other tag to the others."""
    columns = self._columns
    given = row.get(columns.answer_field)
    if given is None:
      return _missing(columns.answer_field, given, "an option")
    at = self._place(given, [option["text"] for option in options], fields)
    if at is None:
      return Bad(
        f"field {columns.answer_field!r} is {given!r:.80}: it names no option by "
        "letter, column or text (numbers: set numbered_from)"
      )
    for i, option in enumerate(options):
      tag = columns.answer_tag if i == at else columns.other_tag
      option["tags"] += [tag] if tag else []
    return None

  def _place(self, given: Any, texts: list[str], fields: Sequence[str]) -> int | None:
    """Returns which option a value names."""
    first = self._columns.numbered_from
    if first is not None:
      whole = isinstance(given, int | float) or str(given).strip().isdigit()
      at = int(given) - first if whole and not isinstance(given, bool) else -1
      return at if 0 <= at < len(texts) else None
    if not isinstance(given, str):
      return None
    letters = list(_LETTERS[: len(texts)])
    for names in (texts, fields, letters):
      folded = [name.strip().casefold() for name in names]
      if given.strip().casefold() in folded:
        return folded.index(given.strip().casefold())
    return None

  def _about(self, row: Mapping[str, Any]) -> dict[str, Any] | Bad:
    columns = self._columns
    about = {"split": columns.split}
    if columns.split_field is not None:
      about["split"] = row.get(columns.split_field)
      if about["split"] not in ("dev", "test"):
        return _missing(columns.split_field, about["split"], "'dev' or 'test'")
    for name in ("category", "topic"):
      field = getattr(columns, f"{name}_field")
      if field is None:
        continue
      value = row.get(field)
      if not isinstance(value, str | int) or isinstance(value, bool) or value == "":
        return _missing(field, value, "a text")
      about[name] = str(value)
    return about

  def _repeated(self, question: str, options: list[Option], place: str) -> Bad | None:
    """Returns what is wrong with an item that was there before, if it was."""
    texts = [option["text"] for option in options]
    key = (question, *sorted(texts))
    before, order = self._seen.setdefault(key, (place, texts))
    if before == place:
      return None
    if order == texts:
      return Bad(f"duplicate item: question and options are those of {before}")
    if self._columns.mirrored == SKIP:
      return Bad(f"{MIRRORED}: the options of {before} in another order")
    return Bad(
      f"duplicate item: the options are those of {before} in another order; an "
      "evaluation asks both orders of one item: set choice.mirrored='skip'"
    )


def _option(field: str, value: Any) -> Option | Bad:
  tags: Any = []
  if isinstance(value, Mapping):
    value, tags = value.get("text"), value.get("tags") or []
    field = f"{field}.text"
  if fault := _fault_of_text(field, value):
    return fault
  tags = [tags] if isinstance(tags, str) else list(tags)
  return {"text": value, "tags": tags}


def _fault_of_text(field: str, value: Any) -> Bad | None:
  if isinstance(value, str) and value.strip():
    return None
  return _missing(field, value, "a text")


def _missing(field: str, value: Any, wanted: str) -> Bad:
  if value is None:
    return Bad(f"missing field: {field!r}")
  return Bad(f"field {field!r} is {value!r:.80}: it has to be {wanted}")
