"""The decoder, and the four functions that connect it to plain JAX.

Modules are Flax NNX and only describe the forward pass; parameters are a nested dict of
arrays, stacked over layers and run with `lax.scan`. `init_params` makes the dict,
`bind` puts a dict into a callable model, `abstract_params` and `logical_axes` describe
it.

B batch, T query, S key, D embed, K kv heads, H head dim, L layers, V vocab.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from msm_jax import sharding
from msm_jax.models import attention, layers, remat, rope
from msm_jax.models.config import FULL, PLAIN, SLIDING, Compute, ModelConfig
from msm_jax.models.lora import Params

KeysValues = tuple[jax.Array, jax.Array]  # each [L, B, T, K, H]


class Block(nnx.Module):
  """Attention and mlp, each normed before (some models: after, too), with residuals."""

  def __init__(self, cfg: ModelConfig, rngs):
    def norm():
      return layers.RMSNorm(cfg, cfg.embed_dim, "activation_embed")

    self.attention_norm = norm()
    self.attention = layers.Attention(cfg, rngs)
    self.mlp_norm = norm()
    self.mlp = layers.Mlp(cfg, rngs)
    self.post_norms = cfg.post_norms
    if cfg.post_norms:
      self.attention_post_norm = norm()
      self.mlp_post_norm = norm()
    self.is_steered = cfg.is_steered
    if cfg.is_steered:
      self.steering = nnx.Param(jnp.zeros(cfg.embed_dim), axes=("activation_embed",))

  def __call__(self, x_BTD, around: layers.Surroundings, store=None):
    out_BTD, kept = self.attention(self.attention_norm(x_BTD), around, store)
    if self.post_norms:
      out_BTD = self.attention_post_norm(out_BTD)
    x_BTD = x_BTD + out_BTD
    out_BTD = self.mlp(self.mlp_norm(x_BTD))
    if self.post_norms:
      out_BTD = self.mlp_post_norm(out_BTD)
    x_BTD = x_BTD + out_BTD
    if self.is_steered:
      x_BTD = x_BTD + self.steering[...].astype(x_BTD.dtype)[None, None]
    return sharding.constrain(x_BTD, "batch", "length", "activation_embed"), kept


class Embedding(nnx.Module):
  """Token embedding [V, D]."""

  def __init__(self, cfg: ModelConfig, rngs):
    # Small enough that tied logits start near zero.
    shape = (cfg.vocab_size, cfg.embed_dim)
    value = 0.02 * jax.random.normal(rngs.params(), shape)
    self.embedding = nnx.Param(value, axes=("vocab", "embed"))


class Head(nnx.Module):
  """Untied output projection [D, V]."""

  def __init__(self, cfg: ModelConfig, rngs):
    shape = (cfg.embed_dim, cfg.vocab_size)
    value = cfg.embed_dim**-0.5 * jax.random.normal(rngs.params(), shape)
    self.kernel = nnx.Param(value, axes=("embed", "vocab"))


class Transformer(nnx.Module):
  """A decoder, as `cfg` describes it."""

  def __init__(self, cfg: ModelConfig, rngs):
    self.cfg = cfg
    self.embed = Embedding(cfg, rngs)
    keys = jax.random.split(rngs.params(), cfg.num_layers)
    self.layers = jax.vmap(lambda key: Block(cfg, nnx.Rngs(params=key)))(keys)
    self.final_norm = layers.RMSNorm(cfg, cfg.embed_dim, "activation_embed")
    if not cfg.tie_embeddings:
      self.lm_head = Head(cfg, rngs)

  def hidden(
    self,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segment_ids_BT: jax.Array,
    *,
    compute: Compute = PLAIN,
    keep: bool = False,
    blocks: Sequence[Block] | None = None,
  ) -> tuple[jax.Array, KeysValues | None]:
    """Returns the normed last hidden states [B, T, D], and all keys and values if they
    are to be kept. See `residual`.
    """
    given = tokens_BT, positions_BT, segment_ids_BT
    x_BTD, kept = self.residual(*given, compute=compute, keep=keep, blocks=blocks)
    return self.final_norm(x_BTD), kept

  def residual(
    self,
    tokens_BT: jax.Array,
    positions_BT: jax.Array,
    segment_ids_BT: jax.Array,
    *,
    compute: Compute = PLAIN,
    keep: bool = False,
    blocks: Sequence[Block] | None = None,
  ) -> tuple[jax.Array, KeysValues | None]:
    """Returns what the last layer leaves [B, T, D], and all keys and values if they are
    to be kept. `blocks` are the layers, where they are not stacked.

    Tokens see those before them within their segment. (One token at a time, over a
    cache: `decoding.py`.)
    """
    kinds = self.kinds()

    def surroundings(kind: str) -> layers.Surroundings:
      window = self.cfg.sliding_window if kind == SLIDING else None
      attend = attention.packed(compute.attention, segment_ids_BT, window)
      return layers.Surroundings(attend, self.rope_table(kind, positions_BT))

    around = [surroundings(kind) for kind in kinds]
    kind_L = [kinds.index(kind) for kind in self.cfg.layer_types]
    store = _kept if keep else None

    def run_block(x_BTD, block, around):
      return block(remat.block_input(x_BTD), around, store)

    x_BTD = self.embedded(tokens_BT)
    if compute.scan_layers:
      x_BTD, kept = _scan(run_block, x_BTD, self.layers, around, kind_L, compute)
    else:
      around = _computed_once(around, positions_BT)
      around_L = [around[kind] for kind in kind_L or [0] * self.cfg.num_layers]
      blocks = blocks or _unstack(self.layers, len(around_L))
      x_BTD, kept = _unroll(run_block, x_BTD, blocks, around_L, compute)
    return x_BTD, kept

  def kinds(self) -> tuple[str, ...]:
    """Returns the kinds of layers that there are."""
    return tuple(dict.fromkeys(self.cfg.layer_types)) or (FULL,)

  def embedded(self, tokens_BT: jax.Array) -> jax.Array:
    """Returns [B, T, D]: what the first layer is given."""
    cfg = self.cfg
    x_BTD = jnp.take(self.embed.embedding[...], tokens_BT, axis=0).astype(cfg.dtype)
    if cfg.scale_embeddings:
      x_BTD = x_BTD * jnp.asarray(cfg.embed_dim**0.5, cfg.dtype)
    return sharding.constrain(x_BTD, "batch", "length", "activation_embed")

  def rope_table(self, kind: str, positions_BT: jax.Array) -> rope.Table:
    """Returns the angles of these positions in layers of a kind."""
    cfg = self.cfg
    theta, scaling = cfg.rope_theta, cfg.rope_scaling
    if kind == SLIDING and cfg.local_rope_theta is not None:
      theta, scaling = cfg.local_rope_theta, None
    return rope.table(positions_BT, cfg.head_dim, theta, scaling)

  def output_kernel(self) -> jax.Array:
    """Returns [D, V]: what hidden states are multiplied with for logits."""
    if self.cfg.tie_embeddings:
      return self.embed.embedding[...].T
    return self.lm_head.kernel[...]

  def unembed(self, x_BTD: jax.Array) -> jax.Array:
    """Returns float32 logits [B, T, V]."""
    logits_BTV = jnp.einsum(
      "BTD,DV->BTV",
      x_BTD,
      self.output_kernel().astype(x_BTD.dtype),
      preferred_element_type=jnp.float32,
    )
    cap = self.cfg.final_softcap
    return logits_BTV if cap is None else cap * jnp.tanh(logits_BTV / cap)


def _kept(k_BTKH, v_BTKH):
  """A store of keys and values that adds nothing to what is attended to."""
  return k_BTKH, v_BTKH, (k_BTKH, v_BTKH)


def _scan(run_block, x_BTD, stacked, around, kind_L, compute: Compute):
  """Runs one block, compiled once, for every layer in turn."""

  def body(x_BTD, layer):
    layer, kind = layer
    return run_block(x_BTD, layer, _choose(around, kind))

  body = remat.wrap(body, compute.remat, is_scanned=True)
  kind_L = jnp.asarray(kind_L) if len(around) > 1 else None
  return jax.lax.scan(body, x_BTD, (stacked, kind_L))


def _unroll(run_block, x_BTD, blocks, around_L, compute: Compute):
  """Runs every layer as code of its own."""
  kept_L = []
  for block, around in zip(blocks, around_L, strict=True):
    body = functools.partial(run_block, around=around)
    x_BTD, kept = remat.wrap(body, compute.remat, is_scanned=False)(x_BTD, block)
    kept_L.append(kept)
  return x_BTD, jax.tree.map(lambda *kept: jnp.stack(kept), *kept_L)


def _choose(around: list[layers.Surroundings], kind: jax.Array | None):
  """Returns one of two surroundings, or the only one there is."""
  if kind is None:
    return around[0]
  attends, tables = zip(*around, strict=True)

  def attend(q_BTNH, k_BSKH, v_BSKH, scale, softcap):
    ways = [lambda *qkv, way=way: way(*qkv, scale, softcap) for way in attends]
    return jax.lax.switch(kind, ways, q_BTNH, k_BSKH, v_BSKH)

  table = jax.tree.map(lambda a, b: jnp.where(kind == 0, a, b), *tables)
  return layers.Surroundings(attend, table)


def _computed_once(around: list[layers.Surroundings], positions_BT: jax.Array):
  """Returns `around` with tables that exist.

  On a CPU, XLA would rather compute every cosine again in each layer and head (3 % of a
  step); it cannot look through a condition that it does not know to hold.
  """
  tables = [each.rope for each in around]
  is_so = positions_BT[0, 0] >= 0
  zeros = functools.partial(jax.tree.map, jnp.zeros_like)
  tables = jax.lax.cond(is_so, lambda t: t, zeros, tables)
  return [each._replace(rope=t) for each, t in zip(around, tables, strict=True)]


def _unstack(tree: Any, num_layers: int) -> list[Any]:
  """Returns the tree of each layer; the gradient is one concatenation."""
  leaves, structure = jax.tree.flatten(tree)
  parts = [jax.lax.split(leaf, [1] * num_layers) for leaf in leaves]
  return [
    jax.tree.unflatten(structure, [part[0] for part in layer])
    for layer in zip(*parts, strict=True)
  ]


@functools.cache
def _abstract_model(cfg: ModelConfig) -> tuple[Any, Any]:
  model = nnx.eval_shape(lambda: Transformer(cfg, nnx.Rngs(params=jax.random.key(0))))
  return nnx.split(model)


def init_params(cfg: ModelConfig, key: jax.Array) -> Params:
  """Returns freshly drawn float32 parameters as a nested dict."""
  model = Transformer(cfg, nnx.Rngs(params=key))
  return nnx.to_pure_dict(nnx.state(model))


def abstract_params(cfg: ModelConfig) -> Params:
  """Returns the shapes and dtypes of `init_params` without computing anything."""
  return nnx.to_pure_dict(_abstract_model(cfg)[1])


def bind(cfg: ModelConfig, params: Params) -> Transformer:
  """Returns the model with `params` in it; cheap, meant to be called under `jit`."""
  graph, state = _abstract_model(cfg)
  flat = dict(nnx.to_flat_state(state))
  leaves = _flatten(params)
  missing = sorted(set(flat) - set(leaves))
  extra = sorted(set(leaves) - set(flat))
  if missing or extra:
    raise ValueError(
      f"parameters do not fit the model: missing {missing}, extra {extra}"
    )
  filled = [(path, flat[path].replace(leaves[path])) for path in flat]
  return nnx.merge(graph, nnx.from_flat_state(filled))


def logical_axes(cfg: ModelConfig) -> Params:
  """Returns the logical axes of every leaf; stacked leaves lead with `layers`."""
  axes: Params = {}
  for path, variable in nnx.to_flat_state(_abstract_model(cfg)[1]):
    node = axes
    for name in path[:-1]:
      node = node.setdefault(name, {})
    names = variable.get_metadata()["axes"]
    node[path[-1]] = ("layers", *names) if path[0] == "layers" else names
  return axes


def logits(
  params: Params,
  cfg: ModelConfig,
  tokens_BT: jax.Array,
  positions_BT: jax.Array | None = None,
  segment_ids_BT: jax.Array | None = None,
) -> jax.Array:
  """Returns float32 logits [B, T, V] of whole rows."""
  if positions_BT is None:
    positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
  if segment_ids_BT is None:
    segment_ids_BT = jnp.ones_like(tokens_BT)
  model = bind(cfg, params)
  x_BTD, _ = model.hidden(tokens_BT, positions_BT, segment_ids_BT)
  return model.unembed(x_BTD)


def _flatten(tree: Params, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
  flat = {}
  for name, value in tree.items():
    if isinstance(value, dict):
      flat.update(_flatten(value, (*prefix, name)))
    else:
      flat[(*prefix, name)] = value
  return flat
