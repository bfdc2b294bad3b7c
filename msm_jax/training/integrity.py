"""What makes sure that a state on disk is the state that was saved.

The files of a checkpoint hold raw or compressed numbers without checksums of their own
(a flipped bit in one loads as another number). So a state carries a digest per leaf: a
sum over all elements' bits, each times an odd number made of its place, modulo 2^32.
Every flipped bit changes it, and it does not depend on how the leaf is divided:
integers add up to the same in any order, on any mesh and any number of processes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_UNSIGNED = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def inspect(tree: Any) -> tuple[str, bool]:
  """Returns (the digests of the leaves, whether all numbers are finite).

  Eight hexadecimal digits per leaf, in the order of `jax.tree.leaves`.

  All processes must call it with the same global arrays.
  """
  leaves = jax.tree.leaves(tree)
  if not leaves:
    return "", True
  digests, finite = _inspect(leaves)
  return "".join(f"{digest:08x}" for digest in np.asarray(digests)), bool(finite)


@jax.jit
def _inspect(leaves: list[jax.Array]) -> tuple[jax.Array, jax.Array]:
  """Returns uint32 [number of leaves] and bool, the same on every device."""
  digests = jnp.stack([_digest(leaf) for leaf in leaves])
  finite = jnp.stack([_is_finite(leaf) for leaf in leaves])
  return digests, jnp.all(finite)


def _is_finite(leaf: jax.Array) -> jax.Array:
  if not jnp.issubdtype(leaf.dtype, jnp.floating):
    return jnp.asarray(True)
  # A sum of floats is the fastest reduction there is on a CPU, by far.
  return jnp.isfinite(jnp.sum(leaf * 0, dtype=jnp.float32))


def _digest(leaf: jax.Array) -> jax.Array:
  if leaf.ndim < 3:
    return jnp.sum(_weighed(leaf), dtype=jnp.uint32)

  # Stacked layers: sums of integers are slow on a CPU, so they are added up elementwise
  # first. The factor is odd, so that no bit is lost.
  def add(total: jax.Array, layer: jax.Array) -> tuple[jax.Array, None]:
    return total * jnp.uint32(0x9E3779B1) + _weighed(layer), None

  total, _ = jax.lax.scan(add, jnp.zeros(leaf.shape[1:], jnp.uint32), leaf)
  return jnp.sum(total, dtype=jnp.uint32)


def _weighed(leaf: jax.Array) -> jax.Array:
  """Returns the bits of every element times an odd number made of its place."""
  place = jnp.zeros(leaf.shape, jnp.uint32)
  stride = 1
  for axis in reversed(range(leaf.ndim)):
    step = jnp.uint32(stride % 2**32)
    place += step * jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    stride *= leaf.shape[axis]
  return _bits(leaf) * (2 * place + 1)


def _bits(leaf: jax.Array) -> jax.Array:
  """Returns the bits of every element as uint32."""
  if leaf.dtype == jnp.bool_ or leaf.dtype.itemsize not in _UNSIGNED:
    return leaf.astype(jnp.uint32)
  unsigned = _UNSIGNED[leaf.dtype.itemsize]
  return jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
