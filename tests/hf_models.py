"""Small random models, tokenizers and Hugging Face directories for the tests."""

import json
import pathlib

import ml_dtypes
import numpy as np

from msm_jax import records, tokenizer
from msm_jax.hf import config as hf_config
from msm_jax.hf import names, tensor_files
from msm_jax.models.config import LoraConfig, ModelConfig

CHATML = (
  "{% for m in messages %}<|im_start|>{{ m['role'] }} {{ m['content'] }} </s> "
  "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant {% endif %}"
)


def config(**changes) -> ModelConfig:
  """Returns a model of two layers with grouped heads and its own head_dim."""
  sizes = {
    "vocab_size": 61,
    "embed_dim": 12,
    "mlp_dim": 20,
    "num_layers": 2,
    "num_heads": 6,
    "num_kv_heads": 2,
    "head_dim": 4,
    "max_seq_len": 64,
  }
  return ModelConfig(**{**sizes, **changes})


def params(cfg: ModelConfig, seed: int = 0, dtype="float32") -> dict:
  """Returns random leaves, adapters (not zero) included when `cfg.lora` is set."""
  rng = np.random.default_rng(seed)
  shapes = dict(names.leaf_shapes(cfg))
  if cfg.lora is not None:
    found = names.adapter_tensors(cfg, cfg.lora.rank, cfg.lora.targets)
    for path, parts in names.by_leaf(found).items():
      shapes[path] = (len(parts), *parts[0].leaf_shape)
  leaves = {}
  for path, shape in shapes.items():
    values = rng.normal(size=shape) * 0.2 + (path[-1] == "scale")
    leaves[path] = values.astype(ml_dtypes.bfloat16).astype(dtype)
  return names.nest(leaves)


def lora(rank: int = 3, alpha: float = 6.0, targets=None) -> LoraConfig:
  """Returns an adapter config on all targets or some."""
  if targets is None:
    return LoraConfig(rank=rank, alpha=alpha)
  return LoraConfig(rank=rank, alpha=alpha, targets=targets)


def tokenizer_dir(directory: pathlib.Path) -> pathlib.Path:
  """Returns a directory with a small tokenizer and a chat template."""
  words = ["the cheese is ripe and cheap", "a brie or a gouda ?", "<|im_start|> user"]
  tokenizer.train_sentencepiece(
    words, directory, model_type="word", vocab_size=40, chat_template=CHATML
  )
  return directory


def tensors(cfg: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
  """Returns random bfloat16 tensors under Hugging Face's names."""
  rng = np.random.default_rng(seed)
  return {
    tensor.name: rng.normal(size=tensor.shape).astype(ml_dtypes.bfloat16)
    for tensor in names.tensors(cfg)
  }


def write(directory: pathlib.Path, cfg: ModelConfig, given: dict, **changes) -> None:
  """Writes a Hugging Face directory; `changes` replace keys of config.json."""
  directory.mkdir(parents=True, exist_ok=True)
  config = {**hf_config.to_hf(cfg, "bfloat16"), **changes}
  records.write_json(directory / "config.json", config)
  write_tensors(directory / tensor_files.SINGLE_FILE, given)


def write_tensors(path: pathlib.Path, given: dict[str, np.ndarray]) -> None:
  """Writes tensors of one dtype, NaN included, without any check."""
  kinds = {"bfloat16": "BF16", "float32": "F32"}
  header, blobs, offset = {}, [], 0
  for name, values in given.items():
    blob = np.ascontiguousarray(values).tobytes()
    header[name] = {
      "dtype": kinds[values.dtype.name],
      "shape": list(values.shape),
      "data_offsets": [offset, offset + len(blob)],
    }
    offset += len(blob)
    blobs.append(blob)
  text = json.dumps(header).encode()
  path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(blobs))
