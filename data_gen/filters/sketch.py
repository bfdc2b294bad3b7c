"""A text as a set of shingles and as the MinHash signature of that set.

Broder 1997, "On the resemblance and containment of documents": two signatures agree at
a place with a probability that is the Jaccard similarity of the sets.
"""

from typing import NamedTuple

import numpy as np

from data_gen.filters import words

SHINGLE_WORDS = 5
NUM_PERMUTATIONS = 128
_MIN_RECALL = 0.98  # of pairs that are just as similar as the threshold
_COLUMNS = 1024  # shingles at once, so that the products stay in the cache


def _constants(seed: int) -> np.ndarray:
  at = np.arange(seed, seed + NUM_PERMUTATIONS, dtype=np.uint64)
  return (words.mixed(at * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)).astype(
    np.uint32
  )[:, None]


_FACTORS = _constants(1) | np.uint32(1)  # an odd factor permutes the 32-bit numbers
_MASKS = _constants(1001)


class Sketch(NamedTuple):
  """uint32 [S] distinct shingles, ascending; uint32 [NUM_PERMUTATIONS] signature."""

  shingles: np.ndarray
  signature: np.ndarray


def sketch(text: str) -> Sketch:
  """Returns the sketch of a text; without words it has no shingles."""
  hashes = words.ngrams(words.numbers(text), SHINGLE_WORDS)
  shingles = words.distinct((hashes >> np.uint64(32)).astype(np.uint32))
  return Sketch(shingles, _signature(shingles))


def _signature(shingles: np.ndarray) -> np.ndarray:
  least = np.full(NUM_PERMUTATIONS, 0xFFFFFFFF, np.uint32)
  for start in range(0, len(shingles), _COLUMNS):
    permuted = (shingles[start : start + _COLUMNS] ^ _MASKS) * _FACTORS
    np.minimum(least, permuted.min(axis=1), out=least)
  return least


def jaccard(one: np.ndarray, two: np.ndarray) -> float:
  """Returns the share of common elements of two ascending arrays without doubles."""
  merged = np.sort(np.concatenate((one, two)))
  shared = int(np.count_nonzero(merged[1:] == merged[:-1]))
  return shared / max(len(merged) - shared, 1)


def band_rows(threshold: float) -> int:
  """Returns how many places of the signature make a band.

  The more, the fewer pairs are candidates for nothing. Of pairs as similar as
  `threshold`, at least `_MIN_RECALL` agree in one of the bands.
  """
  for rows in range(NUM_PERMUTATIONS // 2, 1, -1):
    bands = NUM_PERMUTATIONS // rows
    if 1 - (1 - threshold**rows) ** bands >= _MIN_RECALL:
      return rows
  return 1


def band_keys(signature: np.ndarray, rows: int) -> np.ndarray:
  """Returns a number above zero for each band of `rows` places: uint64 [bands]."""
  bands = NUM_PERMUTATIONS // rows
  parts = signature[: bands * rows].reshape(bands, rows)
  keys = np.arange(1, bands + 1, dtype=np.uint64)
  for column in parts.T:
    keys *= np.uint64(0x9E3779B97F4A7C15)
    keys += column
  return np.maximum(words.mixed(keys), np.uint64(1))
