"""Small samples of what is going to be made: the first of each stratum."""

import collections
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def first_of_each(
  items: Iterable[T], stratum: Callable[[T], Hashable], count: int | None
) -> Iterator[T]:
  """Yields the first `count` items of each stratum, in the order of all items.

  Args:
    items: in the order in which they are made.
    stratum: item -> what it belongs to.
    count: how many of each; None: all.
  """
  taken: collections.Counter[Hashable] = collections.Counter()
  for item in items:
    key = stratum(item)
    taken[key] += 1
    if count is None or taken[key] <= count:
      yield item
