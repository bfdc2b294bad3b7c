"""Training objectives: sums over weighted target tokens, never means.

A mean of microbatch means would weigh a token in a short row more than one in a full
row. So a loss returns (weighted sum, sum of weights); whoever has all the sums divides
once.

B batch, T query, D embed, C chunks, V vocab.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params

Batch = Mapping[str, jax.Array]


def token_nll(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
  """Returns float32 [B, T]: -log p(target), in nats."""
  logits_BTV = logits_BTV.astype(jnp.float32)
  target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT


def next_token_nll(
  params: Params,
  batch: Batch,
  *,
  cfg: ModelConfig,
  remat: bool = False,
  chunk_len: int | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Returns (sum of weighted -log p(target), sum of weights), both float32 scalars.

  Args:
    params: the whole tree, adapters included.
    batch: rows [B, T] of the five packed fields.
    cfg: the model.
    remat: recompute each block in the backward pass.
    chunk_len: logits exist for this many positions at a time (None: all at once), and
      are recomputed in the backward pass; must divide T.
  """
  nll_BT = row_nll(params, batch, cfg=cfg, remat=remat, chunk_len=chunk_len)
  weights_BT = batch["loss_weights"]
  return jnp.sum(nll_BT * weights_BT), jnp.sum(weights_BT)


def row_nll(
  params: Params,
  batch: Batch,
  *,
  cfg: ModelConfig,
  remat: bool = False,
  chunk_len: int | None = None,
) -> jax.Array:
  """Returns float32 [B, T]: -log p(target) of every position, weights not applied."""
  model = transformer.bind(cfg, params)
  x_BTD, _ = model.hidden(
    batch["inputs"], batch["positions"], batch["segment_ids"], remat=remat
  )
  targets_BT = batch["targets"]
  B, T = targets_BT.shape
  if chunk_len is None or chunk_len >= T:
    return token_nll(model.unembed(x_BTD), targets_BT)

  @jax.checkpoint
  def chunk_nll(_, chunk):
    x_BcD, targets_Bc = chunk
    return None, token_nll(model.unembed(x_BcD), targets_Bc)

  num_chunks = T // chunk_len
  chunks = (
    x_BTD.reshape(B, num_chunks, chunk_len, -1).swapaxes(0, 1),
    targets_BT.reshape(B, num_chunks, chunk_len).swapaxes(0, 1),
  )
  _, nll_CBc = jax.lax.scan(chunk_nll, None, chunks)
  return nll_CBc.swapaxes(0, 1).reshape(B, T)
