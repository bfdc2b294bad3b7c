"""Tokens with loss weights, in memory or on disk.

A piece is what one record becomes, or a part of it. The pieces of a large corpus do not
fit into memory, so they are written to a directory as they are encoded and read back
one by one, by index:

    ids.i32      the token ids, piece after piece
    weights.f32  the loss weights of pieces that are not trained on everywhere
    index.npz    where each piece begins; its presence means: complete

`Pieces` holds the index alone. Cutting and choosing makes another index over the same
tokens.
"""

import dataclasses
import functools
import os
import pathlib
import shutil
import weakref
from collections.abc import Iterable, Sequence

import numpy as np

_INDEX = "index.npz"


@dataclasses.dataclass(frozen=True)
class Piece:
  """Tokens that stay together in a row: ids int32 [n], loss weights float32 [n]."""

  ids: np.ndarray
  weights: np.ndarray

  @property
  def num_slots(self) -> int:
    """Returns how many places of a row it fills."""
    return len(self.ids) - 1


@dataclasses.dataclass(frozen=True)
class FileArray:
  """A flat array in a file, of which slices are read when they are asked for."""

  path: pathlib.Path
  dtype: np.dtype

  def __getitem__(self, span: slice) -> np.ndarray:
    size = self.dtype.itemsize
    length = (span.stop - span.start) * size
    data = os.pread(self._handle, length, span.start * size)
    assert len(data) == length, f"{self.path} is shorter than its index says"
    return np.frombuffer(data, self.dtype)

  @functools.cached_property
  def _handle(self) -> int:
    handle = os.open(self.path, os.O_RDONLY)
    weakref.finalize(self, os.close, handle)
    return handle


@dataclasses.dataclass(frozen=True, eq=False)
class Pieces(Sequence[Piece]):
  """Pieces by index. Arrays are int64 [n] but for `is_document`, bool [n].

  Attributes:
    ids: every token id, flat.
    weights: loss weights, flat, of pieces that are not 1 everywhere.
    starts: where a piece begins in `ids`.
    sizes: its number of tokens.
    weight_starts: where it begins in `weights`, -1 if it is 1 everywhere.
    records: the number of its record in the corpus.
    is_document: whether it may be cut where a row ends.
  """

  ids: np.ndarray | FileArray
  weights: np.ndarray | FileArray
  starts: np.ndarray
  sizes: np.ndarray
  weight_starts: np.ndarray
  records: np.ndarray
  is_document: np.ndarray

  def __len__(self) -> int:
    return len(self.starts)

  def __getitem__(self, i: int) -> Piece:
    start, size = int(self.starts[i]), int(self.sizes[i])
    return Piece(self.ids[start : start + size], self._weights(i))

  def _weights(self, i: int) -> np.ndarray:
    start, size = int(self.weight_starts[i]), int(self.sizes[i])
    if start < 0:
      return np.ones(size, np.float32)
    return self.weights[start : start + size]

  @property
  def num_slots(self) -> np.ndarray:
    """Returns how many places of a row each fills."""
    return self.sizes - 1

  @functools.cached_property
  def num_targets(self) -> np.ndarray:
    """Returns how many tokens of each are a target with a weight above 0."""
    found = self.num_slots.copy()
    for i in np.flatnonzero(self.weight_starts >= 0).tolist():
      found[i] = np.count_nonzero(self._weights(i)[1:])
    return found

  def take(self, which: np.ndarray) -> "Pieces":
    """Returns the pieces with these numbers (or True in a mask), in that order."""
    return dataclasses.replace(
      self, **{name: getattr(self, name)[which] for name in _COLUMNS}
    )

  def cut(self, which: np.ndarray, begins: np.ndarray, sizes: np.ndarray) -> "Pieces":
    """Returns parts: of piece `which[k]`, `sizes[k]` tokens from its `begins[k]`th."""
    parts = self.take(which)
    weighted = parts.weight_starts >= 0
    return dataclasses.replace(
      parts,
      starts=parts.starts + begins,
      sizes=np.asarray(sizes, np.int64),
      weight_starts=np.where(weighted, parts.weight_starts + begins, -1),
    )


_COLUMNS = ("starts", "sizes", "weight_starts", "records", "is_document")


def gather(pieces: Iterable[Piece], is_document: bool = True) -> Pieces:
  """Returns pieces as `Pieces`, in memory; each is a record of its own."""
  pieces = list(pieces)
  return _table(
    np.concatenate([np.zeros(0, np.int32), *(piece.ids for piece in pieces)]),
    np.concatenate([np.zeros(0, np.float32), *(p.weights for p in pieces)]),
    sizes=np.asarray([len(piece.ids) for piece in pieces], np.int64),
    weighted=np.ones(len(pieces), bool),
    is_document=np.full(len(pieces), is_document),
  )


def join(first: Pieces, second: Pieces) -> Pieces:
  """Returns the pieces of both, which are of one corpus."""
  assert first.ids is second.ids
  columns = {
    name: np.concatenate([getattr(first, name), getattr(second, name)])
    for name in _COLUMNS
  }
  return dataclasses.replace(first, **columns)


def _table(ids, weights, sizes, weighted, is_document) -> Pieces:
  """Returns pieces that lie one after the other."""
  lengths = np.where(weighted, sizes, 0)
  return Pieces(
    ids=ids,
    weights=weights,
    starts=np.cumsum(sizes) - sizes,
    sizes=sizes,
    weight_starts=np.where(weighted, np.cumsum(lengths) - lengths, -1),
    records=np.arange(len(sizes)),
    is_document=is_document,
  )


def write(directory: pathlib.Path, pieces: Iterable[tuple[Piece, bool]]) -> None:
  """Writes pieces to `directory`, which appears complete or not at all.

  Args:
    directory: must not exist yet.
    pieces: streamed once, (piece, is it a document?); each is a record of its own.
  """
  temporary = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir(parents=True)
  try:
    sizes, weighted, kinds = [], [], []
    with (
      open(temporary / "ids.i32", "wb") as ids,
      open(temporary / "weights.f32", "wb") as weights,
    ):
      for piece, is_document in pieces:
        ids.write(piece.ids.astype("<i4").tobytes())
        sizes.append(len(piece.ids))
        weighted.append(not (piece.weights[1:] == 1).all())
        if weighted[-1]:
          weights.write(piece.weights.astype("<f4").tobytes())
        kinds.append(is_document)
    np.savez(
      temporary / _INDEX,
      sizes=np.asarray(sizes, np.int64),
      weighted=np.asarray(weighted, bool),
      is_document=np.asarray(kinds, bool),
    )
    os.replace(temporary, directory)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def read(directory: pathlib.Path) -> Pieces | None:
  """Returns the pieces in a directory; None where `write` made none."""
  if not (directory / _INDEX).exists():
    return None
  with np.load(directory / _INDEX) as index:
    return _table(
      FileArray(directory / "ids.i32", np.dtype("<i4")),
      FileArray(directory / "weights.f32", np.dtype("<f4")),
      **index,
    )
