"""Attention: one function over packed rows or a cache.

B batch, T query, S key, N heads, K kv heads, G = N / K, H head dim.
"""

import jax
import jax.numpy as jnp


def packed_mask(segment_ids_BT: jax.Array) -> jax.Array:
  """Returns bool [B, T, T]: causal, and only within the same segment."""
  length = segment_ids_BT.shape[1]
  causal_TS = jnp.tril(jnp.ones((length, length), bool))
  same_BTS = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
  return causal_TS[None] & same_BTS


def cache_mask(positions_BT: jax.Array, num_slots: int) -> jax.Array:
  """Returns bool [B, T, S]: a cache slot holds the key of the position it is named
  by.
  """
  return jnp.arange(num_slots)[None, None, :] <= positions_BT[:, :, None]


def attend(
  q_BTNH: jax.Array, k_BSKH: jax.Array, v_BSKH: jax.Array, mask_BTS: jax.Array
) -> jax.Array:
  """Returns [B, T, N, H]: softmax(q k / sqrt(H)) v under `mask_BTS`, softmax in
  float32.
  """
  B, T, N, H = q_BTNH.shape
  K = k_BSKH.shape[2]
  q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) * (H**-0.5)
  scores_BKGTS = jnp.einsum(
    "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
  )
  scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS, -1e30)
  weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
  out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH)
  return out_BTKGH.reshape(B, T, N, H)
