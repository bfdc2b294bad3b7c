"""Near duplicates: MinHash finds who could be one, the shingles themselves decide."""

import collections
import concurrent.futures
import itertools
import multiprocessing
import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from data_gen.filters import sketch
from data_gen.filters.buckets import Buckets

# A candidate whose signature is this much less similar than the threshold is no match:
# three and a half standard deviations of the estimate.
_SLACK = 0.15
_CHUNK = 256  # texts that a worker process takes at once


class Match(NamedTuple):
  """Who had a similar text first, and the Jaccard similarity of the two."""

  identity: str
  similarity: float


class NearDuplicates:
  """Remembers texts; finds those that share most of their runs of five words.

  Held in memory is about half a kilobyte per text; its shingles are in a temporary
  file. A text that is a near duplicate is not remembered.
  """

  def __init__(self, threshold: float):
    """`threshold` is the Jaccard similarity (0 to 1) from which on it is one."""
    self.threshold = threshold
    self._rows = sketch.band_rows(threshold)
    self._buckets = Buckets(sketch.NUM_PERMUTATIONS // self._rows)
    # The low halves of the signatures: enough to estimate a similarity.
    self._signatures = np.empty((256, sketch.NUM_PERMUTATIONS), np.uint16)
    self._identities: list[str] = []
    self._shelf: _Shelf | None = None

  def first_of(self, text: str, identity: str) -> Match | None:
    """Returns who had a similar text first; None, and remembers it, if nobody had."""
    return self._judge(sketch.sketch(text), identity)

  def first_of_all(
    self, texts: Iterable[tuple[str, str]], num_workers: int = 1
  ) -> Iterator[Match | None]:
    """Yields what `first_of` would, the hashing done in `num_workers` processes.

    Args:
      texts: (text, identity) of each, streamed.
      num_workers: with one, no process is started.
    """
    for identities, sketches in _sketched(texts, num_workers):
      for found, identity in zip(sketches, identities, strict=True):
        yield self._judge(found, identity)

  def _judge(self, new: sketch.Sketch, identity: str) -> Match | None:
    if not len(new.shingles):
      return None
    keys = sketch.band_keys(new.signature, self._rows)
    low = new.signature.astype(np.uint16)
    slots, candidates = self._buckets.find(keys)
    match = self._first_similar(candidates, new.shingles, low)
    if match is None:
      self._remember(self._buckets.add(keys, slots), low, new.shingles, identity)
    elif match.identity != identity:
      return match
    return None

  def _first_similar(
    self, candidates: np.ndarray, shingles: np.ndarray, low: np.ndarray
  ) -> Match | None:
    if not len(candidates):
      return None
    estimates = (self._signatures[candidates] == low).mean(axis=1)
    for member in candidates[estimates >= self.threshold - _SLACK].tolist():
      similarity = sketch.jaccard(self._shelf.get(member), shingles)
      if similarity >= self.threshold:
        return Match(self._identities[member], similarity)
    return None

  def _remember(
    self, member: int, low: np.ndarray, shingles: np.ndarray, identity: str
  ) -> None:
    if member == len(self._signatures):
      more = np.empty_like(self._signatures)
      self._signatures = np.concatenate((self._signatures, more))
    self._signatures[member] = low
    self._identities.append(identity)
    self._shelf = self._shelf or _Shelf()
    self._shelf.add(shingles)


class _Shelf:
  """Arrays of uint32, numbered, in a temporary file that goes with its owner."""

  def __init__(self) -> None:
    self._file, path = tempfile.mkstemp(prefix="msm-jax-shingles-")
    os.unlink(path)
    weakref.finalize(self, os.close, self._file)
    self._ends = np.zeros(256, np.int64)
    self._count = 0

  def add(self, array: np.ndarray) -> None:
    start = int(self._ends[self._count])
    data = memoryview(array).cast("B")
    while data:
      start += (written := os.pwrite(self._file, data, start))
      data = data[written:]
    self._count += 1
    if self._count == len(self._ends):
      self._ends = np.concatenate((self._ends, np.zeros_like(self._ends)))
    self._ends[self._count] = start

  def get(self, number: int) -> np.ndarray:
    start, end = self._ends[number : number + 2].tolist()
    return np.frombuffer(os.pread(self._file, end - start, start), np.uint32)


def _sketched(
  texts: Iterable[tuple[str, str]], num_workers: int
) -> Iterator[tuple[tuple[str, ...], list[sketch.Sketch]]]:
  """Yields (identities, sketches) of chunks of texts, in order."""
  stream = iter(texts)
  chunks = iter(lambda: tuple(itertools.islice(stream, _CHUNK)), ())
  if num_workers == 1:
    for chunk in chunks:
      bodies, identities = zip(*chunk, strict=True)
      yield identities, _sketch_all(bodies)
    return
  context = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(num_workers, context) as pool:
    waiting: collections.deque = collections.deque()
    for chunk in chunks:
      bodies, identities = zip(*chunk, strict=True)
      waiting.append((identities, pool.submit(_sketch_all, bodies)))
      if len(waiting) > 2 * num_workers:
        identities, future = waiting.popleft()
        yield identities, future.result()
    for identities, future in waiting:
      yield identities, future.result()


def _sketch_all(bodies: tuple[str, ...]) -> list[sketch.Sketch]:
  return [sketch.sketch(text) for text in bodies]
