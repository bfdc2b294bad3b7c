"""Hidden states in the middle of a model: the residual stream behind its first layers.

B batch, T query, D embed.
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from msm_jax import packing, sharding
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.packing import Piece


@functools.partial(jax.jit, static_argnames=("cfg", "num_layers"))
def _states(params, batch, *, cfg, num_layers):
  """Returns [B, T, D]: the residual stream behind `num_layers`, each state of rms 1.

  The model is cut, so that no layer needs a way out; its last norm, without its scale,
  brings the states of different models to one size.
  """
  layer_types = cfg.layer_types[:num_layers]
  cut = dataclasses.replace(cfg, num_layers=num_layers, layer_types=layer_types)
  plain = 0.0 if cfg.zero_centered_norms else 1.0
  kept = {
    **params,
    "layers": jax.tree.map(lambda leaf: leaf[:num_layers], params["layers"]),
    "final_norm": jax.tree.map(lambda x: jnp.full_like(x, plain), params["final_norm"]),
  }
  model = transformer.bind(cut, kept)
  return model.hidden(batch["inputs"], batch["positions"], batch["segment_ids"])[0]


def last_states(
  params: Params,
  cfg: ModelConfig,
  pieces: Sequence[Piece],
  *,
  num_layers: int,
  seq_len: int,
  batch_size: int,
) -> np.ndarray:
  """Returns float64 [len(pieces), D]: the state at the last token but one of each.

  The last token of a piece is a target only; put the one that ends a text there.
  """
  rows = packing.plan([piece.num_slots for piece in pieces], seq_len)
  states = np.zeros((len(pieces), cfg.embed_dim))
  for start in range(0, len(rows), batch_size):
    chosen = rows[start : start + batch_size]
    filled = [*chosen, *[[]] * (batch_size - len(chosen))]
    made = [packing.make_row([pieces[i] for i in row], seq_len) for row in filled]
    batch = {name: np.stack([row[name] for row in made]) for name in packing.FIELDS}
    found = _states(params, batch, cfg=cfg, num_layers=num_layers)
    x_BTD = sharding.fetch(found).astype(np.float64)
    for row, members in enumerate(chosen):
      at = 0
      for i in members:
        at += pieces[i].num_slots
        states[i] = x_BTD[row, at - 1]
  return states
