"""One layer of a leaf on the host, wherever the leaf lies.

Never more than one layer of a leaf: arrays in the memory of CPU devices are only looked
at, other devices copy theirs to the host, and a leaf over several processes is gathered
by all of them on their devices.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from msm_jax import quantised

Piece = tuple[tuple[slice, ...], np.ndarray]  # where in the layer, and its values


def layer_of(leaf: Any, layer: int | None) -> np.ndarray:
  """Returns one layer of a stacked leaf (None: the whole leaf) on the host.

  For a leaf over several processes all of them must call it; each gets the values.

  Args:
    leaf: [L, ...] or [...], as a NumPy or JAX array.
    layer: which layer.
  """
  return joined(pieces_of(leaf, layer))


def joined(pieces: Sequence[Piece]) -> np.ndarray:
  """Returns the array that pieces are of; a single one as it is."""
  if len(pieces) == 1:
    return pieces[0][1]
  ends = [[part.stop for part in index] for index, _ in pieces]
  out = np.empty(np.max(ends, axis=0), pieces[0][1].dtype)
  for index, values in pieces:
    out[index] = values
  return out


def pieces_of(leaf: Any, layer: int | None) -> list[Piece]:
  """Returns what `layer_of` does as the pieces that lie on different devices."""
  if quantised.is_quantised(leaf):
    return pieces_of(quantised.one_layer(leaf, layer), None)
  if not isinstance(leaf, jax.Array):
    return [_whole(np.asarray(leaf if layer is None else leaf[layer]))]
  if leaf.is_fully_addressable or leaf.is_fully_replicated:
    return _held_pieces(leaf, layer)
  mesh = leaf.sharding.mesh
  gathered = _gatherer(mesh, layer is None)(leaf, 0 if layer is None else layer)
  return [_whole(np.asarray(gathered.addressable_data(0)))]


def _whole(values: np.ndarray) -> Piece:
  return tuple(slice(0, size) for size in values.shape), values


@functools.lru_cache(maxsize=8)
def _gatherer(mesh: jax.sharding.Mesh, whole: bool):
  pick = (lambda leaf, _: leaf) if whole else _pick
  return jax.jit(pick, out_shardings=NamedSharding(mesh, P()))


def _pick(leaf: jax.Array, layer: jax.Array) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)


_pick_here = jax.jit(_pick)


def _held_pieces(leaf: jax.Array, layer: int | None) -> list[Piece]:
  """Returns a layer from the parts that this process holds, which are all of it."""
  found: dict[tuple[tuple[int, int], ...], Piece] = {}
  for shard in leaf.addressable_shards:
    bounds = [s.indices(n)[:2] for s, n in zip(shard.index, leaf.shape, strict=True)]
    first, last = bounds.pop(0) if layer is not None else (0, 0)
    if tuple(bounds) in found or (layer is not None and not first <= layer < last):
      continue
    values = _on_host(shard.data, None if layer is None else layer - first)
    found[tuple(bounds)] = tuple(slice(*bound) for bound in bounds), values
  return list(found.values())


def _on_host(data: jax.Array, layer: int | None) -> np.ndarray:
  """Returns a layer of an array on one device; on a CPU without a copy."""
  if layer is None:
    return np.asarray(data)
  if next(iter(data.devices())).platform == "cpu":
    return np.asarray(data)[layer]
  return np.asarray(_pick_here(data, layer))
