"""Asking a teacher for lists: each item once, short lists topped up."""

from collections.abc import Callable, Sequence
from typing import Any

from data_gen import filters
from data_gen.documents.tree import Item
from data_gen.teacher import Teacher

# A list that came back too short is topped up so many times.
_TOP_UPS = 3

Parse = Callable[[str], list[Item] | None]


def unique(items: list[Item], key: str = "name") -> list[Item]:
  """Returns the items whose text under `key` did not come before."""
  seen = filters.Duplicates()
  return [
    item for i, item in enumerate(items) if seen.first_of(item[key], str(i)) is None
  ]


async def ask_once(
  teacher: Teacher, stage: str, fields: Sequence[dict[str, Any]], parse: Parse
) -> list[tuple[Any, str]]:
  """Asks equal requests once: two subdomains may come from the same section."""
  distinct = {repr(item): item for item in fields}
  answers = await teacher.ask_parsed(stage, list(distinct.values()), parse)
  by_key = dict(zip(distinct, answers, strict=True))
  return [by_key[repr(item)] for item in fields]


async def fill(
  teacher: Teacher,
  stage: str,
  fields: Sequence[dict[str, Any]],
  counts: Sequence[int],
  key: str,
  parse: Parse,
) -> list[tuple[list[Item], str]]:
  """Asks for lists of distinct items, topping up those that are short.

  Args:
    teacher: who is asked.
    stage: the stage; its prompt has `count` and `existing` as further fields.
    fields: the other fields of each request.
    counts: how many items each list is to have.
    key: what tells items apart.
    parse: text -> items.

  Returns:
    For each list its items and, if it is shorter than it should be, why.
  """
  lists: list[list[Item]] = [[] for _ in fields]
  reasons = [""] * len(lists)
  for top_up in range(1 + _TOP_UPS):
    short = [i for i, count in enumerate(counts) if len(lists[i]) < count]
    batch = [
      fields[i]
      | {
        "count": counts[i] - len(lists[i]),
        "existing": [item[key] for item in lists[i]],
      }
      for i in short
    ]
    # Another sample each time: where nothing new came, the prompt is the same again.
    answers = await teacher.ask_parsed(stage, batch, parse, top_up * 10)
    for i, (found, reason) in zip(short, answers, strict=True):
      lists[i] = unique(lists[i] + (found or []), key)[: counts[i]]
      short_by = f"{len(lists[i])} of {counts[i]}"
      reasons[i] = reason or (short_by if len(lists[i]) < counts[i] else "")
  return list(zip(lists, reasons, strict=True))
