"""Counts of very many things in little memory, exact as long as there are few."""

import heapq
import random
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

import numpy as np

from data_gen.filters import words

T = TypeVar("T")


class Frequent:
  """What is in the most documents: lossy counting (Manku and Motwani 2002).

  Counts are exact until more than `limit` things were seen; from then on rare ones are
  forgotten, and a count is too high by at most `error`.
  """

  def __init__(self, limit: int = 200_000):
    self._counts: dict[str, int] = {}
    self._limit = limit
    self.error = 0

  def add(self, things: Iterable[str]) -> None:
    """Counts the distinct things of one document."""
    for thing in dict.fromkeys(things):
      self._counts[thing] = self._counts.get(thing, self.error) + 1
    while len(self._counts) > self._limit:
      self.error += 1
      kept = {key: n for key, n in self._counts.items() if n > self.error}
      self._counts = kept

  def most(
    self, count: int, least: int = 1, among: Callable[[str], bool] = bool
  ) -> list[tuple[str, int]]:
    """Returns up to `count` (thing, documents), those of `least` documents at least.

    Only things that are `among` those asked for, by default all, are looked at.
    """
    ranked = ((n, key) for key, n in self._counts.items() if n >= least and among(key))
    best = heapq.nsmallest(count, ranked, key=lambda pair: (-pair[0], pair[1]))
    return [(key, n) for n, key in best]


class Distinct:
  """How many different hashes there were: exact up to `limit`, then an estimate.

  The `limit` smallest hashes are kept; how close they lie says how many there are (Bar-
  Yossef et al. 2002); the standard error is one in sqrt(limit), 0.4 %.
  """

  def __init__(self, limit: int = 1 << 16):
    self._kept = np.empty(0, np.uint64)
    self._limit = limit
    self._waiting: list[np.ndarray] = []
    self._num_waiting = 0

  def add(self, hashes: np.ndarray) -> None:
    """Counts uint64 [N] hashes."""
    if len(self._kept) == self._limit:
      hashes = hashes[hashes < self._kept[-1]]
    self._waiting.append(hashes)
    self._num_waiting += len(hashes)
    if self._num_waiting > self._limit:
      self._merge()

  @property
  def is_estimate(self) -> bool:
    """Whether there were more than could be counted."""
    self._merge()
    return len(self._kept) == self._limit

  @property
  def count(self) -> int:
    """The number of different hashes."""
    if not self.is_estimate:
      return len(self._kept)
    return round((self._limit - 1) / (float(self._kept[-1]) + 1) * 2.0**64)

  def _merge(self) -> None:
    merged = words.distinct(np.concatenate((self._kept, *self._waiting)))
    self._kept = merged[: self._limit]
    self._waiting, self._num_waiting = [], 0


class Reservoir(Generic[T]):
  """A uniform sample of a stream, the same for the same stream and seed."""

  def __init__(self, size: int, seed: int):
    self._rng = random.Random(seed)
    self._size, self._seen = size, 0
    self._items: list[tuple[int, T]] = []

  def add(self, item: T) -> None:
    """Offers an item (algorithm R)."""
    place = self._rng.randrange(self._seen + 1)
    if len(self._items) < self._size:
      self._items.append((self._seen, item))
    elif place < self._size:
      self._items[place] = (self._seen, item)
    self._seen += 1

  def items(self) -> list[T]:
    """Returns the sample in the order of the stream."""
    return [item for _, item in sorted(self._items, key=lambda pair: pair[0])]
