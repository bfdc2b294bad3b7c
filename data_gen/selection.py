"""Which of the planned documents are made, and in what order: seeded and stratified."""

import bisect
import itertools
import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")
_NOTHING = object()
# So many of the last items may be exchanged for those that come after them, as long as
# they make no more than so much: beyond that, sums are too long to be tried.
_GIVEN_BACK, _NEXT, _LARGEST_REST = 48, 48, 1 << 21


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


def round_robin(
  items: Sequence[T],
  strata: Sequence[Callable[[T], Hashable]],
  seed: int | str | None,
) -> list[T]:
  """Returns all items so that every prefix is spread evenly over several levels.

  The strata of the first level take turns; when it is the turn of one, those of the
  next level inside it take turns, and so on. As in `stratified`, only the seed and the
  positions of the items matter; without a seed nothing is drawn, and inside a stratum
  the items keep their order.
  """
  if not strata:
    return _drawn(items, seed)
  groups: dict[Hashable, list[T]] = {}
  for item in items:
    groups.setdefault(strata[0](item), []).append(item)
  queues = [
    # Each stratum draws by itself, or all would begin with the same one inside.
    round_robin(group, strata[1:], None if seed is None else f"{seed}/{number}")
    for number, group in enumerate(groups.values())
  ]
  rng = None if seed is None else random.Random(seed)
  order = []
  for turn in itertools.zip_longest(*queues, fillvalue=_NOTHING):
    found = [item for item in turn if item is not _NOTHING]
    if rng is not None:
      rng.shuffle(found)
    order += found
  return order


def _drawn(items: Sequence[T], seed: int | str | None) -> list[T]:
  if seed is None:
    return list(items)
  return random.Random(seed).sample(items, len(items))


def to_budget(
  items: Sequence[T],
  budget: int,
  *,
  size: Callable[[T], int],
  strata: Sequence[Callable[[T], Hashable]] = (),
  seed: int | None = 0,
) -> list[T]:
  """Returns items, spread evenly over the strata, whose total size is the budget.

  As `fill` does along the round robin: see there how exact it is.

  Args:
    items: to choose from.
    budget: total size: words, or tokens if `size` counts tokens.
    size: of an item, above zero.
    strata: from the outer to the inner, such as section and document type.
    seed: of the choice; the same items and seed give the same choice. None: nothing is
      drawn, what comes first is chosen first.

  Returns:
    The chosen items in the order of the round robin.
  """
  order = round_robin(items, strata, seed)
  return [order[place] for place in fill([size(item) for item in order], budget)]


def fill(sizes: Sequence[int], budget: int) -> list[int]:
  """Returns the places of the sizes that make the budget, the first ones first.

  The order is followed until little is left of the budget; what fits into the rest is
  put together from the last sizes and the next ones. If those cannot make it exactly,
  the total is the nearest one below that they can make: never above.
  """
  ends = [0, *itertools.accumulate(sizes)]
  whole = bisect.bisect_right(ends, budget) - 1
  if whole == len(sizes):
    return list(range(whole))
  start = max(whole - _GIVEN_BACK, 0)
  start = min(max(start, bisect.bisect_left(ends, budget - _LARGEST_REST)), whole)
  chosen = _fitting(sizes[start : whole + _NEXT], budget - ends[start])
  return [*range(start), *(start + place for place in chosen)]


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
