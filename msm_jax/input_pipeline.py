"""Rows by step index, onto the devices. The loader's whole state is the step.

The order of a run's rows is a table made from the seed (`packing.row_order`); batch k
holds rows k * batch_size ... of it, microbatch after microbatch. Every process reads
only the rows that its own devices hold: which ones follows from the mesh, their order
does not, so a run resumes exactly, on any number of hosts. Grain reads them by index
with threads; one more thread puts them on the devices ahead of time.
"""

import dataclasses
import pathlib
import queue
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from msm_jax import distributed, packing, records, sharding

Batch = dict[str, np.ndarray]
_AHEAD = 2  # calls whose rows wait on the devices


@dataclasses.dataclass(frozen=True)
class RowSource:
  """Random access to the rows of a run in training order.

  A picklable Grain data source: item g is the g-th row of the run.
  """

  sources: Sequence[grain.sources.ArrayRecordDataSource]
  order: np.ndarray  # int64 [num_rows, 2]: component, row
  directories: tuple[pathlib.Path, ...] = ()  # of the components

  def __len__(self) -> int:
    return len(self.order)

  def __getitem__(self, index: int) -> Batch:
    component, row = self.order[index]
    data = self.sources[component][int(row)]
    return packing.from_record(records.decode(data))

  def where(self, first: int, last: int) -> dict[pathlib.Path, list[int]]:
    """Returns which rows of which directory are rows `first` to `last` of the run."""
    found: dict[pathlib.Path, list[int]] = {}
    for component, row in self.order[first:last].tolist():
      found.setdefault(self.directories[component], []).append(row)
    return found


@dataclasses.dataclass(frozen=True)
class _LocalRows:
  """The rows of a run that one process reads, step after step."""

  source: RowSource
  batch_size: int
  rows: tuple[int, ...]  # of every batch

  def __len__(self) -> int:
    return len(self.source) // self.batch_size * len(self.rows)

  def __getitem__(self, index: int) -> Batch:
    step, place = divmod(int(index), len(self.rows))
    return self.source[step * self.batch_size + self.rows[place]]


def open_rows(directories: Sequence[pathlib.Path], order: np.ndarray) -> RowSource:
  """Returns the source over packed components; their shards are verified first.

  Each of several processes verifies its part of them; all must call it.
  """
  count, number = distributed.num_processes(), distributed.process_index()
  with distributed.together():
    sources = [
      grain.sources.ArrayRecordDataSource(
        records.shard_paths(directory, verify=slice(number, None, count))
      )
      for directory in directories
    ]
  return RowSource(sources, order, tuple(directories))


def local_rows(batch_size: int, num_microbatches: int, mesh: Mesh) -> tuple[int, ...]:
  """Returns which rows of every batch the devices of this process hold, ascending."""
  per_microbatch = batch_size // num_microbatches
  layout = sharding.batch_sharding(mesh, 1, 0)
  parts = layout.addressable_devices_indices_map((per_microbatch,)).values()
  held = sorted({row for part in parts for row in range(per_microbatch)[part[0]]})
  return tuple(
    microbatch * per_microbatch + row
    for microbatch in range(num_microbatches)
    for row in held
  )


def batches(
  source: RowSource,
  *,
  batch_size: int,
  first_step: int,
  ends: Sequence[int],
  num_microbatches: int,
  mesh: Mesh,
) -> Iterator[dict[str, jax.Array]]:
  """Yields fields [k, M, batch_size / M, T] on the mesh, one call's steps at a time.

  The next batches are read and put on the devices, by a thread of their own, while the
  current ones are worked on.

  Args:
    source: all rows of the run.
    batch_size: rows per step, over all processes.
    first_step: steps that are done already.
    ends: the step that each call ends with (`train.call_ends`).
    num_microbatches: M.
    mesh: where the rows go.
  """
  mine = local_rows(batch_size, num_microbatches, mesh)
  dataset = grain.MapDataset.source(_LocalRows(source, batch_size, mine))
  options = grain.ReadOptions(num_threads=4, prefetch_buffer_size=4 * len(mine))
  rows = iter(dataset[first_step * len(mine) :].to_iter_dataset(options))
  places = {row: place for place, row in enumerate(mine)}

  def calls() -> Iterator[dict[str, jax.Array]]:
    for step, end in zip([first_step, *ends[:-1]], ends, strict=True):
      steps = [_stack([next(rows) for _ in mine]) for _ in range(step, end)]
      yield _to_device(steps, places, batch_size, num_microbatches, mesh)

  return _ahead(calls())


def _stack(rows: Sequence[Batch]) -> Batch:
  return {name: np.stack([row[name] for row in rows]) for name in packing.FIELDS}


def _to_device(
  steps: Sequence[Batch],
  places: dict[int, int],
  batch_size: int,
  num_microbatches: int,
  mesh: Mesh,
) -> dict[str, jax.Array]:
  """Returns global arrays of which this process holds its rows."""
  per_microbatch = batch_size // num_microbatches

  def put(name: str) -> jax.Array:
    value_kRT = np.stack([step[name] for step in steps])
    shape = (len(steps), num_microbatches, per_microbatch, value_kRT.shape[-1])

    def part(index: tuple[slice, ...]) -> np.ndarray:
      rows = range(per_microbatch)[index[2]]
      at = [
        places[microbatch * per_microbatch + row]
        for microbatch in range(num_microbatches)
        for row in rows
      ]
      held = value_kRT[:, at]
      return held.reshape(len(steps), num_microbatches, len(rows), -1)

    layout = sharding.batch_sharding(mesh, len(shape), 2)
    return jax.make_array_from_callback(shape, layout, part)

  return {name: put(name) for name in packing.FIELDS}


def _ahead(items: Iterator[Any]) -> Iterator[Any]:
  """Yields `items`, of which a thread makes up to `_AHEAD` before they are wanted."""
  ready: queue.Queue[tuple[bool, Any]] = queue.Queue(_AHEAD)
  stopped = threading.Event()

  def offer(good: bool, item: Any) -> None:
    while not stopped.is_set():
      try:
        return ready.put((good, item), timeout=0.1)
      except queue.Full:
        continue

  def work() -> None:
    try:
      for item in items:
        offer(True, item)
        if stopped.is_set():
          return
      offer(False, None)
    except BaseException as error:  # raised where the item is wanted
      offer(False, error)

  threading.Thread(target=work, name="rows", daemon=True).start()
  try:
    while True:
      good, item = ready.get()
      if good:
        yield item
      elif item is None:
        return
      else:
        raise item
  finally:
    stopped.set()
