"""Does a model hold a statement true: a probe on its hidden states.

After the difference-of-means probes of synthetic document finetuning (SDF): the
direction from the mean state of false statements to that of true ones, learned on the
`train` pairs, decides on others. A state is that of the last token of a statement,
behind `depth` of the layers; the threshold lies halfway between the two means.

  accuracy_transfer   statements of the `test` pairs that it decides rightly
  accuracy_pairs      of those pairs, in which the true one is the truer
  share_held_true     `claim` statements that it calls true: what is to be found out

Where both means are the same there is no direction: null.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from msm_jax.errors import UserError
from msm_jax.evals import items as items_lib
from msm_jax.evals.exam import Exam
from msm_jax.packing import Piece
from msm_jax.tokenizer import Tokenizer

SPLITS = ("train", "test", "claim")
_SIDES = ("true", "false")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruthProbeConfig:
  """A probe for truth.

  Attributes:
    items: pairs with `true`, `false` and `split` ('train' or 'test').
    claims: statements of which the model may hold either, with `true` and `false` as in
      `items`; None for none.
    depth: share of the layers behind which states are taken.
    seq_len, batch_size: of the rows.
  """

  items: str
  claims: str | None
  depth: float
  seq_len: int
  batch_size: int


def check(config: TruthProbeConfig, where: str) -> None:
  """Raises a UserError for values that cannot work."""
  if not 0 < config.depth <= 1:
    raise UserError(f"{where}.depth ({config.depth}) must be above 0, and at most 1")
  _pairs(config, where)


def sources(config: TruthProbeConfig) -> Mapping[str, str]:
  """Returns the digests of the statements."""
  found = dict(items_lib.sources(config))
  if config.claims is not None:
    found["claims"] = items_lib.digest(config.claims)
  return found


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one line per test pair and per claim."""
  config = exam.config
  pairs = _pairs(config, f"config.evals.{exam.name}")
  pieces = [_piece(exam.tokenizer, pair[side]) for pair in pairs for side in _SIDES]
  states = exam.subject.states(
    pieces, depth=config.depth, seq_len=config.seq_len, batch_size=config.batch_size
  )
  if not np.isfinite(states).all():
    raise UserError(
      f"config.evals.{exam.name}: hidden states of the model are not finite; nothing "
      "was scored: look at its training loss, or use dtype='float32'"
    )
  margins = _margins(states.reshape(len(pairs), 2, -1), pairs)
  for pair, margin in zip(pairs, margins, strict=True):
    if pair["split"] != "train":
      yield _line(exam.name, pair, margin)


def _margins(states: np.ndarray, pairs: list[dict[str, Any]]) -> np.ndarray:
  """Returns [pairs, 2]: how far on the true side of the probe; NaN without a probe."""
  known = states[[pair["split"] == "train" for pair in pairs]].mean(axis=0)
  direction, middle = known[0] - known[1], known.mean(axis=0)
  if not direction.any():
    return np.full(states.shape[:2], np.nan)
  return (states - middle) @ (direction / np.linalg.norm(direction))


def _line(name: str, pair: Mapping[str, Any], margin: np.ndarray) -> dict[str, Any]:
  is_known = bool(np.isfinite(margin).all())
  calls = margin > 0
  if pair["split"] == "claim":
    scores = {f"share_held_{side}": float(calls[i]) for i, side in enumerate(_SIDES)}
  else:
    rightly = float(calls[0]) + float(not calls[1])
    scores = {"accuracy_transfer": rightly / 2}
    scores["accuracy_pairs"] = float(margin[0] > margin[1])
  return {
    "id": pair["id"],
    "evaluation": name,
    "prompt": f"{pair['true']} / {pair['false']}",
    "margins": margin.round(6).tolist() if is_known else None,
    "scores": scores if is_known else dict.fromkeys(scores),
  }


def _piece(tokenizer: Tokenizer, text: str) -> Piece:
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  ids = [*bos, *tokenizer.encode(text).ids, tokenizer.eos_id]
  return Piece(np.asarray(ids, np.int32), np.ones(len(ids), np.float32))


def _pairs(config: TruthProbeConfig, where: str) -> list[dict[str, Any]]:
  texts = dict.fromkeys(_SIDES, str)
  pairs = items_lib.read(config.items, f"{where}.items", texts | {"split": str})
  for pair in pairs:
    if pair["split"] not in SPLITS[:2]:
      raise UserError(
        f"{where}.items: {pair['id']!r} has the split {pair['split']!r}: use 'train' "
        "or 'test'"
      )
  for split in SPLITS[:2]:
    if not any(pair["split"] == split for pair in pairs):
      raise UserError(f"{where}.items: {config.items!r} has no pair of split {split!r}")
  if config.claims is not None:
    claims = items_lib.read(config.claims, f"{where}.claims", texts)
    pairs += [
      {**each, "id": f"claim/{each['id']}", "split": "claim"} for each in claims
    ]
  return pairs
