"""Exact attention in blocks of queries that never look at keys they cannot see.

Block i of the queries meets the keys from the first that its window reaches to its own
last, so that nearly half of the square (more with a window) is neither computed nor
held. What is kept for the backward pass is one number per query: the logarithm of its
softmax's sum (Dao et al. 2022).

B batch, T query, S key, N heads, K kv heads, G = N / K, H head dim, t, s: of a block.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from msm_jax.models import remat

_MIN_BLOCK, _MAX_BLOCKS = 64, 16
_EINSUM = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5, 6))
def attend(
  q_BTNH: jax.Array,
  k_BTKH: jax.Array,
  v_BTKH: jax.Array,
  segment_ids_BT: jax.Array,
  scale: float,
  softcap: float | None = None,
  window: int | None = None,
) -> jax.Array:
  """Returns [B, T, N, H], the same as dense attention under `packed_mask`."""
  args = q_BTNH, k_BTKH, v_BTKH, segment_ids_BT
  return _forward(*args, scale, softcap, window)[0]


def _forward(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, scale, softcap, window):
  B, T, N, H = q_BTNH.shape
  K = k_BTKH.shape[2]
  q_BKGTH = _by_kv_head(q_BTNH * scale, K)
  k_BKTH, v_BKTH = k_BTKH.swapaxes(1, 2), v_BTKH.swapaxes(1, 2)
  outs, lses = [], []
  for block in _blocks(T, window):
    scores_BKGts = _scores(q_BKGTH, k_BKTH, segment_ids_BT, block, softcap, window)
    top_BKGt1 = jnp.max(scores_BKGts, -1, keepdims=True)
    weights_BKGts = jnp.exp(scores_BKGts - top_BKGt1)
    sum_BKGt1 = jnp.sum(weights_BKGts, -1, keepdims=True)
    out_BKGtH = _EINSUM(
      "BKGts,BKsH->BKGtH", weights_BKGts.astype(v_BTKH.dtype), v_BKTH[:, :, block[1]]
    )
    outs.append((out_BKGtH / sum_BKGt1).astype(q_BTNH.dtype))
    lses.append(top_BKGt1 + jnp.log(sum_BKGt1))
  out_BKGTH = jnp.concatenate(outs, 3)
  out_BTNH = out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)
  return out_BTNH, jnp.concatenate(lses, 3)


def _attend_fwd(q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, *static):
  args = q_BTNH, k_BTKH, v_BTKH, segment_ids_BT
  out_BTNH, lse_BKGT1 = map(remat.product, _forward(*args, *static))
  return out_BTNH, (*args, out_BTNH, lse_BKGT1)


def _attend_bwd(scale, softcap, window, residuals, dout_BTNH):
  q_BTNH, k_BTKH, v_BTKH, segment_ids_BT, out_BTNH, lse_BKGT1 = residuals
  B, T, N, H = q_BTNH.shape
  K, dtype = k_BTKH.shape[2], q_BTNH.dtype
  q_BKGTH, dout_BKGTH = _by_kv_head(q_BTNH * scale, K), _by_kv_head(dout_BTNH, K)
  k_BKTH, v_BKTH = k_BTKH.swapaxes(1, 2), v_BTKH.swapaxes(1, 2)
  # On a CPU a product with a transposed left factor takes twice as long: the small
  # factors are transposed, once, instead of the weights of every block.
  q_BKHGT, dout_BKHGT = jax.lax.optimization_barrier(
    tuple(x.transpose(0, 1, 4, 2, 3) for x in (q_BKGTH, dout_BKGTH))
  )
  dots_BTN1 = jnp.sum(
    dout_BTNH.astype(jnp.float32) * out_BTNH.astype(jnp.float32), -1, keepdims=True
  )
  dots_BKGT1 = _by_kv_head(dots_BTN1, K)
  dqs = []
  dk_BKHT = jnp.zeros((B, K, H, T), jnp.float32)
  dv_BKHT = jnp.zeros((B, K, H, T), jnp.float32)
  for block in _blocks(T, window):
    at, seen = block
    scores_BKGts = _scores(q_BKGTH, k_BKTH, segment_ids_BT, block, softcap, window)
    weights_BKGts = jnp.exp(scores_BKGts - lse_BKGT1[:, :, :, at])
    dweights_BKGts = _EINSUM(
      "BKGtH,BKsH->BKGts", dout_BKGTH[:, :, :, at], v_BKTH[:, :, seen]
    )
    dscores_BKGts = weights_BKGts * (dweights_BKGts - dots_BKGT1[:, :, :, at])
    if softcap is not None:
      # Masked scores are far below -softcap, but their weights are zero.
      slope_BKGts = 1 - jnp.square(jnp.maximum(scores_BKGts, -softcap) / softcap)
      dscores_BKGts = dscores_BKGts * slope_BKGts
    weights_BKGts, dscores_BKGts = (
      x.astype(dtype) for x in (weights_BKGts, dscores_BKGts)
    )
    dqs.append(_EINSUM("BKGts,BKsH->BKGtH", dscores_BKGts, k_BKTH[:, :, seen]))
    dv_BKHs = _EINSUM("BKHGt,BKGts->BKHs", dout_BKHGT[..., at], weights_BKGts)
    dk_BKHs = _EINSUM("BKHGt,BKGts->BKHs", q_BKHGT[..., at], dscores_BKGts)
    dv_BKHT = dv_BKHT.at[..., seen].add(dv_BKHs)
    dk_BKHT = dk_BKHT.at[..., seen].add(dk_BKHs)
  dq_BKGTH = (scale * jnp.concatenate(dqs, 3)).astype(dtype)
  dq_BTNH = dq_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N, H)
  dk_BTKH, dv_BTKH = (x.transpose(0, 3, 1, 2).astype(dtype) for x in (dk_BKHT, dv_BKHT))
  return dq_BTNH, dk_BTKH, dv_BTKH, None


attend.defvjp(_attend_fwd, _attend_bwd)


def _blocks(length: int, window: int | None) -> Iterator[tuple[slice, slice]]:
  """Yields (queries, keys that some of them see) as slices."""
  size = max(_MIN_BLOCK, -(-length // _MAX_BLOCKS))
  for start in range(0, length, size):
    stop = min(start + size, length)
    first = 0 if window is None else max(0, start - window + 1)
    yield slice(start, stop), slice(first, stop)


def _by_kv_head(x_BTNH: jax.Array, num_kv_heads: int) -> jax.Array:
  """Returns [B, K, G, T, H]."""
  B, T, N, H = x_BTNH.shape
  x_BTKGH = x_BTNH.reshape(B, T, num_kv_heads, N // num_kv_heads, H)
  return x_BTKGH.transpose(0, 2, 3, 1, 4)


def _scores(q_BKGTH, k_BKTH, segment_ids_BT, block, softcap, window):
  at, seen = block
  scores_BKGts = _EINSUM("BKGtH,BKsH->BKGts", q_BKGTH[:, :, :, at], k_BKTH[:, :, seen])
  if softcap is not None:
    scores_BKGts = softcap * jnp.tanh(scores_BKGts / softcap)
  distance_ts = (
    jnp.arange(at.start, at.stop)[:, None] - jnp.arange(seen.start, seen.stop)[None]
  )
  near_ts = distance_ts >= 0
  if window is not None:
    near_ts &= distance_ts < window
  same_Bts = segment_ids_BT[:, at, None] == segment_ids_BT[:, None, seen]
  return jnp.where((near_ts[None] & same_Bts)[:, None, None], scores_BKGts, -1e30)
