"""Sizes of released models, for questions about a model that is not on this disk.

A row is what its `config.json` says of all that memory and time depend on. Models are
never made from it: `train` reads their own files.
"""

import re
from typing import Any

from msm_jax.hf import config as hf_config
from msm_jax.models.config import ModelConfig

_ENDINGS = re.compile(r"^meta-|-(instruct|base|it|pt)(?=-|$)")

# (layers, embed, mlp, heads, kv heads, head dim), vocabulary, whether tied
_Row = tuple[tuple[int, int, int, int, int, int], int, bool]
_LLAMA: dict[str, _Row] = {
  "llama-3.1-8b": ((32, 4096, 14336, 32, 8, 128), 128256, False),
  "llama-3.1-70b": ((80, 8192, 28672, 64, 8, 128), 128256, False),
  "llama-3.2-1b": ((16, 2048, 8192, 32, 8, 64), 128256, True),
  "llama-3.2-3b": ((28, 3072, 8192, 24, 8, 128), 128256, True),
  "llama-3.3-70b": ((80, 8192, 28672, 64, 8, 128), 128256, False),
}
_SMOLLM2: dict[str, _Row] = {
  "smollm2-135m": ((30, 576, 1536, 9, 3, 64), 49152, True),
  "smollm2-360m": ((32, 960, 2560, 15, 5, 64), 49152, True),
  "smollm2-1.7b": ((24, 2048, 8192, 32, 32, 64), 49152, True),
}
_MISTRAL: dict[str, _Row] = {
  "mistral-7b-v0.3": ((32, 4096, 14336, 32, 8, 128), 32768, False),
}
_QWEN2: dict[str, _Row] = {
  "qwen2.5-0.5b": ((24, 896, 4864, 14, 2, 64), 151936, True),
  "qwen2.5-1.5b": ((28, 1536, 8960, 12, 2, 128), 151936, True),
  "qwen2.5-3b": ((36, 2048, 11008, 16, 2, 128), 151936, True),
  "qwen2.5-7b": ((28, 3584, 18944, 28, 4, 128), 152064, False),
  "qwen2.5-14b": ((48, 5120, 13824, 40, 8, 128), 152064, False),
  "qwen2.5-32b": ((64, 5120, 27648, 40, 8, 128), 152064, False),
  "qwen2.5-72b": ((80, 8192, 29568, 64, 8, 128), 152064, False),
}
_QWEN3: dict[str, _Row] = {
  "qwen3-0.6b": ((28, 1024, 3072, 16, 8, 128), 151936, True),
  "qwen3-1.7b": ((28, 2048, 6144, 16, 8, 128), 151936, True),
  "qwen3-4b": ((36, 2560, 9728, 32, 8, 128), 151936, True),
  "qwen3-8b": ((36, 4096, 12288, 32, 8, 128), 151936, False),
  "qwen3-14b": ((40, 5120, 17408, 40, 8, 128), 151936, False),
  "qwen3-32b": ((64, 5120, 25600, 64, 8, 128), 151936, False),
}
_GEMMA2: dict[str, _Row] = {
  "gemma-2-2b": ((26, 2304, 9216, 8, 4, 256), 256000, True),
  "gemma-2-9b": ((42, 3584, 14336, 16, 8, 256), 256000, True),
  "gemma-2-27b": ((46, 4608, 36864, 32, 16, 128), 256000, True),
}
_GEMMA3: dict[str, _Row] = {
  "gemma-3-1b": ((26, 1152, 6912, 4, 1, 256), 262144, True),
}
# By `model_type`: rows, and the other keys that all of them share.
_FAMILIES: tuple[tuple[str, dict[str, _Row], dict[str, Any]], ...] = (
  ("llama", _LLAMA, {"max_position_embeddings": 131072, "rope_theta": 5e5}),
  ("llama", _SMOLLM2, {"max_position_embeddings": 8192, "rope_theta": 1e5}),
  (
    "mistral",
    _MISTRAL,
    {"max_position_embeddings": 32768, "rope_theta": 1e6, "sliding_window": None},
  ),
  ("qwen2", _QWEN2, {"max_position_embeddings": 32768, "rope_theta": 1e6}),
  ("qwen3", _QWEN3, {"max_position_embeddings": 40960, "rope_theta": 1e6}),
  (
    "gemma2",
    _GEMMA2,
    {
      "max_position_embeddings": 8192,
      "sliding_window": 4096,
      "attn_logit_softcapping": 50.0,
      "final_logit_softcapping": 30.0,
    },
  ),
  (
    "gemma3_text",
    _GEMMA3,
    {"max_position_embeddings": 32768, "sliding_window": 512},
  ),
)
_ROPE = {
  "rope_type": "llama3",
  "factor": 8.0,
  "low_freq_factor": 1.0,
  "high_freq_factor": 4.0,
  "original_max_position_embeddings": 8192,
}


def find(name: str | None) -> ModelConfig | None:
  """Returns the sizes of a model by its name on Hugging Face; None: not known here."""
  last = (name or "").rstrip("/").rsplit("/", 1)[-1].lower()
  for model_type, rows, shared in _FAMILIES:
    for known, row in rows.items():
      if _ENDINGS.sub("", last) == _ENDINGS.sub("", known):
        more = {"rope_scaling": _ROPE} if rows is _LLAMA else {}
        return hf_config.from_hf(_keys(model_type, row) | shared | more, str(name))
  return None


def names() -> list[str]:
  """Returns the models that are known."""
  return [name for _, rows, _ in _FAMILIES for name in rows]


def _keys(model_type: str, row: _Row) -> dict[str, Any]:
  (num_layers, embed_dim, mlp_dim, num_heads, num_kv_heads, head_dim), vocab, tied = row
  return {
    "model_type": model_type,
    "num_hidden_layers": num_layers,
    "hidden_size": embed_dim,
    "intermediate_size": mlp_dim,
    "num_attention_heads": num_heads,
    "num_key_value_heads": num_kv_heads,
    "head_dim": head_dim,
    "vocab_size": vocab,
    "tie_word_embeddings": tied,
    "rms_norm_eps": 1e-5 if model_type in ("llama", "mistral") else 1e-6,
  }
