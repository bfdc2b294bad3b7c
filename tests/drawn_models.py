"""Random small models of every family, for comparisons with transformers."""

import random

import hf_models

from msm_jax.hf import families, names
from msm_jax.models.config import FULL, LORA_TARGETS, SLIDING, ModelConfig, RopeScaling

FAMILIES = tuple(families.FAMILIES)
ROPES = ("default", "linear", "llama3", "yarn")


def draw(family: str, seed: int) -> ModelConfig:
  """Returns a model of a family; tied, rope and windows go round with the seed."""
  rng = random.Random(f"{family} {seed}")
  num_kv_heads, groups = rng.choice([1, 2, 3]), rng.choice([1, 2, 3])
  num_heads = num_kv_heads * groups
  num_layers = rng.choice([1, 3, 4])
  max_seq_len = rng.choice([300, 4096, 131072])
  head_dim = 4 if family == "qwen2" else rng.choice([4, 6, 16, 64])
  return hf_models.config(
    family=family,
    vocab_size=rng.choice([61, 97]),
    num_heads=num_heads,
    num_kv_heads=num_kv_heads,
    # Norms over few numbers, four to a layer, round too much to compare.
    embed_dim=num_heads * -(-24 // num_heads),
    mlp_dim=rng.choice([20, 36]),
    head_dim=head_dim,
    num_layers=num_layers,
    max_seq_len=max_seq_len,
    rope_theta=rng.choice([1e4, 5e5, 1e6]),
    rope_scaling=_rope(ROPES[seed % 4], max_seq_len, rng),
    norm_eps=rng.choice([1e-5, 1e-6]),
    tie_embeddings=bool((seed // 2) % 2),
    activation=rng.choice(["silu", "gelu_tanh", "gelu", "relu"]),
    **_traits(family, head_dim, seed, rng),
    **_windows(family, seed, num_layers, rng),
  )


def _rope(kind: str, max_seq_len: int, rng: random.Random) -> RopeScaling | None:
  if kind == "default":
    return None
  factor = rng.choice([2.0, 4.5, 8.0])
  if kind == "linear":
    return RopeScaling(rope_type=kind, factor=factor)
  original = rng.choice([32, 64, max_seq_len // 8])
  if kind == "llama3":
    return RopeScaling(
      rope_type=kind,
      factor=factor,
      original_max_position_embeddings=original,
      low_freq_factor=1.0,
      high_freq_factor=rng.choice([2.0, 4.0]),
    )
  extra = rng.choice(
    [{}, {"attention_factor": 1.3}, {"mscale": 0.7, "mscale_all_dim": 1.2}]
  )
  return RopeScaling(
    rope_type=kind,
    factor=factor,
    original_max_position_embeddings=original,
    beta_fast=rng.choice([32.0, 16.0]),
    beta_slow=rng.choice([1.0, 2.0]),
    **extra,
  )


def _traits(family: str, head_dim: int, seed: int, rng: random.Random) -> dict:
  """Returns the fields of a family, with a bias in every other model that may have
  one.
  """
  bias = ("q", "k", "v", "o") if seed % 2 else ()
  gemma = {
    "bias": bias,
    "zero_centered_norms": True,
    "post_norms": True,
    "scale_embeddings": True,
    "query_pre_attn_scalar": head_dim + rng.choice([-1, 0, 5]),
    "final_softcap": rng.choice([None, 3.0]),
  }
  traits = {
    "llama": {"bias": LORA_TARGETS if seed % 3 == 2 else bias},
    "mistral": {},
    "qwen2": {"bias": ("q", "k", "v")},
    "qwen3": {"bias": bias, "qk_norm": True},
    "gemma2": {**gemma, "attention_softcap": rng.choice([None, 2.0])},
    "gemma3_text": {**gemma, "qk_norm": True, "local_rope_theta": 1e4},
  }
  return traits[family]


def _windows(family: str, seed: int, num_layers: int, rng: random.Random) -> dict:
  if family == "llama" or seed % 4 == 3:
    return {}
  window = rng.choice([1, 7, 50])
  types = [rng.choice([FULL, SLIDING]) for _ in range(num_layers)]
  types[rng.randrange(num_layers)] = SLIDING
  if family == "mistral":
    types = [SLIDING] * num_layers
  return {"sliding_window": window, "layer_types": tuple(types)}


def transformers_model(cfg: ModelConfig, config: dict, seed: int):
  """Returns transformers' model of a config.json with drawn float32 weights.

  Norm scales and biases are drawn too: at their initial values a lost one would not be
  seen.
  """
  import torch
  import transformers

  torch.manual_seed(seed)
  peer_config = transformers.AutoConfig.for_model(**config)
  model = getattr(transformers, names.family(cfg).architecture)(peer_config)
  with torch.no_grad():
    for parameter in model.parameters():
      drawn = torch.randn_like(parameter) * 0.2
      parameter.copy_(drawn if parameter.ndim > 1 else parameter + drawn)
  return model.eval()
