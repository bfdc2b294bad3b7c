"""Which of the planned documents are made, and in what order: seeded and stratified."""

import bisect
import itertools
import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")
_NOTHING = object()
# The last items of the prefix may be exchanged for others of this window.
_GIVEN_BACK, _WINDOW = 8, 48


def stratified(
  items: Sequence[T], stratum: Callable[[T], Hashable], seed: int
) -> list[T]:
  """Returns all items so that every prefix is spread evenly over the strata.

  The strata take turns; inside a stratum the order is random. It depends on the seed
  and on the positions of the items, not on their content: two plans of the same shape
  are cut the same way.
  """
  rng = random.Random(seed)
  groups: dict[Hashable, list[T]] = {}
  for item in items:
    groups.setdefault(stratum(item), []).append(item)
  for group in groups.values():
    rng.shuffle(group)
  rounds = max(map(len, groups.values()), default=0)
  order = []
  for i in range(rounds):
    turn = [group[i] for group in groups.values() if i < len(group)]
    rng.shuffle(turn)
    order += turn
  return order


def nearest_prefix(sizes: Sequence[int], target: int) -> int:
  """Returns how many items from the front have the total size nearest to `target`."""
  best, best_gap, total = 0, target, 0
  for count, size in enumerate(sizes, start=1):
    total += size
    if abs(total - target) < best_gap:
      best, best_gap = count, abs(total - target)
  return best


def round_robin(
  items: Sequence[T], strata: Sequence[Callable[[T], Hashable]], seed: int
) -> list[T]:
  """Returns all items so that every prefix is spread evenly over several levels.

  The strata of the first level take turns; when it is the turn of one, those of the
  next level inside it take turns, and so on. As in `stratified`, only the seed and the
  positions of the items matter.
  """
  if not strata:
    return random.Random(seed).sample(items, len(items))
  groups: dict[Hashable, list[T]] = {}
  for item in items:
    groups.setdefault(strata[0](item), []).append(item)
  queues = [
    round_robin(group, strata[1:], seed + number)
    for number, group in enumerate(groups.values())
  ]
  rng = random.Random(seed)
  order = []
  for turn in itertools.zip_longest(*queues, fillvalue=_NOTHING):
    found = [item for item in turn if item is not _NOTHING]
    rng.shuffle(found)
    order += found
  return order


def to_budget(
  items: Sequence[T],
  budget: int,
  *,
  size: Callable[[T], int],
  strata: Sequence[Callable[[T], Hashable]] = (),
  seed: int = 0,
) -> list[T]:
  """Returns items, spread evenly over the strata, whose total size is the budget.

  The round robin is followed until little is left of the budget; what fits into the
  rest exactly is put together from the items that come next. Where nothing does, the
  total is the nearest one below that they can make: never above.

  Args:
    items: to choose from.
    budget: total size: words, or tokens if `size` counts tokens.
    size: of an item, above zero.
    strata: from the outer to the inner, such as section and document type.
    seed: of the choice; the same items and seed give the same choice.

  Returns:
    The chosen items in the order of the round robin.
  """
  order = round_robin(items, strata, seed)
  sizes = [size(item) for item in order]
  ends = list(itertools.accumulate(sizes))
  whole = bisect.bisect_right(ends, budget)
  if whole == len(order):
    return order
  start = max(whole - _GIVEN_BACK, 0)
  rest = budget - (ends[start - 1] if start else 0)
  stop = start + _WINDOW
  chosen = _fitting(sizes[start:stop], rest)
  return order[:start] + [order[start + place] for place in chosen]


def _fitting(sizes: Sequence[int], budget: int) -> list[int]:
  """Returns places of sizes whose sum is the largest that is within the budget.

  Among several choices it is the one that has the first places.
  """
  within = (1 << (budget + 1)) - 1
  reachable = [1]  # bit s of the k-th: the last k sizes can make s
  for size in reversed(sizes):
    bits = reachable[-1]
    reachable.append((bits | bits << size) & within)
  left = reachable.pop().bit_length() - 1
  chosen = []
  for place, size in enumerate(sizes):
    bits = reachable.pop()
    if size <= left and bits >> (left - size) & 1:
      chosen.append(place)
      left -= size
  return chosen
