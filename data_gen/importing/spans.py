"""Stretches of a text in the rows of an import: checked before anything relies on them.

    loss_spans   [[start, end, weight]]   sorted, disjoint, in characters
    spans        [[start, end, label]]    what was put into the text

Tables and other tools give numbers of another type (`0.0` for `0`); these are mended.
"""

import itertools
import math
from typing import Any

from data_gen.importing.readers import Bad

SPANS, LOSS_SPANS = "spans", "loss_spans"


def mend(record: dict[str, Any]) -> Bad | None:
  """Mends the spans of a record in place; returns what cannot be mended.

  Columns of these names that are no spans of a document become `metadata`, but for loss
  weights of a document: without them, what is masked would be trained on.
  """
  for name, is_mark in ((LOSS_SPANS, _is_weight), (SPANS, _is_label)):
    if name not in record:
      continue
    found = None
    if "text" in record:
      found = _spans(record[name], len(record["text"]), is_mark)
      weights = name == LOSS_SPANS
      if weights and (found is None or _overlap(found)):
        return Bad(
          f"loss_spans: {str(record[name])[:80]} are no sorted [start, end, weight] "
          f"within the {len(record['text'])} characters of the text"
        )
    if found is None:
      about = record.get("metadata")
      about = about if isinstance(about, dict) else {}
      record["metadata"] = {**about, name: record.pop(name)}
    else:
      record[name] = found
  return None


def _spans(value: Any, length: int, is_mark: Any) -> list[list[Any]] | None:
  """Returns spans with whole numbers as ends; None if they are none."""
  found = []
  for span in value if isinstance(value, list) else [None]:
    if not isinstance(span, list) or len(span) != 3 or not is_mark(span[2]):
      return None
    if not all(_is_weight(end) and end == int(end) for end in span[:2]):
      return None
    start, end = map(int, span[:2])
    if not start <= end <= length:
      return None
    found.append([start, end, span[2]])
  return found


def _overlap(found: list[list[Any]]) -> bool:
  return any(one[1] > next_[0] for one, next_ in itertools.pairwise(found))


def _is_weight(value: Any) -> bool:
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return is_number and 0 <= value < math.inf


def _is_label(value: Any) -> bool:
  return isinstance(value, str)
