"""Who shares a band of the signature with whom: a hash table in flat arrays.

A hundred thousand documents have millions of bands; as Python objects they would take
most of a gigabyte, here they take some twenty bytes each.
"""

import numpy as np

from data_gen.filters import words

_MAX_LOAD = 0.7
_NONE = -1
# A bucket of more members is that of a template: who is like one of them shares other
# buckets with it. Without a limit, a corpus from one mould takes quadratic time.
_MAX_DEPTH = 256


class Buckets:
  """The members of each bucket; members are numbered as they come."""

  def __init__(self, num_bands: int):
    self._num_bands = num_bands
    self._mask = (1 << 12) - 1
    self._keys = np.zeros(self._mask + 1, np.uint64)  # zero: free
    self._last = np.full(self._mask + 1, _NONE, np.int32)
    # The member that came before in the same bucket.
    self._before = np.empty((256, num_bands), np.int32)
    self._count = 0

  def __len__(self) -> int:
    return self._count

  def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the places of the buckets, and who is in one of them.

    Args:
      keys: uint64 [num_bands], above zero.

    Returns:
      int [num_bands] for `add`, and int [M], ascending; of a bucket with very many
      members, the latest.
    """
    slots = self._slots(keys)
    bands = np.flatnonzero(self._keys[slots])
    found = []
    current = self._last[slots[bands]]
    for _ in range(_MAX_DEPTH):
      if not len(current):
        break
      found.append(current)
      current = self._before[current, bands]
      more = current != _NONE
      current, bands = current[more], bands[more]
    members = words.distinct(np.concatenate(found)) if found else np.empty(0, np.int32)
    return slots, members

  def add(self, keys: np.ndarray, slots: np.ndarray) -> int:
    """Puts a new member into the buckets that were just found; returns its number."""
    member = self._count
    slots = self._claim(keys, slots)
    self._before[member] = self._last[slots]
    self._last[slots] = member
    self._count += 1
    self._make_room()
    return member

  def _slots(self, keys: np.ndarray) -> np.ndarray:
    """Returns where each key is, or the free place where it would go."""
    slots = (keys & np.uint64(self._mask)).astype(np.int64)
    pending = np.arange(len(keys))
    while len(pending):
      there = self._keys[slots[pending]]
      pending = pending[(there != keys[pending]) & (there != 0)]
      slots[pending] = (slots[pending] + 1) & self._mask
    return slots

  def _claim(self, keys: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """Returns where each key is, now that all of them have a place."""
    while True:
      free = self._keys[slots] == 0
      self._keys[slots[free]] = keys[free]  # of two that want one place, one gets it
      lost = np.flatnonzero(self._keys[slots] != keys)
      if not len(lost):
        return slots
      slots[lost] = self._slots(keys[lost])

  def _make_room(self) -> None:
    if self._count == len(self._before):
      more = np.empty_like(self._before)
      self._before = np.concatenate((self._before, more))
    if (self._count + 1) * self._num_bands > _MAX_LOAD * (self._mask + 1):
      used = self._keys != 0
      keys, last = self._keys[used], self._last[used]
      self._mask = 2 * self._mask + 1
      self._keys = np.zeros(self._mask + 1, np.uint64)
      self._last = np.full(self._mask + 1, _NONE, np.int32)
      self._last[self._claim(keys, self._slots(keys))] = last
