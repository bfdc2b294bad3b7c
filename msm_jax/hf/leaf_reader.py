"""One leaf of ours from the tensors of theirs, straight into its sharding.

Of every tensor a process reads what its devices hold, each byte once, however many of
them hold it. On a CPU it is written into the memory that becomes the array; elsewhere
one layer at a time passes through the host.
"""

import concurrent.futures
import dataclasses
import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from msm_jax.hf import names, tensor_blocks, tiles

Index = tensor_blocks.Index
Interval = tensor_blocks.Interval


@dataclasses.dataclass(frozen=True)
class _Shard:
  """A part of a leaf and the devices that hold it (None: the default device)."""

  index: Index
  devices: tuple[Any, ...]

  @property
  def shape(self) -> tuple[int, ...]:
    return tuple(part.stop - part.start for part in self.index)


def thread_pool() -> concurrent.futures.ThreadPoolExecutor:
  """Returns threads for reading; see `tiles.num_threads`."""
  return concurrent.futures.ThreadPoolExecutor(tiles.num_threads())


def read_leaf(
  files: tensor_blocks.Files,
  parts: Sequence[names.Tensor],
  dtype: np.dtype,
  sharding: jax.sharding.Sharding | None,
  pool: concurrent.futures.Executor,
  *,
  by_layer: bool | None = None,
) -> jax.Array:
  """Returns the leaf that `parts` fill.

  Args:
    files: where the tensors are.
    parts: the tensor of every layer, or the only one of a leaf without layers.
    dtype: of the leaf.
    sharding: of the leaf; None puts it on the default device.
    pool: threads to read with.
    by_layer: whether layers pass through the host one at a time; None: unless the
      devices are CPUs.

  Raises:
    UserError: a value is not finite, or a file cannot be read.
  """
  stacked = parts[0].layer is not None
  shape = (len(parts), *parts[0].leaf_shape) if stacked else parts[0].leaf_shape
  shards = _shards(sharding, shape)
  if by_layer is None:
    by_layer = _platform(shards) != "cpu"
  if by_layer and stacked:
    arrays = _by_layer(files, parts, dtype, shards, pool)
  else:
    arrays = _at_once(files, parts, dtype, shards, pool)
  if sharding is None:
    return arrays[0]
  return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def _at_once(files, parts, dtype, shards: Sequence[_Shard], pool) -> list[jax.Array]:
  buffers = [tiles.aligned_empty(shard.shape, dtype) for shard in shards]
  pending: list[tensor_blocks.Task] = []
  for number, part in enumerate(parts):
    targets = list(_targets(part, number, shards, buffers))
    pending += tensor_blocks.tasks(files, part, targets)
  _run(pending, pool)
  return [
    jax.device_put(buffer, device)
    for shard, buffer in zip(shards, buffers, strict=True)
    for device in shard.devices
  ]


def _by_layer(files, parts, dtype, shards: Sequence[_Shard], pool) -> list[jax.Array]:
  """Fills arrays on the devices layer by layer; the host holds two layers at most."""
  arrays = [
    [jnp.zeros(shard.shape, dtype, device=device) for device in shard.devices]
    for shard in shards
  ]
  for number, part in enumerate(parts):
    here = [i for i, s in enumerate(shards) if number in _range(s.index[0])]
    buffers = [tiles.aligned_empty(shards[i].shape[1:], dtype) for i in here]
    targets = [(shards[i].index[1:], b) for i, b in zip(here, buffers, strict=True)]
    _run(tensor_blocks.tasks(files, part, targets), pool)
    for i, buffer in zip(here, buffers, strict=True):
      layer = number - shards[i].index[0].start
      jax.block_until_ready(arrays[i])  # the layer before has left the host
      arrays[i] = [
        _with_layer(array, jax.device_put(buffer, device), layer)
        for array, device in zip(arrays[i], shards[i].devices, strict=True)
      ]
  return [array for held in arrays for array in held]


@functools.partial(jax.jit, donate_argnums=0)
def _with_layer(stacked: jax.Array, layer: jax.Array, number) -> jax.Array:
  return jax.lax.dynamic_update_index_in_dim(stacked, layer, number, 0)


def _targets(part, number: int, shards, buffers) -> Iterator[tuple[Index, np.ndarray]]:
  """Yields (index within the tensor's leaf slice, memory) of every shard with it."""
  for shard, buffer in zip(shards, buffers, strict=True):
    if part.layer is None:
      yield shard.index, buffer
    elif number in _range(shard.index[0]):
      yield shard.index[1:], buffer[number - shard.index[0].start]


def _run(
  tasks: Iterable[tensor_blocks.Task], pool: concurrent.futures.Executor
) -> None:
  """Does all tasks, or raises the first error once the running ones have ended."""
  pending = [pool.submit(task) for task in tasks]
  try:
    for future in pending:
      future.result()
  finally:
    for future in pending:
      future.cancel()
    concurrent.futures.wait(pending)


def _shards(sharding, shape: tuple[int, ...]) -> list[_Shard]:
  """Returns the parts of a leaf that this process holds, each once."""
  if sharding is None:
    return [_Shard(tuple(slice(0, size) for size in shape), (None,))]
  devices: dict[tuple[Interval, ...], list[Any]] = {}
  for device, index in sharding.addressable_devices_indices_map(shape).items():
    bounds = (s.indices(n)[:2] for s, n in zip(index, shape, strict=True))
    devices.setdefault(tuple(bounds), []).append(device)
  return [
    _Shard(tuple(slice(*bound) for bound in bounds), tuple(held))
    for bounds, held in devices.items()
  ]


def _platform(shards: Sequence[_Shard]) -> str:
  device = shards[0].devices[0] if shards else None
  if device is None:
    device = jax.config.jax_default_device or jax.local_devices()[0]
  return device if isinstance(device, str) else device.platform


def _range(part: slice) -> range:
  return range(part.start, part.stop)
