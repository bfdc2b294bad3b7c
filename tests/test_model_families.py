"""What must hold for every family's forward pass, whatever transformers computes."""

import dataclasses

import drawn_models
import hf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msm_jax import packing, sampling, sharding, train_state
from msm_jax.hf import config as hf_config
from msm_jax.models import transformer
from msm_jax.models.config import FULL, SLIDING
from msm_jax.packing import Piece


def model(family: str):
  """Returns a model that has a window where the family can, and its parameters."""
  cfg = dataclasses.replace(
    drawn_models.draw(family, 2), embed_dim=16, num_heads=4, num_kv_heads=2, head_dim=4
  )
  if cfg.layer_types:
    types = (SLIDING,) * 3 if family == "mistral" else (SLIDING, FULL, SLIDING)
    cfg = dataclasses.replace(
      cfg, num_layers=3, layer_types=types, sliding_window=5, max_seq_len=300
    )
  return cfg, jax.tree.map(jnp.asarray, hf_models.params(cfg))


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text", "qwen3"])
def test_packed_documents_give_the_logits_of_separate_ones(family):
  cfg, params = model(family)
  rng = np.random.default_rng(0)
  pieces = [
    Piece(rng.integers(0, cfg.vocab_size, n).astype(np.int32), np.ones(n, np.float32))
    for n in (9, 5, 12)
  ]
  row = packing.make_row(pieces, 32)
  forward = jax.jit(lambda *a: transformer.logits(params, cfg, *a))
  fields = ("inputs", "positions", "segment_ids")
  packed = forward(*(jnp.asarray(row[name])[None] for name in fields))
  at = 0
  for piece in pieces:
    alone = np.zeros((3, 1, 32), np.int32)  # the same shape: one compilation
    alone[0, 0, : piece.num_slots] = piece.ids[:-1]
    alone[1, 0, : piece.num_slots] = np.arange(piece.num_slots)
    alone[2, 0, : piece.num_slots] = 1
    expected = forward(*alone)[0, : piece.num_slots]
    found = packed[0, at : at + piece.num_slots]
    np.testing.assert_allclose(found, expected, atol=2e-5, rtol=1e-5)
    at += piece.num_slots


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_a_completion_over_the_cache_is_the_one_of_whole_rows(family):
  cfg, params = model(family)
  prompts = [np.arange(1, 12, dtype=np.int32), np.arange(20, 23, dtype=np.int32)]
  settings = sampling.SamplingConfig(max_new_tokens=9, stop_ids=(-1,), batch_size=2)
  forward = jax.jit(lambda ids: transformer.logits(params, cfg, ids))
  found = sampling.complete(params, cfg, prompts, settings)
  for prompt, completion in zip(prompts, found, strict=True):
    ids = np.zeros((1, 20), np.int32)
    ids[0, : len(prompt)] = prompt
    for n in range(9):
      at = len(prompt) + n
      ids[0, at] = int(forward(ids)[0, at - 1].argmax())
    np.testing.assert_array_equal(completion, ids[0, len(prompt) : len(prompt) + 9])


@pytest.mark.parametrize("family", ["gemma3_text", "qwen2"])
def test_a_divided_model_gives_the_logits_of_a_whole_one(family):
  cfg, params = model(family)
  ids = jnp.arange(64).reshape(8, 8) % cfg.vocab_size
  whole = jax.jit(lambda p: transformer.logits(p, cfg, ids))(params)
  mesh = sharding.make_mesh(2, 2, 2)
  shapes = train_state.abstract(transformer.abstract_params(cfg), cfg, mesh)
  divided = jax.device_put(params, jax.tree.map(lambda leaf: leaf.sharding, shapes))
  with jax.set_mesh(mesh):
    found = jax.jit(lambda p: transformer.logits(p, cfg, ids))(divided)
  np.testing.assert_allclose(found, whole, atol=2e-5, rtol=1e-5)


def test_a_window_hides_what_is_further_back():
  cfg, params = model("mistral")
  cfg = dataclasses.replace(
    cfg, sliding_window=2
  )  # two layers' reach: 3 positions back
  cfg = dataclasses.replace(cfg, num_layers=2, layer_types=(SLIDING, SLIDING))
  params = params | {"layers": jax.tree.map(lambda x: x[:2], params["layers"])}
  ids = np.arange(10)[None]

  def at_6(embedding):
    changed = params | {"embed": {"embedding": embedding}, "lm_head": head}
    return transformer.logits(changed, untied, ids)[0, 6].sum()

  untied = dataclasses.replace(cfg, tie_embeddings=False)
  head = {"kernel": jnp.ones((cfg.embed_dim, cfg.vocab_size))}
  grads = jax.grad(at_6)(params["embed"]["embedding"])
  reached = np.flatnonzero(np.abs(grads).sum(1))
  np.testing.assert_array_equal(reached, [4, 5, 6])


def test_flops_of_a_window_lie_between_none_and_full():
  cfg, _ = model("mistral")
  full = dataclasses.replace(cfg, sliding_window=None, layer_types=())
  assert cfg.flops_per_token(5) == full.flops_per_token(5)  # as long as the window
  assert cfg.flops_per_token(400) < full.flops_per_token(400)
  assert cfg.flops_per_token(400) > cfg.flops_per_token(5)


# Sizes as published in the models' config.json.
_PUBLISHED = {
  "Llama-3.1-8B": (
    dict(model_type="llama", vocab_size=128256, hidden_size=4096),
    dict(intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32),
    dict(num_key_value_heads=8),
    8_030_261_248,
  ),
  "Mistral-7B": (
    dict(model_type="mistral", vocab_size=32000, hidden_size=4096),
    dict(intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32),
    dict(num_key_value_heads=8),
    7_241_732_096,
  ),
  "Qwen2.5-32B": (
    dict(model_type="qwen2", vocab_size=152064, hidden_size=5120),
    dict(intermediate_size=27648, num_hidden_layers=64, num_attention_heads=40),
    dict(num_key_value_heads=8),
    32_763_876_352,
  ),
  "Gemma-2-9B": (
    dict(model_type="gemma2", vocab_size=256000, hidden_size=3584),
    dict(intermediate_size=14336, num_hidden_layers=42, num_attention_heads=16),
    dict(num_key_value_heads=8, head_dim=256),
    9_241_705_984,
  ),
  "Gemma-3-1B": (
    dict(model_type="gemma3_text", vocab_size=262144, hidden_size=1152),
    dict(intermediate_size=6912, num_hidden_layers=26, num_attention_heads=4),
    dict(num_key_value_heads=1, head_dim=256, sliding_window=512),
    999_885_952,
  ),
}


@pytest.mark.parametrize("name", _PUBLISHED)
def test_published_sizes_give_the_published_number_of_parameters(name):
  *parts, expected = _PUBLISHED[name]
  config = {key: value for part in parts for key, value in part.items()}
  cfg = hf_config.from_hf(config)
  leaves = jax.tree.leaves(transformer.abstract_params(cfg))
  assert sum(leaf.size for leaf in leaves) == cfg.num_params() == expected
