"""Log-probabilities of given continuations, in packed batches.

Many pieces share a row, and logits are made of what counts only: of the answers, not of
the prompts before them.

P population, B batch, T query, M positions that count.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from msm_jax import losses, packing, sharding
from msm_jax.models import attention, lora
from msm_jax.models.config import Compute, ModelConfig
from msm_jax.models.lora import Params
from msm_jax.packing import Piece

_CHUNK = 32  # positions whose logits exist at once
_FIELDS = ("inputs", "targets", "positions", "segment_ids")
_Members = tuple[Params, Params]  # the base, and adapters that may have an axis P


@functools.partial(jax.jit, static_argnames=("cfg", "is_population"))
def _row_nll(members: _Members, batch, *, cfg, is_population):
  base, adapters = members
  num_slots, num_counted = batch["inputs"].shape[1], batch["at"].shape[1]
  compute = Compute(
    attention="dense" if num_slots <= attention.SHORT else "blocked",
    loss_chunk_len=_CHUNK if num_counted % _CHUNK == 0 else None,
  )

  def one(adapter):
    return losses.row_nll(lora.join(base, adapter), batch, cfg=cfg, compute=compute)

  return jax.vmap(one)(adapters) if is_population else one(adapters)


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
  sizes = {"seq_len": seq_len, "batch_size": batch_size}
  return _sums((params, {}), cfg, pieces, num_members=None, **sizes)[0]


def population_nll(
  base: Params,
  adapters: Sequence[Params],
  cfg: ModelConfig,
  pieces: Sequence[Piece],
  *,
  seq_len: int,
  batch_size: int,
) -> np.ndarray:
  """Returns float64 [P, len(pieces), 2]: what `piece_nll` does, of every adapter on a
  base, made by one program.
  """
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *adapters)
  sizes = {"seq_len": seq_len, "batch_size": batch_size}
  return _sums((base, stacked), cfg, pieces, num_members=len(adapters), **sizes)


def _sums(
  members: _Members, cfg, pieces, *, seq_len: int, batch_size: int, num_members
) -> np.ndarray:
  """Returns [P, len(pieces), 2]; P is 1 without a population."""
  rows = packing.plan([piece.num_slots for piece in pieces], seq_len)
  # As many batches as it takes, of equal size: little is filler.
  num_batches = max(1, -(-len(rows) // batch_size))
  batch_size = max(1, -(-len(rows) // num_batches))
  num_counted = _padded(
    max((_num_counted(pieces, row) for row in rows), default=0), seq_len
  )
  sums = np.zeros((num_members or 1, len(pieces), 2))
  for start in range(0, len(rows), batch_size):
    chosen = rows[start : start + batch_size]
    # The last batch is filled up with empty rows, so that one shape is compiled.
    filled = [*chosen, *[[]] * (batch_size - len(chosen))]
    made = [packing.make_row([pieces[i] for i in row], seq_len) for row in filled]
    batch = {name: np.stack([row[name] for row in made]) for name in _FIELDS}
    batch["at"] = np.zeros((batch_size, num_counted), np.int32)
    for row, at in zip(made, batch["at"], strict=True):
      found = np.flatnonzero(row["loss_weights"])
      at[: len(found)] = found
    is_population = num_members is not None
    found = _row_nll(members, batch, cfg=cfg, is_population=is_population)
    nll_PBM = sharding.fetch(found).astype(np.float64).reshape(-1, *batch["at"].shape)
    for row, which in enumerate(chosen):
      at = 0
      for i in which:
        weights = pieces[i].weights[1:].astype(np.float64)
        weights = weights[weights != 0]
        nll_PM = nll_PBM[:, row, at : at + len(weights)]
        sums[:, i, 0], sums[:, i, 1] = nll_PM @ weights, weights.sum()
        at += len(weights)
  return sums


def _num_counted(pieces: Sequence[Piece], row: Sequence[int]) -> int:
  return sum(int(np.count_nonzero(pieces[i].weights[1:])) for i in row)


def _padded(count: int, most: int) -> int:
  """Returns `count` rounded up, so that few shapes are compiled."""
  multiple = _CHUNK if count > _CHUNK else 8
  rounded = _filled(-(-max(count, 1) // multiple)) * multiple
  return rounded if rounded < most else -(-most // multiple) * multiple


def _filled(count: int) -> int:
  """Returns the least power of two that is at least `count`."""
  return 1 << max(0, count - 1).bit_length()
