"""Writing safetensors files as a stream: every offset is known before the first tensor.

A tensor is cast and laid out in blocks by a few threads while the block before is
written. What was written is read back in samples before the file counts.

When several processes run, all of them go through the tensors (to compute one may take
all of them), process 0 writes, and an error anywhere is raised everywhere.
"""

import collections
import concurrent.futures
import contextlib
import dataclasses
import errno
import functools
import itertools
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np

from msm_jax import distributed, records
from msm_jax.errors import UserError
from msm_jax.hf import tensor_format, tiles
from msm_jax.hf.stream import Seal, Stream
from msm_jax.hf.tensor_format import Plan

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARD_BYTES = 5 * 10**9
_BLOCK_BYTES = 8 << 20
_NUM_AHEAD = 3  # blocks that are made while one is written


@dataclasses.dataclass(frozen=True)
class Pieces:
  """A tensor that lies in pieces: (first row, first column, matrix) of each.

  Rows are the first dimension of `shape`, columns the others; a tensor of one dimension
  is a single row.
  """

  shape: tuple[int, ...]
  pieces: Sequence[tuple[int, int, np.ndarray]]

  @property
  def itemsize(self) -> int:
    """Returns the bytes of a value where it lies."""
    return self.pieces[0][2].dtype.itemsize

  def copy_rows(self, first: int, out: np.ndarray) -> None:
    """Copies rows from `first` on into `out` [rows, columns], casting."""
    for row, column, matrix in self._within(first, first + out.shape[0]):
      there = out[row - first :][: matrix.shape[0], column : column + matrix.shape[1]]
      tiles.copy(there, matrix)

  def is_finite(self, first: int, last: int) -> bool:
    """Returns whether rows hold finite values only."""
    return all(
      bool(np.isfinite(matrix.astype(np.float64)).all())
      for _, _, matrix in self._within(first, last)
    )

  def _within(self, first: int, last: int) -> Iterator[tuple[int, int, np.ndarray]]:
    for row, column, matrix in self.pieces:
      low, high = max(first, row), min(last, row + matrix.shape[0])
      if low < high:
        yield low, column, matrix[low - row : high - row]


Tensors = Callable[[str], np.ndarray | Pieces | None]


class Journal(Protocol):
  """Remembers which files of an interrupted export are complete."""

  def is_finished(self, path: pathlib.Path) -> bool: ...
  def add(self, path: pathlib.Path, seal: Seal) -> None: ...


def write_file(
  path: str | os.PathLike[str], shapes: Plan, dtype: np.dtype, tensor: Tensors
) -> Seal | None:
  """Writes one file: the header first, then tensor by tensor.

  Args:
    path: of the new file.
    shapes: every tensor's shape, in the order of writing.
    dtype: of every tensor.
    tensor: returns a tensor by its name, whole or in pieces; called once for each, in
      order, on every process. What it returns matters on process 0 only and must not
      change later.

  Returns:
    The seal of the file; None on processes other than 0.

  Raises:
    UserError: a value is NaN or infinite, or would be in `dtype`.
    OSError: the disk is full, or does not give back what was written.
  """
  with distributed.together():
    if not distributed.is_first():
      for name in shapes:
        distributed.agree()
        tensor(name)
      return None
    return _write(path, shapes, dtype, tensor)


def write_files(
  directory: str | os.PathLike[str],
  shapes: Plan,
  dtype: np.dtype,
  tensor: Tensors,
  max_shard_bytes: int = MAX_SHARD_BYTES,
  journal: Journal | None = None,
) -> None:
  """Writes a model's tensors as one file, or as shards with an index.

  A shard holds at most `max_shard_bytes`, or one tensor that is larger. Files that are
  in the journal are not written again.
  """
  directory = pathlib.Path(directory)
  shards = list(_shards(shapes, dtype, max_shard_bytes))
  files = _file_names(len(shards))
  num_finished = _num_finished([directory / file for file in files], journal)
  for file, shard in list(zip(files, shards, strict=True))[num_finished:]:
    seal = write_file(directory / file, shard, dtype, tensor)
    if journal is not None and seal is not None:
      journal.add(directory / file, seal)
  if len(shards) > 1 and distributed.is_first():
    num_params = sum(math.prod(shape) for shape in shapes.values())
    size = {"total_parameters": num_params, "total_size": num_params * dtype.itemsize}
    places = zip(files, shards, strict=True)
    weight_map = {name: file for file, shard in places for name in shard}
    index = {"metadata": size, "weight_map": weight_map}
    records.write_json(directory / INDEX_FILE, index)


def _file_names(count: int) -> list[str]:
  if count == 1:
    return [SINGLE_FILE]
  return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def _shards(shapes: Plan, dtype: np.dtype, max_bytes: int) -> Iterator[Plan]:
  shard: dict[str, Sequence[int]] = {}
  filled = 0
  for name, shape in shapes.items():
    size = math.prod(shape) * dtype.itemsize
    if shard and filled + size > max_bytes:
      yield shard
      shard, filled = {}, 0
    shard[name] = shape
    filled += size
  yield shard


def _num_finished(paths: Sequence[pathlib.Path], journal: Journal | None) -> int:
  """Returns how many files are complete from the first on; process 0 knows."""
  found = 0
  with distributed.together():
    if journal is not None and distributed.is_first():
      finished = itertools.takewhile(journal.is_finished, paths)
      found = sum(1 for _ in finished)
  return int(distributed.exchange(str(found))[0])


def _write(
  path: str | os.PathLike[str], shapes: Plan, dtype: np.dtype, tensor: Tensors
) -> Seal:
  """Writes the file, looks at what the disk gives back, and returns its seal."""
  memory = _Memory()
  with (
    open(path, "wb") as file,
    contextlib.closing(Stream(file)) as stream,
    concurrent.futures.ThreadPoolExecutor(tiles.num_threads()) as pool,
  ):
    stream.write(tensor_format.header_bytes(shapes, dtype))
    for block in _made_ahead(_blocks(shapes, dtype, tensor, memory), pool):
      stream.write(memoryview(block.reshape(-1).view(np.uint8)))
      memory.give_back(block)
    seal = stream.finish()
  if not seal.fits(path):
    raise OSError(errno.EIO, "the disk gives back other bytes than were written")
  return seal


class _Memory:
  """Blocks that are used again: fresh memory costs as much as filling it."""

  def __init__(self):
    self._free: list[np.ndarray] = []

  def take(self, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Returns an array for which no other user is left."""
    size = math.prod(shape) * dtype.itemsize
    try:
      raw = self._free.pop()
    except IndexError:
      raw = np.empty(0, np.uint8)
    if raw.size < size:
      raw = np.empty(max(size, _BLOCK_BYTES), np.uint8)
    return raw[:size].view(dtype).reshape(shape)

  def give_back(self, block: np.ndarray) -> None:
    """Takes an array back that `take` has returned."""
    while block.base is not None:
      block = block.base
    self._free.append(block)


def _blocks(
  shapes: Plan, dtype: np.dtype, tensor: Tensors, memory: _Memory
) -> Iterator[Callable[[], np.ndarray]]:
  """Yields what makes each block of the file, [rows, columns] of `dtype`."""
  for name, shape in shapes.items():
    distributed.agree()
    values = _as_pieces(tensor(name))
    assert values.shape == tuple(shape), f"{name}: {values.shape} is not {shape}"
    num_rows = shape[0] if len(shape) > 1 else 1
    num_columns = math.prod(shape) // max(1, num_rows)
    row_bytes = num_columns * max(dtype.itemsize, values.itemsize)
    step = max(1, _BLOCK_BYTES // max(1, row_bytes))
    for start in range(0, num_rows, step):
      size = (min(step, num_rows - start), num_columns)
      yield functools.partial(_block, name, values, start, size, dtype, memory)


def _as_pieces(values: np.ndarray | Pieces | None) -> Pieces:
  assert values is not None
  if isinstance(values, Pieces):
    return values
  matrix = values[None] if values.ndim < 2 else values.reshape(values.shape[0], -1)
  return Pieces(values.shape, [(0, 0, matrix)])


def _block(
  name: str,
  values: Pieces,
  start: int,
  size: tuple[int, int],
  dtype: np.dtype,
  memory: _Memory,
) -> np.ndarray:
  out = memory.take(size, dtype)
  values.copy_rows(start, out)
  if not tensor_format.is_finite(out):
    if values.is_finite(start, start + size[0]):
      why = f"values beyond the range of {dtype}: choose another dtype for the export"
    else:
      why = "NaN or infinite values: the training diverged, or the weights are damaged"
    raise UserError(f"tensor {name} of the export holds {why}")
  return out


def _made_ahead(
  blocks: Iterator[Callable[[], np.ndarray]], pool: concurrent.futures.Executor
) -> Iterator[np.ndarray]:
  """Yields what `blocks` make, in order, some of them made ahead by the pool."""
  pending: collections.deque[concurrent.futures.Future] = collections.deque()
  try:
    for block in blocks:
      pending.append(pool.submit(block))
      if len(pending) > _NUM_AHEAD:
        yield pending.popleft().result()
    while pending:
      yield pending.popleft().result()
  finally:
    for future in pending:
      future.cancel()
