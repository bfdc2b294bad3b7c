"""The pieces of a decoder block: RMSNorm, projections, attention, mlp.

B batch, T query, S key, D embed, N heads, K kv heads, H head dim, F mlp, r rank.

Every parameter stands with its logical axes (`axes=`); `sharding.RULES` maps them to
the mesh. Parameters may be kept in another dtype than the computation; they are cast
where they are used.
"""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from msm_jax import quantised, sharding
from msm_jax.models import attention, matmul, remat, rope
from msm_jax.models.config import ModelConfig

ACTIVATIONS = {
  "silu": jax.nn.silu,
  "relu": jax.nn.relu,
  "gelu": lambda x: jax.nn.gelu(x, approximate=False),
  "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}

_WRITERS = ("o", "down")


class Surroundings(NamedTuple):
  """What attention knows of where tokens stand: who sees whom, and the angles."""

  attend: attention.Attend
  rope: rope.Table


# (new keys, new values) -> (all keys to attend to, all values, what is kept of them)
Store = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array, Any]]


class RMSNorm(nnx.Module):
  """x / rms(x) * scale, computed in float32 (Zhang and Sennrich 2019).

  With `zero_centered_norms` it is 1 + scale.
  """

  def __init__(self, cfg: ModelConfig, size: int, axis: str):
    self.eps = cfg.norm_eps
    self.offset = 1.0 if cfg.zero_centered_norms else 0.0
    value = jnp.full(size, 1.0 - self.offset, jnp.float32)
    self.scale = nnx.Param(value, axes=(axis,))

  def __call__(self, x: jax.Array) -> jax.Array:
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + self.eps)
    scale = self.scale[...].reshape((1,) * (x.ndim - 1) + (-1,))
    if self.offset:
      scale = self.offset + scale.astype(jnp.float32)
    return (y * scale).astype(x.dtype)


class Projection(nnx.Module):
  """y = x W, + bias if it has one, + (alpha / rank) (x A) B if `cfg.lora` names it."""

  def __init__(self, cfg: ModelConfig, name: str, inputs: dict, outputs: dict, rngs):
    """`inputs` and `outputs` map logical axes to sizes, in order."""
    in_dims, out_dims = tuple(inputs.values()), tuple(outputs.values())
    self.num_in_dims = len(in_dims)
    std = math.prod(in_dims) ** -0.5
    # What writes to the residual stream starts smaller, so that the variance of the
    # stream does not grow with depth (Radford et al. 2019, section 2.3).
    depth = (2 * cfg.num_layers) ** -0.5 if name in _WRITERS else 1.0
    kernel = depth * std * jax.random.normal(rngs.params(), in_dims + out_dims)
    self.kernel = nnx.Param(kernel, axes=(*inputs, *outputs))
    self.has_bias = name in cfg.bias
    if self.has_bias:
      self.bias = nnx.Param(jnp.zeros(out_dims), axes=tuple(outputs))
    self.lora_scale = None
    if cfg.lora is not None and name in cfg.lora.targets:
      rank = cfg.lora.rank
      self.lora_scale = cfg.lora.alpha / rank
      a = std * jax.random.normal(rngs.params(), (*in_dims, rank))
      self.lora_a = nnx.Param(a, axes=(*inputs, "rank"))
      self.lora_b = nnx.Param(jnp.zeros((rank, *out_dims)), axes=("rank", *outputs))

  def __call__(self, x: jax.Array) -> jax.Array:
    return project(x, self)[0]

  def factors(self) -> list[nnx.Param]:
    """Returns what multiplies the input."""
    return [self.kernel] if self.lora_scale is None else [self.kernel, self.lora_a]

  def finish(self, y: jax.Array, low: jax.Array | None = None) -> jax.Array:
    """Returns the output, given the products of the input and `factors`."""
    y = remat.product(y)
    if self.has_bias:
      bias = self.bias[...].astype(y.dtype)
      y = y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
    if low is None:
      return y
    lora_b = self.lora_b[...].astype(y.dtype)
    return y + self.lora_scale * matmul.project(low, (lora_b,), 1)[0]


def project(x: jax.Array, *projections: Projection) -> list[jax.Array]:
  """Returns what each projection makes of the same input."""
  factors = [projection.factors() for projection in projections]
  flat = tuple(factor.get_value() for each in factors for factor in each)
  products = iter(_products(x, flat, projections[0].num_in_dims))
  return [
    projection.finish(*itertools.islice(products, len(each)))
    for projection, each in zip(projections, factors, strict=True)
  ]


def _products(x: jax.Array, factors: tuple, num_in_dims: int) -> list[jax.Array]:
  def multiply(x, factors):
    ws = tuple(quantised.floats(factor, x.dtype) for factor in factors)
    return matmul.project(x, ws, num_in_dims)

  if any(map(quantised.is_quantised, factors)):
    # The backward pass makes floats again: kept, they would be the whole base.
    multiply = jax.checkpoint(multiply)
  return multiply(x, factors)


class Attention(nnx.Module):
  """Grouped-query attention with rotary positions."""

  def __init__(self, cfg: ModelConfig, rngs):
    embed = {"embed": cfg.embed_dim}
    heads = {"heads": cfg.num_heads, "head_dim": cfg.head_dim}
    kv_heads = {"kv_heads": cfg.num_kv_heads, "head_dim": cfg.head_dim}
    self.q = Projection(cfg, "q", embed, heads, rngs)
    self.k = Projection(cfg, "k", embed, kv_heads, rngs)
    self.v = Projection(cfg, "v", embed, kv_heads, rngs)
    self.o = Projection(cfg, "o", heads, embed, rngs)
    self.qk_norm = cfg.qk_norm
    if cfg.qk_norm:
      self.q_norm = RMSNorm(cfg, cfg.head_dim, "head_dim")
      self.k_norm = RMSNorm(cfg, cfg.head_dim, "head_dim")
    self.scale = (cfg.query_pre_attn_scalar or cfg.head_dim) ** -0.5
    self.softcap = cfg.attention_softcap

  def __call__(self, x_BTD, around: Surroundings, store: Store | None = None):
    """Returns ([B, T, D], what the store keeps; None without one)."""
    q_BTNH, k_BSKH, v_BSKH = project(x_BTD, self.q, self.k, self.v)
    if self.qk_norm:
      q_BTNH, k_BSKH = self.q_norm(q_BTNH), self.k_norm(k_BSKH)
    q_BTNH, k_BSKH = (rope.rotate(x, around.rope) for x in (q_BTNH, k_BSKH))
    kept = None
    if store is not None:
      k_BSKH, v_BSKH, kept = store(k_BSKH, v_BSKH)
    out_BTNH = around.attend(q_BTNH, k_BSKH, v_BSKH, self.scale, self.softcap)
    out_BTNH = sharding.constrain(out_BTNH, "batch", "length", "heads", "head_dim")
    return self.o(out_BTNH), kept


class Mlp(nnx.Module):
  """Gated mlp: down(act(gate(x)) * up(x)) (Shazeer 2020)."""

  def __init__(self, cfg: ModelConfig, rngs):
    self.activation = cfg.activation
    embed, mlp = {"embed": cfg.embed_dim}, {"mlp": cfg.mlp_dim}
    self.gate = Projection(cfg, "gate", embed, mlp, rngs)
    self.up = Projection(cfg, "up", embed, mlp, rngs)
    self.down = Projection(cfg, "down", mlp, embed, rngs)

  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    gate_BTF, up_BTF = project(x_BTD, self.gate, self.up)
    # Its derivatives are computed again from the two: keeping them would double what
    # the backward pass holds of a block.
    gated = jax.checkpoint(lambda gate, up: ACTIVATIONS[self.activation](gate) * up)
    hidden_BTF = gated(gate_BTF, up_BTF)
    return self.down(sharding.constrain(hidden_BTF, "batch", "length", "mlp"))
