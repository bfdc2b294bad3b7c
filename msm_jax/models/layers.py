"""The pieces of a decoder block: RMSNorm, RoPE, projections, attention, mlp.

B batch, T query, S key, D embed, N heads, K kv heads, H head dim, F mlp, r rank.

Every parameter stands with its logical axes (`axes=`); `sharding.RULES` maps them to
the mesh. Parameters may be kept in another dtype than the computation; they are cast
where they are used.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from msm_jax import sharding
from msm_jax.models import attention
from msm_jax.models.config import ModelConfig, RopeScaling

ACTIVATIONS = {
  "silu": jax.nn.silu,
  "relu": jax.nn.relu,
  "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}

_WRITERS = ("o", "down")


def inverse_frequencies(
  head_dim: int, theta: float, scaling: RopeScaling | None
) -> jax.Array:
  """Returns float32 [H / 2] rotary frequencies in radians per position."""
  # A constant of the program: XLA would fold the power to another last bit than PyTorch
  # has, an error that grows with the position.
  exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
  powers = (np.float64(theta) ** exponent.astype(np.float64)).astype(np.float32)
  inverse = jnp.asarray(np.float32(1) / powers)
  if scaling is None:
    return inverse
  if scaling.rope_type == "linear":
    return inverse / scaling.factor
  # llama3: wavelengths beyond original / low_freq_factor are divided by `factor`, those
  # below original / high_freq_factor are kept, in between linear in 1 / wavelength.
  low, high = scaling.low_freq_factor, scaling.high_freq_factor
  turns = scaling.original_max_position_embeddings * inverse / (2 * math.pi)
  keep = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
  return (1 - keep) * inverse / scaling.factor + keep * inverse


def rotate(x_BTNH: jax.Array, angles_BTh: jax.Array) -> jax.Array:
  """Rotates pairs (i, i + H/2) by `angles_BTh` (h = H / 2), computed in float32."""
  cos_BT1h = jnp.cos(angles_BTh)[:, :, None]
  sin_BT1h = jnp.sin(angles_BTh)[:, :, None]
  left, right = jnp.split(x_BTNH.astype(jnp.float32), 2, axis=-1)
  rotated = jnp.concatenate(
    [left * cos_BT1h - right * sin_BT1h, right * cos_BT1h + left * sin_BT1h], axis=-1
  )
  return rotated.astype(x_BTNH.dtype)


class RMSNorm(nnx.Module):
  """x / rms(x) * scale, computed in float32 (Zhang and Sennrich 2019)."""

  def __init__(self, cfg: ModelConfig):
    self.eps = cfg.norm_eps
    self.scale = nnx.Param(jnp.ones(cfg.embed_dim), axes=("activation_embed",))

  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    x = x_BTD.astype(jnp.float32)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + self.eps)
    return (x * self.scale[...][None, None]).astype(x_BTD.dtype)


class Projection(nnx.Module):
  """y = x W, with an adapter y += (alpha / rank) (x A) B when `cfg.lora` targets it."""

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
    self.lora_scale = None
    if cfg.lora is not None and name in cfg.lora.targets:
      rank = cfg.lora.rank
      self.lora_scale = cfg.lora.alpha / rank
      a = std * jax.random.normal(rngs.params(), (*in_dims, rank))
      self.lora_a = nnx.Param(a, axes=(*inputs, "rank"))
      self.lora_b = nnx.Param(jnp.zeros((rank, *out_dims)), axes=("rank", *outputs))

  def __call__(self, x: jax.Array) -> jax.Array:
    y = jnp.tensordot(x, self.kernel[...].astype(x.dtype), axes=self.num_in_dims)
    if self.lora_scale is None:
      return y
    low = jnp.tensordot(x, self.lora_a[...].astype(x.dtype), axes=self.num_in_dims)
    return y + self.lora_scale * jnp.tensordot(
      low, self.lora_b[...].astype(x.dtype), axes=1
    )


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

  def __call__(self, x_BTD, angles_BTh, mask_BTS, cache=None):
    """Returns ([B, T, D], cache).

    `cache` is None or (k [B, S, K, H], v [B, S, K, H], slots [B, T]): the new keys and
    values are written to their slots first, then all slots are attended to.
    """
    q_BTNH = rotate(self.q(x_BTD), angles_BTh)
    k_BSKH = rotate(self.k(x_BTD), angles_BTh)
    v_BSKH = self.v(x_BTD)
    if cache is not None:
      old_k, old_v, slots_BT = cache
      rows_B1 = jnp.arange(x_BTD.shape[0])[:, None]
      k_BSKH = old_k.at[rows_B1, slots_BT].set(k_BSKH)
      v_BSKH = old_v.at[rows_B1, slots_BT].set(v_BSKH)
      cache = (k_BSKH, v_BSKH)
    out_BTNH = attention.attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS)
    out_BTNH = sharding.constrain(out_BTNH, "batch", "length", "heads", "head_dim")
    return self.o(out_BTNH), cache


class Mlp(nnx.Module):
  """Gated mlp: down(act(gate(x)) * up(x)) (Shazeer 2020)."""

  def __init__(self, cfg: ModelConfig, rngs):
    self.activation = cfg.activation
    embed, mlp = {"embed": cfg.embed_dim}, {"mlp": cfg.mlp_dim}
    self.gate = Projection(cfg, "gate", embed, mlp, rngs)
    self.up = Projection(cfg, "up", embed, mlp, rngs)
    self.down = Projection(cfg, "down", mlp, embed, rngs)

  def __call__(self, x_BTD: jax.Array) -> jax.Array:
    hidden_BTF = ACTIVATIONS[self.activation](self.gate(x_BTD)) * self.up(x_BTD)
    return self.down(sharding.constrain(hidden_BTF, "batch", "length", "mlp"))
