"""Which of the planned documents are made, and in what order: seeded and stratified."""

import random
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

T = TypeVar("T")


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
