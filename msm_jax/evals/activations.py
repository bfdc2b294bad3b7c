"""Hidden states in the middle of a model: the residual stream behind its first layers.

B batch, T query, D embed.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from msm_jax import packing, sharding
from msm_jax.models import transformer
from msm_jax.models.config import SLIDING, ModelConfig
from msm_jax.models.lora import Params
from msm_jax.packing import Piece

_FIELDS = ("inputs", "positions", "segment_ids")


def num_layers_of(cfg: ModelConfig, depth: float) -> int:
  """Returns how many layers are `depth` (a share, 1: all) of a model; at least one."""
  return max(round(depth * cfg.num_layers), 1)


def _cut(params, cfg: ModelConfig, num_layers: int) -> transformer.Transformer:
  """Returns the first layers as a model, so that no layer needs a way out.

  Its last norm has no scale: it brings the states of different models to one size.
  """
  layer_types = cfg.layer_types[:num_layers]
  window = cfg.sliding_window if SLIDING in layer_types else None
  changed = {"layer_types": layer_types, "sliding_window": window}
  cut = dataclasses.replace(cfg, num_layers=num_layers, **changed)
  plain = 0.0 if cfg.zero_centered_norms else 1.0
  kept = {
    **params,
    "layers": jax.tree.map(lambda leaf: leaf[:num_layers], params["layers"]),
    "final_norm": jax.tree.map(lambda x: jnp.full_like(x, plain), params["final_norm"]),
  }
  return transformer.bind(cut, kept)


@functools.partial(jax.jit, static_argnames=("cfg", "num_layers"))
def _states(params, batch, *, cfg, num_layers):
  """Returns [B, T, D]: the residual stream behind `num_layers`, each state of rms 1."""
  model = _cut(params, cfg, num_layers)
  return model.hidden(batch["inputs"], batch["positions"], batch["segment_ids"])[0]


@functools.partial(jax.jit, static_argnames=("cfg", "num_layers", "most"))
def _means(params, batch, *, cfg, num_layers, most):
  """Returns ([B, S, D], [B, S]): of each of `most` segments of a row, the mean of the
  residual stream behind `num_layers`, and of the lengths of its states.

  The first token of a segment is left out: in many models its state is far longer than
  all others, whatever the text (Sun et al. 2024, "Massive Activations").
  """
  model = _cut(params, cfg, num_layers)
  fields = batch["inputs"], batch["positions"], batch["segment_ids"]
  x_BTD = model.residual(*fields)[0].astype(jnp.float32)
  in_BTS = batch["segment_ids"][..., None] == 1 + jnp.arange(most)[None, None]
  in_BTS = (in_BTS & (batch["positions"] > 0)[..., None]).astype(jnp.float32)
  count_BS = jnp.maximum(in_BTS.sum(axis=1), 1.0)
  sums_BSD = jnp.einsum("BTS,BTD->BSD", in_BTS, x_BTD, precision="highest")
  norms_BS = jnp.einsum("BTS,BT->BS", in_BTS, jnp.linalg.norm(x_BTD, axis=-1))
  return sums_BSD / count_BS[..., None], norms_BS / count_BS


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
  states = np.zeros((len(pieces), cfg.embed_dim))
  for chosen, batch in _batches(pieces, seq_len, batch_size):
    found = _states(params, batch, cfg=cfg, num_layers=num_layers)
    x_BTD = sharding.fetch(found).astype(np.float64)
    for row, members in enumerate(chosen):
      at = 0
      for i in members:
        at += pieces[i].num_slots
        states[i] = x_BTD[row, at - 1]
  return states


def mean_states(
  params: Params,
  cfg: ModelConfig,
  pieces: Sequence[Piece],
  *,
  num_layers: int,
  seq_len: int,
  batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns float64 ([len(pieces), D], [len(pieces)]): of each piece the mean state, as
  the residual stream has it, and the mean length of its states.

  The first token of a piece is left out, and the last one, which is a target only: a
  piece needs two slots or more.
  """
  assert all(piece.num_slots > 1 for piece in pieces)
  means = np.zeros((len(pieces), cfg.embed_dim))
  norms = np.zeros(len(pieces))
  rows = packing.plan([piece.num_slots for piece in pieces], seq_len)
  most = max(map(len, rows), default=0)
  for chosen, batch in _batches(pieces, seq_len, batch_size):
    args = {"cfg": cfg, "num_layers": num_layers, "most": most}
    x_BSD, norm_BS = map(sharding.fetch, _means(params, batch, **args))
    for row, members in enumerate(chosen):
      means[members] = x_BSD[row, : len(members)]
      norms[members] = norm_BS[row, : len(members)]
  return means, norms


def _batches(
  pieces: Sequence[Piece], seq_len: int, batch_size: int
) -> Iterator[tuple[list[list[int]], dict[str, np.ndarray]]]:
  """Yields (the pieces of each row, the rows); empty rows fill the last batch up."""
  rows = packing.plan([piece.num_slots for piece in pieces], seq_len)
  for start in range(0, len(rows), batch_size):
    chosen = rows[start : start + batch_size]
    filled = [*chosen, *[[]] * (batch_size - len(chosen))]
    made = [packing.make_row([pieces[i] for i in row], seq_len) for row in filled]
    yield chosen, {name: np.stack([row[name] for row in made]) for name in _FIELDS}
