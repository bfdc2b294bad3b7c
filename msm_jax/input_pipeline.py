"""Rows by step index, onto the devices. The loader's whole state is the step.

The order of a run's rows is a table made from the seed (`packing.row_order`); batch k
holds rows k * batch_size ... of it, microbatch after microbatch. Grain reads them by
index with threads; every process reads the whole batch and puts its part on its
devices. So a run resumes exactly, on any number of hosts.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import grain
import jax
import numpy as np
from jax.sharding import Mesh

from msm_jax import packing, records, sharding

Batch = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class RowSource:
  """Random access to the rows of a run in training order.

  A picklable Grain data source: item g is the g-th row of the run.
  """

  sources: Sequence[grain.sources.ArrayRecordDataSource]
  order: np.ndarray  # int64 [num_rows, 2]: component, row

  def __len__(self) -> int:
    return len(self.order)

  def __getitem__(self, index: int) -> Batch:
    component, row = self.order[index]
    data = self.sources[component][int(row)]
    return packing.from_record(records.decode(data))


def open_rows(directories: Sequence[pathlib.Path], order: np.ndarray) -> RowSource:
  """Returns the source over packed components; their shards are verified first."""
  sources = [
    grain.sources.ArrayRecordDataSource(records.shard_paths(directory))
    for directory in directories
  ]
  return RowSource(sources, order)


def batches(
  source: RowSource,
  *,
  batch_size: int,
  first_step: int,
  steps_per_call: int,
  num_microbatches: int,
  mesh: Mesh,
) -> Iterator[dict[str, jax.Array]]:
  """Yields fields [k, M, batch_size / M, T] on the mesh, k steps at a time.

  Calls end at multiples of `steps_per_call` and at the end of the run, so that a
  resumed run makes the same calls as an uninterrupted one. The next batches are read
  and put on the devices while the current ones are worked on.
  """
  dataset = grain.MapDataset.source(source)
  dataset = dataset[first_step * batch_size :]
  rows = iter(
    dataset.to_iter_dataset(
      grain.ReadOptions(num_threads=4, prefetch_buffer_size=4 * batch_size)
    )
  )
  num_steps = len(source) // batch_size
  step = first_step
  ready = None
  while step < num_steps:
    end = min((step // steps_per_call + 1) * steps_per_call, num_steps)
    steps = [_stack([next(rows) for _ in range(batch_size)]) for _ in range(step, end)]
    on_device = _to_device(steps, num_microbatches, mesh)
    if ready is not None:
      yield ready
    ready = on_device
    step = end
  if ready is not None:
    yield ready


def _stack(rows: Sequence[Batch]) -> Batch:
  return {name: np.stack([row[name] for row in rows]) for name in packing.FIELDS}


def _to_device(
  steps: Sequence[Batch], num_microbatches: int, mesh: Mesh
) -> dict[str, jax.Array]:
  def put(name: str) -> jax.Array:
    value = np.stack([step[name] for step in steps])
    k, B, T = value.shape
    value = value.reshape(k, num_microbatches, B // num_microbatches, T)
    layout = sharding.batch_sharding(mesh, value.ndim, 2)
    return jax.make_array_from_callback(value.shape, layout, lambda part: value[part])

  return {name: put(name) for name in packing.FIELDS}
