"""The bytes of one tensor of theirs into any parts of our leaf, block by block.

A block is some rows of their matrix, small enough to stay in the cache while it is
read, checked for NaN, cast and transposed. Of every tensor only the rows and columns
that somebody wants are read, each once, however many want them.
"""

import functools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import numpy as np

from msm_jax.errors import UserError
from msm_jax.hf import names, tensor_files, tensor_format, tiles

_BLOCK_BYTES = 4 << 20
Index = tuple[slice, ...]
Interval = tuple[int, int]
Task = Callable[[], None]
_scratch = threading.local()


class Files(Protocol):
  """Tensors by name: a `TensorFile` or `TensorFiles`."""

  def path(self, name: str) -> os.PathLike[str]: ...
  def dtype(self, name: str) -> np.dtype: ...
  def tensor(self, name: str) -> np.ndarray: ...
  def read(
    self,
    name: str,
    num_columns: int,
    rows: Interval,
    columns: Interval,
    out: np.ndarray,
  ) -> None: ...


def tasks(
  files: Files, part: names.Tensor, targets: Sequence[tuple[Index, np.ndarray]]
) -> Iterator[Task]:
  """Yields what is to be done so that every target holds its part of a tensor."""
  by_rows: dict[Interval, list[tuple[Interval, np.ndarray]]] = {}
  for index, buffer in targets:
    place = place_of(part, index)
    if place is None:
      yield functools.partial(_copy_whole, files, part, index, buffer)
    else:
      rows, columns = place
      by_rows.setdefault(rows, []).append((columns, as_theirs(part, buffer)))
  num_columns = math.prod(_columns_and_rows(part, part.leaf_shape)[0])
  row_bytes = num_columns * files.dtype(part.name).itemsize
  step = max(1, _BLOCK_BYTES // max(1, row_bytes))
  for (first, last), wanted in by_rows.items():
    for start in range(first, last, step):
      rows = (start, min(start + step, last))
      block = [(cols, v[start - first : rows[1] - first]) for cols, v in wanted]
      yield functools.partial(_copy_block, files, part, num_columns, rows, block)


def place_of(part: names.Tensor, index: Index) -> tuple[Interval, Interval] | None:
  """Returns which rows and columns of their matrix a part of our slice is.

  None where it is no such rectangle: an inner one of several dimensions that are
  flattened for them is divided.
  """
  ins, outs = _columns_and_rows(part, part.leaf_shape)
  in_index, out_index = _columns_and_rows(part, index)
  rows, columns = _flat(out_index, outs), _flat(in_index, ins)
  return None if rows is None or columns is None else (rows, columns)


def as_theirs(part: names.Tensor, ours: np.ndarray) -> np.ndarray:
  """Returns a part of our slice, contiguous, as a view of [rows, columns] of theirs."""
  ins, outs = _columns_and_rows(part, ours.shape)
  if part.num_in_dims:
    return ours.reshape(math.prod(ins), math.prod(outs)).T
  return ours.reshape(math.prod(outs), math.prod(ins))


def _copy_block(files, part, num_columns: int, rows: Interval, wanted) -> None:
  """Reads `rows` of a tensor and copies the columns that each target wants."""
  dtype = files.dtype(part.name)
  # What lies less than a page apart is read together anyway.
  gap = tensor_files.PAGE // dtype.itemsize
  for low, high in _merged((columns for columns, _ in wanted), gap):
    block = _buffer((rows[1] - rows[0], high - low), dtype)
    files.read(part.name, num_columns, rows, (low, high), block)
    _check_finite(block, files, part)
    for (first, last), view in wanted:
      if low <= first and last <= high:
        values = block[:, first - low : last - low]
        tiles.copy(view, _cast(values, view.dtype, files, part))


def _copy_whole(files, part, index: Index, buffer: np.ndarray) -> None:
  """The way for shardings that divide an inner dimension of a flattened one."""
  theirs = files.tensor(part.name)
  _check_finite(theirs, files, part)
  values = part.to_leaf(theirs)[index]
  np.copyto(buffer, _cast(values, buffer.dtype, files, part), casting="unsafe")


def _cast(values: np.ndarray, dtype: np.dtype, files, part) -> np.ndarray:
  """Returns `values`, cast now if `dtype` might not hold them."""
  if dtype == values.dtype or dtype.itemsize > values.dtype.itemsize:
    return values
  with np.errstate(over="ignore"):
    cast = np.ascontiguousarray(values).astype(dtype)
  if not tensor_format.is_finite(cast):
    raise UserError(
      f"{files.path(part.name)}: tensor {part.name} holds values beyond the range of "
      f"{dtype}: load it as {values.dtype}"
    )
  return cast


def _check_finite(values: np.ndarray, files, part) -> None:
  if not tensor_format.is_finite(values):
    raise UserError(
      f"{files.path(part.name)}: tensor {part.name} holds NaN or infinite values: the "
      "weights are damaged; download or export them again"
    )


def _buffer(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
  """Returns memory that this thread uses again and again."""
  size = math.prod(shape) * dtype.itemsize
  if getattr(_scratch, "memory", np.empty(0)).nbytes < size:
    _scratch.memory = np.empty(max(size, _BLOCK_BYTES), np.uint8)
  return _scratch.memory[:size].view(dtype).reshape(shape)


def _columns_and_rows(part: names.Tensor, dims: tuple) -> tuple[tuple, tuple]:
  """Splits what is said about our dimensions into their columns and their rows."""
  if part.num_in_dims:
    return dims[: part.num_in_dims], dims[part.num_in_dims :]
  return dims[-1:], dims[:-1]


def _flat(index: Index, dims: tuple[int, ...]) -> Interval | None:
  """Returns the range of flattened `dims` that `index` is; None if it is no range."""
  bounds = [_bounds(part, size) for part, size in zip(index, dims, strict=True)]
  whole = [bound == (0, size) for bound, size in zip(bounds, dims, strict=True)]
  if not all(whole[1:]):
    return None
  inner = math.prod(dims[1:])
  first, last = bounds[0] if bounds else (0, 1)
  return first * inner, last * inner


def _bounds(part: slice, size: int) -> Interval:
  first, last, _ = part.indices(size)
  return first, last


def _merged(intervals: Iterable[Interval], gap: int) -> list[Interval]:
  """Returns intervals that cover the given ones and are at least `gap` apart."""
  found: list[Interval] = []
  for first, last in sorted(intervals):
    if found and first < found[-1][1] + gap:
      found[-1] = (found[-1][0], max(last, found[-1][1]))
    else:
      found.append((first, last))
  return found
