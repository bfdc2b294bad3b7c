"""Adam's moments, and parameters, in fewer bits than the arithmetic has.

An update is computed in float32 by Optax, from moments that are widened first. Only
what is kept between updates is rounded, and rounded at random in proportion to what is
lost (stochastic rounding): its mean is exact, down to the least number that is kept.
Rounding to the nearest would stop an
average that moves by a thousandth per step, and with it small updates of bfloat16
parameters.

`float8` keeps three bits of mantissa and, for every 32 neighbours along the last
dimension, the exponent of the largest. A second moment reaches 2^-31 below that (then
it stays there: updates come out too small, never too large), a first moment 2^-15 (then
it is zero). The grid is that of floats, the same whatever the neighbours are, so that
an average rests where it is when they move. A number takes 1 + 1/32 bytes.

The random bits are a function of the number of updates, the leaf and the place in it: a
run that is resumed, or lies on another mesh, draws the same.
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

DTYPES = ("float32", "bfloat16", "float8")
_BLOCK = 32
_MIN_SIZE = 4096  # smaller leaves stay in float32: there is nothing to gain
_MOMENTS, _PARAMS = 0, 1  # streams of random bits


class Packed(NamedTuple):
  """A leaf of 8-bit floats: x = sign * 2^(exponent of its block) * 1.mmm * 2^-k.

  `codes` has the shape of the leaf, `exponents` that of the leaf with the last
  dimension divided by the block: both are divided over a mesh like the leaf.
  """

  codes: jax.Array  # uint8 for what is never negative, else int8; 0 is zero
  exponents: jax.Array  # uint8: the exponent bits of the largest


def scale_by_adam(
  b1: float, b2: float, eps: float, dtype: str
) -> optax.GradientTransformation:
  """Returns `optax.scale_by_adam` in float32 with both moments kept in `dtype`.

  The state is that of Optax; with `float8` its large leaves are `Packed`.
  """
  wide = optax.scale_by_adam(b1, b2, eps)

  def init(params):
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
    state = wide.init(zeros)
    return state if dtype == "float32" else _narrowed(state, dtype)

  def update(updates, state, params=None):
    if dtype == "float32":
      return wide.update(updates, state, params)
    state = state._replace(mu=_widened(state.mu), nu=_widened(state.nu))
    updates, state = wide.update(updates, state, params)
    return updates, _narrowed(state, dtype)

  return optax.GradientTransformation(init, update)


def rounded_like(params: Any, like: Any, step: jax.Array) -> Any:
  """Returns float32 `params` in the dtypes of `like`; bfloat16 is rounded at random.

  Args:
    params: float32 leaves.
    like: the same tree in float32 or bfloat16.
    step: number of updates made so far; other steps round otherwise.
  """
  leaves, structure = jax.tree.flatten(params)
  dtypes = [leaf.dtype for leaf in jax.tree.leaves(like)]
  return structure.unflatten(
    leaf if dtype == jnp.float32 else _bfloat16(leaf, _noise(_PARAMS, step, i, leaf)[0])
    for i, (leaf, dtype) in enumerate(zip(leaves, dtypes, strict=True))
  )


def _narrowed(state: optax.ScaleByAdamState, dtype: str) -> optax.ScaleByAdamState:
  mus, structure = jax.tree.flatten(state.mu)
  kept = []
  for i, (mu, nu) in enumerate(zip(mus, jax.tree.leaves(state.nu), strict=True)):
    noises = _noise(_MOMENTS, state.count, i, mu)
    if dtype == "bfloat16":
      kept.append((_bfloat16(mu, noises[0]), _bfloat16(nu, noises[1])))
    elif mu.size < _MIN_SIZE:
      kept.append((mu, nu))
    else:
      kept.append((_packed(mu, noises[0], signed=True), _packed(nu, noises[1])))
  mu, nu = (structure.unflatten(leaves) for leaves in zip(*kept, strict=True))
  return state._replace(mu=mu, nu=nu)


def _widened(tree: Any) -> Any:
  def one(leaf):
    return _unpacked(leaf) if isinstance(leaf, Packed) else leaf.astype(jnp.float32)

  return jax.tree.map(one, tree, is_leaf=lambda leaf: isinstance(leaf, Packed))


def _noise(stream: int, count: jax.Array, index: int, leaf: jax.Array):
  """Returns two uint32 arrays like `leaf` of 16 random bits each."""
  key = jax.random.key(stream, impl="threefry2x32")
  key = jax.random.fold_in(jax.random.fold_in(key, count), index)
  shift, factor = jax.random.bits(key, (2,), jnp.uint32)
  # Bits of that quality for every number would take longer than the update itself.
  x = _places(leaf.shape) * (factor | 1) + shift
  for right, constant in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):  # MurmurHash3's fmix32
    x = (x ^ (x >> right)) * jnp.uint32(constant)
  x = x ^ (x >> 16)
  return x & 0xFFFF, x >> 16


def _places(shape: tuple[int, ...]) -> jax.Array:
  """Returns the number of every element, modulo 2^32."""
  place, stride = jnp.zeros(shape, jnp.uint32), 1
  for axis in reversed(range(len(shape))):
    step = jnp.uint32(stride % 2**32)
    place += step * jax.lax.broadcasted_iota(jnp.uint32, shape, axis)
    stride *= shape[axis]
  return place


def _high_bits(x: jax.Array, noise: jax.Array, num_dropped: int) -> jax.Array:
  """Returns the bits of float32 `x` without the last ones, up or down at random.

  The bits of floats of one sign are in the order of the floats, and evenly spaced
  between two that differ in one of the bits that stay.
  """
  noise = jnp.where(jnp.isfinite(x), noise << (num_dropped - 16), 0)
  return (jax.lax.bitcast_convert_type(x, jnp.uint32) + noise) >> num_dropped


def _bfloat16(x: jax.Array, noise: jax.Array) -> jax.Array:
  bits = _high_bits(x, noise, 16).astype(jnp.uint16)
  return jax.lax.bitcast_convert_type(bits, jnp.bfloat16)


def _packed(x: jax.Array, noise: jax.Array, signed: bool = False) -> Packed:
  levels = _high_bits(jnp.abs(x), noise, 20).astype(jnp.int32)  # exponent and mantissa
  blocks = _blocks(levels)
  exponents = jnp.max(blocks, -1) >> 3
  top = 127 if signed else 255
  codes = blocks + (top - 7 - 8 * exponents)[..., None]
  codes = jnp.where(blocks > 0, jnp.clip(codes, 0 if signed else 1, top), 0)
  codes = codes.reshape(x.shape)
  codes = jnp.where(x < 0, -codes, codes).astype(jnp.int8 if signed else jnp.uint8)
  return Packed(codes, exponents.astype(jnp.uint8))


def _unpacked(leaf: Packed) -> jax.Array:
  signed = leaf.codes.dtype == jnp.int8
  codes = _blocks(leaf.codes.astype(jnp.int32))
  top = 127 if signed else 255
  first = 8 * leaf.exponents.astype(jnp.int32) + 7 - top
  levels = jnp.where(codes == 0, 0, jnp.maximum(jnp.abs(codes) + first[..., None], 0))
  x = jax.lax.bitcast_convert_type(levels << 20, jnp.float32)
  return jnp.where(codes < 0, -x, x).reshape(leaf.codes.shape)


def _blocks(x: jax.Array) -> jax.Array:
  """Returns [..., n] as [..., n / block, block], the block the largest that divides."""
  size = x.shape[-1]
  block = max(n for n in range(1, _BLOCK + 1) if math.gcd(size, n) == n)
  return x.reshape(*x.shape[:-1], size // block, block)
