"""Corpora that are made like another one: of its document types."""

import collections
import dataclasses
import math
import pathlib
import random
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeVar

from msm_jax import errors, records

T = TypeVar("T")
# Ideas beyond those needed, for documents that are rejected.
_SPARE = 1.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class TypeShare:
  """A document type of another corpus and how many documents it has there."""

  name: str
  description: str
  count: int


def told_types(directory: pathlib.Path) -> tuple[TypeShare, ...]:
  """Returns the document types of a corpus on disk, in the order of its documents.

  Raises:
    UserError: its documents have no types.
  """
  told = records.read_manifest(directory).get("document_types")
  if told is not None:
    return tuple(TypeShare(**kind) for kind in told)
  rows = records.read_dataset(directory, verify=False)
  counts = collections.Counter(row.get("doc_type", "") for row in rows)
  if not any(counts):
    raise errors.UserError(f"{directory}: its documents have no types to be matched")
  return tuple(
    TypeShare(name=name, description="", count=n) for name, n in counts.items() if name
  )


def tell_types(kinds: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
  """Returns (name, description) of every document as the manifest says it."""
  counts = collections.Counter(name for name, _ in kinds)
  descriptions = dict(reversed(kinds))
  return [
    {"name": name, "description": descriptions[name], "count": count}
    for name, count in counts.items()
  ]


def lists_needed(count: int, per_list: int) -> int:
  """Returns how many lists of ideas so many documents need, with some to spare."""
  return math.ceil(_SPARE * count / per_list)


def proportional(
  items: Sequence[T],
  groups: Sequence[Hashable],
  shares: Mapping[Hashable, int],
  seed: int,
) -> list[T]:
  """Returns all items so that every prefix has the groups in the same shares.

  Args:
    items: what is put in order; inside a group they keep theirs.
    groups: the group of each item.
    shares: group -> relative number; what runs out early is missing from then on.
    seed: of where in its turn each group begins.
  """
  rng = random.Random(seed)
  members: dict[Hashable, list[T]] = {}
  for item, group in zip(items, groups, strict=True):
    members.setdefault(group, []).append(item)
  placed: list[tuple[float, int, T]] = []
  for group, found in members.items():
    offset = rng.random()
    placed += [
      ((i + offset) / shares[group], len(placed) + i, item)
      for i, item in enumerate(found)
    ]
  return [item for _, _, item in sorted(placed, key=lambda place: place[:2])]
