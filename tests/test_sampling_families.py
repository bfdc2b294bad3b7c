"""Greedy completions of every family are those of transformers, token for token."""

import drawn_models
import numpy as np
import pytest

from msm_jax import sampling
from msm_jax.hf import config as hf_config
from msm_jax.hf import load

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("family", drawn_models.FAMILIES)
def test_greedy_completions_are_those_of_transformers(family, tmp_path):
  cfg = drawn_models.draw(family, 2)
  config = hf_config.to_hf(cfg, "float32")
  peer = drawn_models.transformers_model(cfg, config, 0)
  peer.save_pretrained(tmp_path)
  cfg, params = load.load(tmp_path)
  rng = np.random.default_rng(1)
  prompts = [rng.integers(0, cfg.vocab_size, n) for n in (3, 30, 11, 60, 1, 17)]
  settings = sampling.SamplingConfig(max_new_tokens=24, stop_ids=(), batch_size=2)
  found = sampling.complete(params, cfg, prompts, settings)
  for prompt, completion in zip(prompts, found, strict=True):
    ids = list(prompt)
    for token in completion:  # no near-tie may decide, so each step is compared
      with torch.no_grad():
        logits = peer(torch.tensor([ids])).logits[0, -1]
      assert logits[token] >= logits.max() - 1e-4
      ids.append(int(token))
  assert len({tuple(each) for each in found}) > 1
