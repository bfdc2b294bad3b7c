"""The definition of attention: masks, and a softmax over the whole square.

B batch, T query, S key, N heads, K kv heads, G = N / K, H head dim.
"""

import jax
import jax.numpy as jnp


def packed_mask(segment_ids_BT: jax.Array, window: int | None = None) -> jax.Array:
  """Returns bool [B, T, T]: causal, only within the same segment, and only the last
  `window` keys (the query's own among them) if there is a window.
  """
  length = segment_ids_BT.shape[1]
  near_TS = jnp.tril(jnp.ones((length, length), bool))
  if window is not None:
    near_TS &= ~jnp.tril(near_TS, -window)
  same_BTS = segment_ids_BT[:, :, None] == segment_ids_BT[:, None, :]
  return near_TS[None] & same_BTS


def attend(
  q_BTNH: jax.Array,
  k_BSKH: jax.Array,
  v_BSKH: jax.Array,
  mask_BTS: jax.Array,
  *,
  scale: float,
  softcap: float | None = None,
) -> jax.Array:
  """Returns [B, T, N, H]: softmax(scale q k) v under `mask_BTS`, softmax in float32.

  With a softcap, scores are softcap * tanh(scale q k / softcap) (Gemma 2, section 2).
  """
  B, T, N, H = q_BTNH.shape
  K = k_BSKH.shape[2]
  q_BTKGH = q_BTNH.reshape(B, T, K, N // K, H) * scale
  scores_BKGTS = jnp.einsum(
    "BTKGH,BSKH->BKGTS", q_BTKGH, k_BSKH, preferred_element_type=jnp.float32
  )
  if softcap is not None:
    scores_BKGTS = softcap * jnp.tanh(scores_BKGTS / softcap)
  scores_BKGTS = jnp.where(mask_BTS[:, None, None], scores_BKGTS, -1e30)
  weights_BKGTS = jax.nn.softmax(scores_BKGTS, axis=-1).astype(v_BSKH.dtype)
  out_BTKGH = jnp.einsum("BKGTS,BSKH->BTKGH", weights_BKGTS, v_BSKH)
  return out_BTKGH.reshape(B, T, N, H)


def masked(mask_BTS: jax.Array):
  """Returns `attend` under this mask."""

  def under_mask(q_BTNH, k_BSKH, v_BSKH, scale, softcap):
    return attend(q_BTNH, k_BSKH, v_BSKH, mask_BTS, scale=scale, softcap=softcap)

  return under_mask


def over_columns(
  q_B1NH: jax.Array,
  k_BKSH: jax.Array,
  v_BKSH: jax.Array,
  seen_BS: jax.Array,
  *,
  scale: float,
  softcap: float | None = None,
) -> jax.Array:
  """Returns [B, 1, N, H]: `attend` of one query in each row over the columns of a cache
  that it sees; keys and values of a head lie together.
  """
  B, _, N, H = q_B1NH.shape
  K = k_BKSH.shape[1]
  q_BKGH = q_B1NH.reshape(B, K, N // K, H) * scale
  scores_BKGS = jnp.einsum(
    "BKGH,BKSH->BKGS", q_BKGH, k_BKSH, preferred_element_type=jnp.float32
  )
  if softcap is not None:
    scores_BKGS = softcap * jnp.tanh(scores_BKGS / softcap)
  scores_BKGS = jnp.where(seen_BS[:, None, None], scores_BKGS, -1e30)
  weights_BKGS = jax.nn.softmax(scores_BKGS, axis=-1).astype(v_BKSH.dtype)
  out_BKGH = jnp.einsum("BKGS,BKSH->BKGH", weights_BKGS, v_BKSH)
  return out_BKGH.reshape(B, 1, N, H)
