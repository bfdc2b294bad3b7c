"""Attention by cuDNN on a GPU, through `jax.nn.dot_product_attention`.

Causality and windows are cuDNN's own, so that it skips what they hide; segments are a
boolean mask [B, 1, T, T], one for all heads and layers. (jax before 0.12 also makes
the gradient of that mask, one row of scores per head: jax-ml/jax#34685.)

B batch, T query, S key, N heads, K kv heads, H head dim.
"""

import jax
import jax.numpy as jnp

from msm_jax.models import remat
from msm_jax.models.config import ModelConfig

MAX_HEAD_DIM = 128  # 256 from Hopper on


def objection(cfg: ModelConfig) -> str | None:
  """Returns why cuDNN cannot compute this model's attention, None if it can."""
  if cfg.dtype not in ("bfloat16", "float16"):
    return f"it computes in bfloat16 or float16, model.dtype is {cfg.dtype!r}"
  if cfg.attention_softcap is not None:
    return f"it has no soft cap, model.attention_softcap is {cfg.attention_softcap}"
  if cfg.head_dim % 8 or cfg.head_dim > MAX_HEAD_DIM:
    return (
      f"head dims are multiples of 8 up to {MAX_HEAD_DIM}, model.head_dim is "
      f"{cfg.head_dim}"
    )
  return None


def attend(
  q_BTNH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  segment_ids_BT: jax.Array,
  scale: float,
  window: int | None = None,
  implementation: str = "cudnn",
) -> jax.Array:
  """Returns [B, T, N, H], the same as dense attention under `packed_mask`.

  With `implementation="xla"` it says the same to XLA.
  """
  same_BTS = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
  out_BTNH = jax.nn.dot_product_attention(
    q_BTNH,
    k_BTKH,
    v_BTKH,
    mask=jnp.expand_dims(same_BTS, 1),
    scale=scale,
    is_causal=True,
    local_window_size=None if window is None else (window - 1, 0),
    implementation=implementation,
  )
  return remat.product(out_BTNH)
