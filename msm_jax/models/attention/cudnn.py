"""Attention by cuDNN on a GPU, through `jax.nn.dot_product_attention`.

Causality and windows are cuDNN's own, so that it skips what they hide; segments are a
boolean mask [B, 1, T, T], one for all heads and layers. (jax before 0.12 also makes
the gradient of that mask, one row of scores per head: jax-ml/jax#34685.)

B batch, T query, S key, N heads, K kv heads, H head dim, P population.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from msm_jax.models import remat
from msm_jax.models.config import ModelConfig

MAX_HEAD_DIM = 128  # 256 from Hopper on


def objection(cfg: ModelConfig, seq_len: int) -> str | None:
  """Returns why cuDNN cannot compute this model's attention, None if it can."""
  if seq_len % 2:  # jax refuses the gradient with a mask
    return f"with segments it takes rows of an even length, seq_len is {seq_len}"
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def attend_together(
  q_BTNH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  segment_ids_BT: jax.Array,
  scale: float,
  window: int | None = None,
  implementation: str = "cudnn",
) -> jax.Array:
  """Returns what `attend` does; under `jax.vmap` the rows of all are one batch.

  JAX's own rule gives a mask that is the same for all heads the shape of one that is
  not, and fails. The backward pass makes the output again.
  """
  static = {"scale": scale, "window": window, "implementation": implementation}
  args = q_BTNH, k_BTKH, v_BTKH, segment_ids_BT
  return remat.product(_as_rows(functools.partial(attend, **static))(*args))


def _attend_together_fwd(*args):
  return attend_together(*args), args[:4]


def _attend_together_bwd(scale, window, implementation, residuals, dout_BTNH):
  static = {"scale": scale, "window": window, "implementation": implementation}

  def pull(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, dout_BTNH):
    fn = functools.partial(attend, segment_ids_BT=segment_ids_BT, **static)
    return jax.vjp(fn, q_BTNH, k_BTKH, v_BTKH)[1](dout_BTNH)

  return *_as_rows(pull)(*residuals, dout_BTNH), None


attend_together.defvjp(_attend_together_fwd, _attend_together_bwd)


def _as_rows(fn: Callable[..., Any]) -> Callable[..., Any]:
  """Returns `fn` of arrays [B, ...]; under `jax.vmap` it is called with [B P, ...]."""
  called = jax.custom_batching.custom_vmap(fn)

  @called.def_vmap
  def _(size, is_batched, *args):
    def rows(x, batched):
      x = x if batched else jnp.broadcast_to(x, (size, *x.shape))
      # B first: it is what the mesh divides.
      return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    out = fn(*map(rows, args, is_batched))
    apart = jax.tree.map(
      lambda x: x.reshape(-1, size, *x.shape[1:]).swapaxes(0, 1), out
    )
    return apart, jax.tree.map(lambda _: True, out)

  return called
