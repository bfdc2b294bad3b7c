"""Asking for lists of distinct items: long ones in parts, short ones again."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from data_gen import filters
from data_gen.clients.settings import ClientSettings
from data_gen.documents.tree import Item
from data_gen.planning import calls
from data_gen.teacher import Teacher

# A list that came back too short is topped up so many times; one of many parts once
# more for every fourth part.
_TOP_UPS, _PARTS_PER_TOP_UP = 3, 4
# Parts are half as long as would fit: some items are longer than usual, and a list that
# was cut off cannot be read. No client is asked for parts shorter than the least.
_FULL, _SHORTEST_PART = 1 / 2, 10

Parse = Callable[[str], list[Item] | None]


def num_parts(stage: str, count: int, client: ClientSettings) -> int:
  """Returns in how many requests a list is asked for: one, if the answer fits.

  Args:
    stage: the stage, whose items have the usual size (`calls.LISTS`).
    count: items of the list.
    client: whose answers have at most `max_output_tokens`; what is offline has none.
  """
  each, most = calls.LISTS[stage], client.max_output_tokens
  if client.client == "offline" or count * each <= most:
    return 1
  return math.ceil(count / max(int(most * _FULL / each), _SHORTEST_PART))


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

  A list whose answer would be longer than the client lets it be is asked for in parts,
  each with the items so far.

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
  parts = [num_parts(stage, count, teacher.client) for count in counts]
  rounds = [n + max(_TOP_UPS, n // _PARTS_PER_TOP_UP) for n in parts]
  for number in range(max(rounds, default=0)):
    short = [
      i
      for i, count in enumerate(counts)
      if len(lists[i]) < count and number < rounds[i]
    ]
    batch = [
      fields[i]
      | {
        "count": min(counts[i] - len(lists[i]), math.ceil(counts[i] / parts[i])),
        "existing": [item[key] for item in lists[i]],
      }
      for i in short
    ]
    # Another sample each time: where nothing new came, the prompt is the same again.
    answers = await teacher.ask_parsed(stage, batch, parse, number * 10)
    for i, (found, reason) in zip(short, answers, strict=True):
      lists[i] = unique(lists[i] + (found or []), key)[: counts[i]]
      short_by = f"{len(lists[i])} of {counts[i]}"
      reasons[i] = reason or (short_by if len(lists[i]) < counts[i] else "")
  return list(zip(lists, reasons, strict=True))
