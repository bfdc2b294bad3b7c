"""Log-probabilities of given continuations, in packed batches.

B batch, T query.
"""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from msm_jax import losses, packing, sharding
from msm_jax.models.config import PLAIN, Compute, ModelConfig
from msm_jax.models.lora import Params
from msm_jax.packing import Piece

_BLOCK = 256  # rows of several blocks: neither their squares nor their logits exist


@functools.partial(jax.jit, static_argnames=("cfg",))
def _row_nll(params, batch, *, cfg):
  compute = PLAIN
  if batch["inputs"].shape[1] % _BLOCK == 0:
    compute = Compute(attention="blocked", loss_chunk_len=_BLOCK)
  return losses.row_nll(params, batch, cfg=cfg, compute=compute)


def piece_nll(
  params: Params,
  cfg: ModelConfig,
  pieces: Sequence[Piece],
  *,
  seq_len: int,
  batch_size: int,
) -> np.ndarray:
  """Returns float64 [len(pieces), 2]: (sum of weighted -log p in nats, sum of weights).

  Several pieces share a row; segment ids keep them apart, so the figures do not depend
  on what else is scored.
  """
  rows = packing.plan([piece.num_slots for piece in pieces], seq_len)
  sums = np.zeros((len(pieces), 2))
  for start in range(0, len(rows), batch_size):
    chosen = rows[start : start + batch_size]
    # The last batch is filled up with empty rows, so that one shape is compiled.
    filled = [*chosen, *[[]] * (batch_size - len(chosen))]
    made = [packing.make_row([pieces[i] for i in row], seq_len) for row in filled]
    batch = {name: np.stack([row[name] for row in made]) for name in packing.FIELDS}
    nll_BT = sharding.fetch(_row_nll(params, batch, cfg=cfg)).astype(np.float64)
    for row, members in enumerate(chosen):
      at = 0
      for i in members:
        weights = pieces[i].weights[1:].astype(np.float64)
        sums[i] = nll_BT[row, at : at + len(weights)] @ weights, weights.sum()
        at += len(weights)
  return sums
