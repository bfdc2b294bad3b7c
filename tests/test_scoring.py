"""Log-probs are the same packed, one by one and in populations."""

import dataclasses

import hf_models
import jax
import numpy as np

from msm_jax.evals import scoring
from msm_jax.models import lora, transformer
from msm_jax.models.config import LoraConfig
from msm_jax.packing import Piece

CFG = dataclasses.replace(
  hf_models.config(), lora=LoraConfig(rank=3, alpha=6.0, targets=("q", "down"))
)
SIZES = {"seq_len": 40, "batch_size": 4}


def drawn(count: int) -> list[Piece]:
  """Returns prompts with answers; only answers count, some of them half."""
  rng = np.random.default_rng(count)
  pieces = []
  for n in rng.integers(4, 30, count):
    weights = np.where(np.arange(n) < n // 2, 0.0, 1.0).astype(np.float32)
    weights[-1] = 0.5
    ids = rng.integers(0, CFG.vocab_size, n).astype(np.int32)
    pieces.append(Piece(ids, weights))
  return pieces


def test_packed_answers_have_the_log_probs_of_whole_rows():
  params, pieces = hf_models.params(CFG), drawn(17)
  found = scoring.piece_nll(params, CFG, pieces, **SIZES)
  forward = jax.jit(lambda ids: transformer.logits(params, CFG, ids))
  for piece, (nll, weight) in zip(pieces, found, strict=True):
    ids = np.zeros((1, 30), np.int32)
    ids[0, : len(piece.ids)] = piece.ids
    log_probs = np.asarray(jax.nn.log_softmax(forward(ids)[0]))
    each = log_probs[np.arange(len(piece.ids) - 1), piece.ids[1:]]
    np.testing.assert_allclose(nll, -each @ piece.weights[1:], rtol=1e-5)
    assert weight == piece.weights[1:].sum()


def test_members_of_a_population_score_as_each_does_alone():
  adapters = [lora.split(hf_models.params(CFG, seed))[0] for seed in range(3)]
  base = lora.split(hf_models.params(CFG))[1]
  pieces = drawn(9)
  found = scoring.population_nll(base, adapters, CFG, pieces, **SIZES)
  for adapter, own in zip(adapters, found, strict=True):
    params = lora.join(base, adapter)
    alone = scoring.piece_nll(params, CFG, pieces, **SIZES)
    np.testing.assert_allclose(own, alone, rtol=1e-5)
  assert np.abs(found[0] - found[1]).max() > 1e-2
  assert scoring.piece_nll(base | {}, CFG, [], **SIZES).shape == (0, 2)
