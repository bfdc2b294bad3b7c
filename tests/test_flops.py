"""Model FLOPs count what is computed: what is frozen has no gradient of its own."""

import dataclasses

import jax

from msm_jax.models import lora, transformer
from msm_jax.models.config import LoraConfig, ModelConfig

CFG = ModelConfig(
  vocab_size=64,
  embed_dim=16,
  mlp_dim=24,
  num_layers=3,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  max_seq_len=32,
)


def test_a_frozen_output_layer_has_no_weight_gradient():
  for tied, name in ((True, "embed"), (False, "lm_head")):
    cfg = dataclasses.replace(CFG, tie_embeddings=tied)
    found = cfg.flops_per_token(32, freeze=(name,))
    assert found == cfg.flops_per_token(32) - 2 * 64 * 16
  cfg = dataclasses.replace(CFG, tie_embeddings=False)  # a look-up is no product
  assert cfg.flops_per_token(32, freeze=("embed",)) == cfg.flops_per_token(32)


def test_adapters_have_two_products_forward_and_four_backward():
  adapted = dataclasses.replace(CFG, lora=LoraConfig(rank=3, alpha=1.0))
  leaves = jax.tree.leaves(lora.split(transformer.abstract_params(adapted))[0])
  size = sum(leaf.size for leaf in leaves)
  assert adapted.num_adapter_params() == size
  plain = CFG.flops_per_token(32, train_base=False)
  assert adapted.flops_per_token(32, train_base=False) == plain + 6 * size
