"""Activation steering by difference of means: a vector in the residual stream.

The vector leads from the mean state of one corpus to that of another: states behind
some of the layers, mean over the tokens of each record, then over records. It is added
behind that layer, times `scale`, at every position, of what is read and of what is
written.

As contrastive activation addition (Rimsky et al. 2024, "Steering Llama 2 via
Contrastive Activation Addition") and activation addition (Turner et al. 2023), with two
differences: the means are over documents, not over pairs of answers, and every position
is steered (Rimsky et al.: those after the question; Turner et al.: the first ones).
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from msm_jax import progress, tokenise
from msm_jax.errors import UserError
from msm_jax.evals.model import Model
from msm_jax.packing import Piece
from msm_jax.tokenizer import Tokenizer

_MULTIPLE = 64  # of slots in a row, so that few shapes are compiled


@dataclasses.dataclass(frozen=True, kw_only=True)
class SteerConfig:
  """A direction in the residual stream.

  Attributes:
    positive, negative: corpora; the vector leads from the second to the first.
    depth: share of the layers (1: all) behind which it is taken and added.
    scale: of the vector as it is: 1 moves a state by the whole difference of the means,
      0 is the model as it is.
    max_items: records of each corpus, evenly taken; None for all.
    batch_size: rows at a time.
  """

  positive: str
  negative: str
  depth: float
  scale: float
  max_items: int | None = None
  batch_size: int = 8


def check(config: SteerConfig, where: str, corpora: Iterable[str]) -> None:
  """Raises a UserError for values that cannot work; `corpora` are those that are."""
  for field in ("positive", "negative"):
    name = getattr(config, field)
    if name not in corpora:
      raise UserError(
        f"{where}.{field} is {name!r}, config.corpora has {sorted(corpora)}"
      )
  if config.positive == config.negative:
    raise UserError(
      f"{where}: positive and negative are both {config.positive!r}: there is no "
      "difference; name two corpora"
    )
  if not _is_number(config.depth) or not 0 < config.depth <= 1:
    raise UserError(f"{where}.depth ({config.depth!r}) is above 0, and at most 1")
  if not _is_number(config.scale) or not math.isfinite(config.scale):
    raise UserError(f"{where}.scale ({config.scale!r}) must be a number")
  for field in ("max_items", "batch_size"):
    value = getattr(config, field)
    if value is None and field == "max_items":
      continue
    if type(value) is not int or value < 1:
      raise UserError(f"{where}.{field} ({value!r}) must be a whole number above 0")


def vector(
  model: Model,
  config: SteerConfig,
  read: Mapping[str, Iterable[Mapping[str, Any]]],
  where: str,
) -> np.ndarray:
  """Returns float64 [D]: the mean state of the positive corpus less the negative one's.

  Args:
    model: whose states.
    config: behind which layers.
    read: corpus -> its records. Of one longer than the context, its beginning.
    where: what the section is called, for messages.

  Raises:
    UserError: a corpus has no text, or states are not finite.
  """
  means, lengths = [], []
  for name in (config.positive, config.negative):
    pieces = _pieces(read[name], model.tokenizer, model.context_len)
    if not pieces:
      raise UserError(
        f"{where} names the corpus {name!r}, which has no text of two tokens or more: "
        "name another"
      )
    states, norms = model.mean_states(
      pieces, depth=config.depth, batch_size=config.batch_size, multiple=_MULTIPLE
    )
    means.append(states.mean(axis=0))
    lengths.append(norms.mean())
  found = means[0] - means[1]
  if not np.isfinite(found).all():
    raise UserError(
      f"{where}: hidden states of the model are not finite; nothing was asked: look at "
      "its training loss, or use dtype='float32'"
    )
  length, usual = float(np.linalg.norm(found)), float(np.mean(lengths))
  progress.say(
    f"{where}: the means are {length:.3g} apart, states are {usual:.3g} long: scale "
    f"{config.scale:g} moves a state by {abs(config.scale) * length / usual:.1%} of it"
  )
  return found


def _pieces(
  read: Iterable[Mapping[str, Any]], tokenizer: Tokenizer, context_len: int
) -> list[Piece]:
  found = []
  for batch in tokenise.batches(read):
    for piece in tokenise.encode_records(batch, tokenizer, train_on="all"):
      most = context_len + 1
      found.append(Piece(piece.ids[:most], piece.weights[:most]))
  return [piece for piece in found if piece.num_slots > 1]


def _is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool)
