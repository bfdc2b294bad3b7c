"""One token after the other: a cache of keys and values as a ring of columns.

All rows of a batch write their newest key and value to the same column, whatever their
position is, so that a step writes one slice and scatters nothing. A row that holds n
tokens sees the n columns up to that one, going round; where a row begins anew, columns
of its past are out of sight and need not be cleared.

On a CPU layers and their caches are arrays of their own: slices of a stack would be
copied in every step. Elsewhere they are stacked, and one block is compiled for all.

B batch, R rows to begin with, T query, S columns, D embed, K kv heads, H head dim, L
layers.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from msm_jax import quantised, sharding
from msm_jax.models import attention, layers, matmul, transformer
from msm_jax.models.config import FULL, SLIDING, Compute, ModelConfig
from msm_jax.models.lora import Params
from msm_jax.models.transformer import KeysValues

# What is multiplied with is cast once; norms and biases are cast where they are used.
_CAST = ("kernel", "embedding", "lora_a", "lora_b")


class Cache(NamedTuple):
  """Keys and values: [L, B, K, S, H] each, or L arrays [B, K, S, H] each."""

  keys: Any
  values: Any


@functools.partial(jax.jit, static_argnames=("cfg", "unstack"))
def prepare(params: Params, cfg: ModelConfig, *, unstack: bool) -> Params:
  """Returns parameters as `Decoder` takes them: in the compute dtype, and with
  `unstack` a tree `layers/<number>` for every layer. Quantised leaves stay quantised.
  """

  def cast(path, leaf):
    if quantised.is_quantised(leaf) or path[-1].key not in _CAST:
      return leaf
    return leaf.astype(cfg.dtype)

  params = jax.tree.map_with_path(cast, params, is_leaf=quantised.is_quantised)
  if not unstack or "layers" not in params:
    return params

  def layer(i: int) -> Params:
    own = jax.tree.map(lambda leaf: leaf[i], params["layers"])
    return jax.tree.map_with_path(_flip, own, is_leaf=quantised.is_quantised)

  each = {str(i): layer(i) for i in range(cfg.num_layers)}
  rest = jax.tree.map_with_path(
    _flip, {k: v for k, v in params.items() if k != "layers"}
  )
  return rest | {"layers": each}


def _flip(path, leaf):
  """Returns a kernel as a CPU multiplies few rows with it fastest."""
  names = [entry.key for entry in path]
  if names[-1] != "kernel" or quantised.is_quantised(leaf):
    return leaf
  return matmul.flipped(leaf, 2 if names[-2] == "o" else 1)


class Decoder:
  """A model that goes on with rows; made under `jit` from what `prepare` returned."""

  def __init__(self, cfg: ModelConfig, params: Params):
    self.cfg = cfg
    self.is_unstacked = "0" in params["layers"]
    if self.is_unstacked:
      top = {name: leaf for name, leaf in params.items() if name != "layers"}
      stacked = transformer.abstract_params(cfg)["layers"]  # in nobody's way
      self.model = transformer.bind(cfg, top | {"layers": stacked})
      numbers = range(cfg.num_layers)
      self.blocks = [_bind_block(cfg, params["layers"][str(i)]) for i in numbers]
    else:
      self.model = transformer.bind(cfg, params)

  def empty(self, num_rows: int, num_columns: int) -> Cache:
    """Returns a cache of zeros in the compute dtype."""
    cfg = self.cfg
    shape = (num_rows, cfg.num_kv_heads, num_columns, cfg.head_dim)
    if not self.is_unstacked:
      zeros = jnp.zeros((cfg.num_layers, *shape), cfg.dtype)
      return Cache(_divided(zeros), _divided(zeros))
    zeros = _divided(jnp.zeros(shape, cfg.dtype))
    return Cache((zeros,) * cfg.num_layers, (zeros,) * cfg.num_layers)

  def read(
    self, tokens_RT: jax.Array, length_R: jax.Array, backend: str
  ) -> tuple[jax.Array, KeysValues]:
    """Returns the last hidden states [R, D], and keys and values [L, R, T, K, H].

    Args:
      tokens_RT: prompts that end with the last slot; what is before them is filler.
      length_R: their lengths.
      backend: of attention.
    """
    T = tokens_RT.shape[1]
    positions_RT = jnp.arange(T)[None] - (T - length_R[:, None])
    segment_ids_RT = (positions_RT >= 0).astype(jnp.int32)
    positions_RT = jnp.maximum(positions_RT, 0)
    compute = Compute(attention=backend, scan_layers=not self.is_unstacked)
    fields = tokens_RT, positions_RT, segment_ids_RT
    given = {"blocks": self.blocks} if self.is_unstacked else {}
    x_RTD, kept = self.model.hidden(*fields, compute=compute, keep=True, **given)
    return x_RTD[:, -1], kept

  def step(
    self, token_B: jax.Array, length_B: jax.Array, column: jax.Array, cache: Cache
  ) -> tuple[jax.Array, Cache]:
    """Returns the hidden states [B, D] of one more token in each row, and the cache.

    Args:
      token_B: the tokens.
      length_B: how many there were before: the token's position.
      column: where all keys and values go.
      cache: is written to.
    """
    model, positions_B1 = self.model, length_B[:, None]
    kinds = model.kinds()
    kind_L = [kinds.index(kind) for kind in self.cfg.layer_types or (FULL,)]
    kind_L = kind_L * self.cfg.num_layers if len(kind_L) == 1 else kind_L
    tables = [model.rope_table(kind, positions_B1) for kind in kinds]
    num_columns = cache.keys[0].shape[-2]
    seen = [self._seen(kind, length_B, column, num_columns) for kind in kinds]
    x_B1D = model.embedded(token_B[:, None])
    if self.is_unstacked:
      keys, values = [], []
      for i, block in enumerate(self.blocks):
        kind = kind_L[i]
        around = layers.Surroundings(attention.over_columns(seen[kind]), tables[kind])
        store = functools.partial(_write, cache.keys[i], cache.values[i], column)
        x_B1D, (k_BKSH, v_BKSH) = block(x_B1D, around, store)
        keys.append(k_BKSH)
        values.append(v_BKSH)
      return model.final_norm(x_B1D)[:, 0], Cache(tuple(keys), tuple(values))

    seen = jnp.stack(seen)
    tables = jax.tree.map(lambda *each: jnp.stack(each), *tables)

    def body(carry, layer):
      x_B1D, cache = carry
      block, number, kind = layer
      around = layers.Surroundings(
        attention.over_columns(seen[kind]), jax.tree.map(lambda t: t[kind], tables)
      )
      store = functools.partial(_write_layer, cache, number, column)
      x_B1D, cache = block(x_B1D, around, store)
      return (x_B1D, cache), None

    numbers = jnp.arange(self.cfg.num_layers)
    stacked = model.layers, numbers, jnp.asarray(kind_L)
    (x_B1D, cache), _ = jax.lax.scan(body, (x_B1D, cache), stacked)
    return model.final_norm(x_B1D)[:, 0], cache

  def _seen(self, kind, length_B, column, num_columns) -> jax.Array:
    """Returns bool [B, S]: the columns that the newest token of each row sees."""
    age_S = (column - jnp.arange(num_columns)) % num_columns
    num_seen_B = length_B + 1
    if kind == SLIDING:
      num_seen_B = jnp.minimum(num_seen_B, self.cfg.sliding_window)
    return age_S[None] < num_seen_B[:, None]

  def unembed(self, x_BD: jax.Array) -> jax.Array:
    """Returns float32 logits [B, V]."""
    model, cap = self.model, self.cfg.final_softcap
    if not self.is_unstacked:
      return model.unembed(x_BD[:, None])[:, 0]
    if self.cfg.tie_embeddings:
      kernel = model.embed.embedding.get_value()
      kernel = matmul.Flipped(kernel, kernel.shape[:1])
    else:
      kernel = model.lm_head.kernel.get_value()
    if isinstance(kernel, matmul.Flipped):
      logits_BV = matmul.flipped_product(x_BD, kernel, 1)
    else:
      logits_BV = matmul.product(x_BD, kernel, 1)
    return logits_BV if cap is None else cap * jnp.tanh(logits_BV / cap)


def begin_rows(
  cache: Cache, kept: KeysValues, rows_R: jax.Array, column: jax.Array
) -> Cache:
  """Returns the cache with rows begun anew, whose prompts end before `column`.

  Args:
    cache: is written to.
    kept: keys and values [L, R, T, K, H] of prompts that end with the last slot.
    rows_R: the rows; what has no place in the cache is dropped.
    column: where the next token of all rows goes.
  """
  num_columns = cache.keys[0].shape[-2]

  def whole(x_RTKH, dtype):
    T = x_RTKH.shape[1]
    x_RKTH = x_RTKH.swapaxes(1, 2).astype(dtype)
    x_RKSH = jnp.pad(x_RKTH, ((0, 0), (0, 0), (0, num_columns - T), (0, 0)))
    return jnp.roll(x_RKSH, column - T, axis=2)

  def put(old_BKSH, x_RTKH):
    new_RKSH = whole(x_RTKH, old_BKSH.dtype)
    return _divided(old_BKSH.at[rows_R].set(new_RKSH, mode="drop"))

  def put_all(old, new_LRTKH):
    if isinstance(old, tuple):
      return tuple(put(each, new) for each, new in zip(old, new_LRTKH, strict=True))
    return _divided(jax.vmap(put)(old, new_LRTKH))

  return Cache(put_all(cache.keys, kept[0]), put_all(cache.values, kept[1]))


def _write(k_BKSH, v_BKSH, column, k_B1KH, v_B1KH):
  """A store of one layer (see `layers.Store`)."""

  def put(old_BKSH, new_B1KH):
    new_BK1H = new_B1KH.swapaxes(1, 2).astype(old_BKSH.dtype)
    return jax.lax.dynamic_update_slice_in_dim(old_BKSH, new_BK1H, column, axis=2)

  kept = put(k_BKSH, k_B1KH), put(v_BKSH, v_B1KH)
  return *kept, kept


def _write_layer(cache: Cache, number, column, k_B1KH, v_B1KH):
  """A store of one layer in the cache of all."""

  def put(old_LBKSH, new_B1KH):
    new_1BK1H = new_B1KH.swapaxes(1, 2)[None].astype(old_LBKSH.dtype)
    at = (number, 0, 0, column, 0)
    return jax.lax.dynamic_update_slice(old_LBKSH, new_1BK1H, at)

  kept = Cache(put(cache.keys, k_B1KH), put(cache.values, v_B1KH))
  return kept.keys[number], kept.values[number], kept


def _divided(x: jax.Array) -> jax.Array:
  """Pins [..., B, K, S, H] to its place on the mesh."""
  axes = ("batch", "kv_heads", "length", "head_dim")
  return sharding.constrain(x, *("layers",) * (x.ndim - 4), *axes)


@functools.cache
def _abstract_block(cfg: ModelConfig) -> Any:
  block = nnx.eval_shape(
    lambda: transformer.Block(cfg, nnx.Rngs(params=jax.random.key(0)))
  )
  return nnx.split(block)


def _bind_block(cfg: ModelConfig, params: Params) -> transformer.Block:
  graph, state = _abstract_block(cfg)
  filled = []
  for path, variable in nnx.to_flat_state(state):
    leaf = params
    for name in path:
      leaf = leaf[name]
    filled.append((path, variable.replace(leaf)))
  return nnx.merge(graph, nnx.from_flat_state(filled))
