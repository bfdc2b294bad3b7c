"""What repeats and what was not kept."""

import collections
from collections.abc import Mapping
from typing import Any

from data_gen import filters
from data_gen.audit.counting import Reservoir
from data_gen.audit.settings import AuditSettings
from data_gen.filters.near import NearDuplicates

_EXAMPLES = 10


class Duplicates:
  """Counts the records that repeat an earlier one."""

  def __init__(self, threshold: float | None):
    self._threshold = threshold
    self._exact = filters.Duplicates()
    self._near = None if threshold is None else NearDuplicates(threshold)
    self._num_exact = self._num_near = 0
    self._ids: list[str] = []  # records are told apart by their place: ids may lack
    self._examples: list[dict[str, Any]] = []

  def add(self, text: str, identity: str) -> None:
    place = str(len(self._ids))
    self._ids.append(identity)
    if not text.strip():
      return
    if first := self._exact.first_of(text, place):
      self._num_exact += 1
      self._example(identity, first, 1.0)
    elif self._near and (match := self._near.first_of(text, place)):
      self._num_near += 1
      self._example(identity, match.identity, match.similarity)

  def figures(self, total: int) -> dict[str, Any]:
    return {
      "exact": self._num_exact,
      "exact_share": self._num_exact / max(total, 1),
      "near": self._num_near if self._near else None,
      "near_share": self._num_near / max(total, 1) if self._near else None,
      "threshold": self._threshold,
      "examples": self._examples,
    }

  def _example(self, identity: str, first: str, similarity: float) -> None:
    if len(self._examples) < _EXAMPLES:
      of = self._ids[int(first)]
      row = {"id": identity, "of": of, "similarity": round(similarity, 3)}
      self._examples.append(row)


class Rejects:
  """Counts what was not kept, by its reason."""

  def __init__(self, settings: AuditSettings):
    self._reasons = collections.Counter[tuple[str, str]]()
    self._examples: dict[tuple[str, str], str] = {}
    self._num_records = self._num_branches = 0
    self.sample: Reservoir[Mapping[str, Any]] = Reservoir(
      settings.num_samples, settings.seed
    )

  def add(self, row: Mapping[str, Any]) -> None:
    reason = str(row.get("reason", ""))
    key = str(row.get("stage", "")), filters.category(reason)
    self._reasons[key] += 1
    self._examples.setdefault(key, reason[:200])
    if "id" in row:
      self._num_records += 1
      self.sample.add(row)
    else:
      self._num_branches += 1

  def figures(self, num_kept: int) -> dict[str, Any]:
    ranked = sorted(self._reasons.items(), key=lambda pair: (-pair[1], pair[0]))
    return {
      "records": self._num_records,
      "branches": self._num_branches,
      "share": self._num_records / max(self._num_records + num_kept, 1),
      "by_reason": [
        {"stage": key[0], "reason": key[1], "count": n, "example": self._examples[key]}
        for key, n in ranked
      ],
    }
