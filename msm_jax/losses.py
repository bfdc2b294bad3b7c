"""Training objectives: sums over weighted target tokens, never means.

A mean of microbatch means would weigh a token in a short row more than one in a full
row. So a loss returns (weighted sum, sum of weights); whoever has all the sums divides
once.

B batch, T query, D embed, V vocab.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from msm_jax import cross_entropy
from msm_jax.models import transformer
from msm_jax.models.config import PLAIN, Compute, ModelConfig
from msm_jax.models.lora import Params

Batch = Mapping[str, jax.Array]


def token_nll(logits_BTV: jax.Array, targets_BT: jax.Array) -> jax.Array:
  """Returns float32 [B, T]: -log p(target), in nats."""
  logits_BTV = logits_BTV.astype(jnp.float32)
  target_BT = jnp.take_along_axis(logits_BTV, targets_BT[..., None], axis=-1)[..., 0]
  return jax.nn.logsumexp(logits_BTV, axis=-1) - target_BT


def next_token_nll(
  params: Params, batch: Batch, *, cfg: ModelConfig, compute: Compute = PLAIN
) -> tuple[jax.Array, jax.Array]:
  """Returns (sum of weighted -log p(target), sum of weights), both float32 scalars.

  Args:
    params: the whole tree, adapters included.
    batch: rows [B, T] of the five packed fields.
    cfg: the model.
    compute: how; `loss_chunk_len` must divide T if it is shorter.
  """
  weights_BT, targets_BT = batch["loss_weights"], batch["targets"]
  model, x_BTD = _hidden(params, batch, cfg, compute)
  if _is_whole(compute, targets_BT):
    nll_sum = jnp.sum(token_nll(model.unembed(x_BTD), targets_BT) * weights_BT)
  else:
    nll_sum = cross_entropy.weighted_nll(
      x_BTD,
      model.output_kernel(),
      targets_BT,
      weights_BT,
      compute.loss_chunk_len,
      cfg.final_softcap,
    )
  return nll_sum, jnp.sum(weights_BT)


def row_nll(
  params: Params, batch: Batch, *, cfg: ModelConfig, compute: Compute = PLAIN
) -> jax.Array:
  """Returns float32 [B, T]: -log p(target) of every position, weights not applied.

  With a field `at` int32 [B, M] it is [B, M], of these positions only: no logits are
  made of others.
  """
  model, x_BTD = _hidden(params, batch, cfg, compute)
  targets_BT = batch["targets"]
  if "at" in batch:
    x_BTD = jnp.take_along_axis(x_BTD, batch["at"][..., None], axis=1)
    targets_BT = jnp.take_along_axis(targets_BT, batch["at"], axis=1)
  if _is_whole(compute, targets_BT):
    return token_nll(model.unembed(x_BTD), targets_BT)
  kernel_DV, chunk_len = model.output_kernel(), compute.loss_chunk_len
  return cross_entropy.nll(x_BTD, kernel_DV, targets_BT, chunk_len, cfg.final_softcap)


def _hidden(params, batch, cfg, compute):
  model = transformer.bind(cfg, params)
  fields = batch["inputs"], batch["positions"], batch["segment_ids"]
  return model, model.hidden(*fields, compute=compute)[0]


def _is_whole(compute: Compute, targets_BT: jax.Array) -> bool:
  chunk_len = compute.loss_chunk_len
  return chunk_len is None or chunk_len >= targets_BT.shape[1]
