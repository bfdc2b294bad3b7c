"""A frozen base in 8 or 4 bits: `config.model.base_dtype` 'int8' and 'nf4'.

int8  whole numbers
nf4   the 16 quantiles of a normal distribution (Dettmers et al. 2023, appendix E)

Both with a float32 scale for each tile of up to 64 numbers that one output reads. Only
the kernels of the layers' projections are held so; embeddings, norms, biases and an
untied output layer are bfloat16. Kernels become floats where they are multiplied with,
one layer at a time, and again in the backward pass.

Qwix (an extra, imported when asked for) makes the leaves and says what they are: a
`qwix.QArray` takes the place of a kernel, `qvalue` and `scale` with as many dimensions
as it had.
"""

import functools
import importlib.util
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from msm_jax.errors import UserError

KINDS = ("int8", "nf4")
REST = "bfloat16"  # of what is not quantised
TILE, _LEAST_TILE = 64, 16


def check_installed(dtype: str) -> None:
  """Raises a UserError when `dtype` needs Qwix and it is not there."""
  if dtype in KINDS and importlib.util.find_spec("qwix") is None:
    raise UserError(
      f"config.model.base_dtype {dtype!r} needs the package qwix: "
      "pip install 'msm-jax[quant]'"
    )


def is_quantised(leaf: Any) -> bool:
  """Returns whether a leaf is a `qwix.QArray`; imports nothing."""
  return hasattr(leaf, "qvalue")


def hold(params: Any, dtype: str) -> Any:
  """Returns the base leaves `params` as `base_dtype` says, from whatever they are.

  Raises:
    UserError: no tile divides a kernel.
  """
  return jax.tree.map_with_path(
    lambda path, leaf: hold_leaf([entry.key for entry in path], leaf, dtype),
    params,
    is_leaf=is_quantised,
  )


def hold_leaf(path: Sequence[str], leaf: Any, dtype: str) -> Any:
  """Returns one leaf as `hold` does; `path` are its names in the model."""
  if dtype not in KINDS:
    return floats(leaf, dtype)
  if path[0] != "layers" or path[-1] != "kernel":
    return floats(leaf, REST)
  if is_quantised(leaf):
    if leaf.qtype == dtype:
      return leaf
    leaf = floats(leaf, "float32")
  # Of a layer's kernel: what goes in comes first; heads are no part of a tile.
  axis = 1 if path[-2] == "o" else 0
  return _quantise(leaf, dtype, axis, _tile(leaf.shape[axis + 1], path, dtype))


def _tile(size: int, path: Sequence[str], dtype: str) -> int:
  tile = max(n for n in range(1, TILE + 1) if size % n == 0)
  if tile < _LEAST_TILE:
    raise UserError(
      f"config.model.base_dtype {dtype!r}: {'.'.join(path)} has {size} numbers in a "
      f"row, which no tile of {_LEAST_TILE} to {TILE} divides, and scales for fewer "
      f"would take what is won: use {REST!r}"
    )
  return tile


@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _quantise(kernel: jax.Array, kind: str, axis: int, tile: int) -> Any:
  """Returns [L, ...] as a QArray, made of one layer after the other."""
  import qwix

  def layer(values):
    others = [other for other in range(values.ndim) if other != axis]
    return qwix.quantize(
      values.astype(jnp.float32), kind, channelwise_axes=others, tiled_axes={axis: tile}
    )

  return jax.lax.map(layer, kernel)


def floats(leaf: Any, dtype: Any) -> jax.Array:
  """Returns a leaf, quantised or not, in a dtype of floats."""
  return _dequantise(leaf, dtype) if is_quantised(leaf) else leaf.astype(dtype)


@jax.jit
def one_layer(leaf: Any, layer: jax.Array | int) -> jax.Array:
  """Returns a layer of a stacked quantised leaf in float32."""
  pick = functools.partial(jax.lax.dynamic_index_in_dim, index=layer, keepdims=False)
  return _dequantise(jax.tree.map(pick, leaf), "float32")


@functools.partial(jax.jit, static_argnums=1, inline=True)
def _dequantise(leaf: Any, dtype: Any) -> jax.Array:
  """Returns what `qwix.dequantize` does, number by number.

  Qwix reads nf4 from a table, over the array as one row: a gather, and none of the
  array's dimensions stays divided on a mesh. Selections fuse into what comes next.
  """
  values, scale = leaf.qvalue, leaf.scale
  is_nf4 = leaf.qtype == "nf4"
  values = _selected(values) if is_nf4 else values.astype(jnp.float32)
  tiles = [size // num for size, num in zip(values.shape, scale.shape, strict=True)]
  axis = max(range(len(tiles)), key=tiles.__getitem__)
  tiled = (*scale.shape[: axis + 1], tiles[axis], *scale.shape[axis + 1 :])
  values = values.reshape(tiled) * jnp.expand_dims(scale, axis + 1)
  return values.reshape(leaf.shape).astype(dtype)


def _selected(codes: jax.Array) -> jax.Array:
  """Returns the float32 level of each 4-bit code."""
  codes, found = codes.astype(jnp.int32), list(_levels())
  while len(found) > 1:
    is_odd = (codes & 1) == 1
    pairs = zip(found[::2], found[1::2], strict=True)
    found = [jnp.where(is_odd, high, low) for low, high in pairs]
    codes = codes >> 1
  return found[0]


@functools.cache
def _levels() -> tuple[jax.Array, ...]:
  import qwix

  with jax.ensure_compile_time_eval():
    codes = jnp.arange(16).astype(jnp.uint4)
    levels = qwix.dequantize(qwix.QArray(codes, jnp.ones(1), qtype="nf4"))
    return tuple(jax.device_get(levels))
