"""`config.json` of Hugging Face to ModelConfig and back.

Every key of a file is either represented in ModelConfig, known not to change the
forward pass, or refused by name. `families.py` has what differs between model types,
`rope.py` the two generations of keys for the rotary embedding.
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.hf import families, names, rope
from msm_jax.hf.families import Family
from msm_jax.hf.fields import Fields, is_off
from msm_jax.models.config import ModelConfig

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")

_REPRESENTED = {
  "architectures",
  "model_type",
  "vocab_size",
  "hidden_size",
  "intermediate_size",
  "num_hidden_layers",
  "num_attention_heads",
  "num_key_value_heads",
  "head_dim",
  "max_position_embeddings",
  "rms_norm_eps",
  "tie_word_embeddings",
  *rope.KEYS,
  "original_max_position_embeddings",
}
# These change the computation; we compute what the given values mean and nothing else.
_FIXED: dict[str, tuple[Any, ...]] = {
  "partial_rotary_factor": (1, None),
  "attention_dropout": (0, None),
  "quantization_config": (None,),
  "rope_interleaved": (False, None),
  "is_encoder_decoder": (False, None),
  "add_cross_attention": (False, None),
}
# Bookkeeping and sampling defaults: the logits do not depend on them.
_HARMLESS = {
  "_name_or_path",
  "_model_name_or_path",
  "_attn_implementation",
  "_attn_implementation_autoset",
  "_commit_hash",
  "transformers_version",
  "torch_dtype",
  "dtype",
  "use_cache",
  "initializer_range",
  "return_dict",
  "output_attentions",
  "output_hidden_states",
  "torchscript",
  "use_bfloat16",
  "tf_legacy_loss",
  "chunk_size_feed_forward",
  "is_decoder",
  "is_llama_config",
  "id2label",
  "label2id",
  "num_labels",
  "problem_type",
  "finetuning_task",
  "task_specific_params",
  "tokenizer_class",
  "prefix",
  "unsloth_version",
  "unsloth_fixed",
  "transformers.js_config",
  "bos_token_id",
  "eos_token_id",
  "pad_token_id",
  "sep_token_id",
  "unk_token_id",
  "decoder_start_token_id",
  "max_length",
  "min_length",
  "do_sample",
  "early_stopping",
  "num_beams",
  "num_beam_groups",
  "diversity_penalty",
  "temperature",
  "top_k",
  "top_p",
  "typical_p",
  "repetition_penalty",
  "length_penalty",
  "no_repeat_ngram_size",
  "encoder_no_repeat_ngram_size",
  "bad_words_ids",
  "num_return_sequences",
  "output_scores",
  "return_dict_in_generate",
  "forced_bos_token_id",
  "forced_eos_token_id",
  "remove_invalid_values",
  "exponential_decay_length_penalty",
  "suppress_tokens",
  "begin_suppress_tokens",
  "cache_implementation",
}


def read(directory: str | os.PathLike[str]) -> ModelConfig:
  """Returns the ModelConfig of a Hugging Face model directory.

  `dtype` (of the computation) is left at its default and `lora` at None.

  Raises:
    UserError: no config.json, or one that says what we do not compute.
  """
  path = pathlib.Path(directory) / CONFIG_FILE
  if not path.is_file():
    raise UserError(f"{path} is missing: name a Hugging Face model directory")
  config = records.read_json(path)
  if not isinstance(config, dict):
    raise UserError(f"{path} is not a JSON object: name a Hugging Face model directory")
  return from_hf(config, str(path))


def from_hf(config: Mapping[str, Any], source: str = CONFIG_FILE) -> ModelConfig:
  """Returns the ModelConfig of a parsed config.json; `source` names it in errors."""
  fields = Fields(config, source)
  model_type = _model_type(fields)
  family = families.FAMILIES[model_type]
  _check_keys(fields, family)
  num_heads = fields.whole("num_attention_heads")
  embed_dim = fields.whole("hidden_size")
  own = family.read(fields)
  try:
    return ModelConfig(
      family=model_type,
      vocab_size=fields.whole("vocab_size"),
      embed_dim=embed_dim,
      mlp_dim=fields.whole("intermediate_size"),
      num_layers=fields.whole("num_hidden_layers"),
      num_heads=num_heads,
      num_kv_heads=_num_kv_heads(fields, model_type, num_heads),
      head_dim=_head_dim(fields, family, embed_dim, num_heads),
      max_seq_len=fields.whole("max_position_embeddings", family.max_seq_len),
      norm_eps=fields.number("rms_norm_eps", 1e-6),
      tie_embeddings=fields.flag("tie_word_embeddings", family.tie_embeddings),
      **own,
    )
  except UserError as error:
    raise UserError(f"{source}: {str(error).removeprefix(source + ': ')}") from None


def to_hf(cfg: ModelConfig, dtype: str) -> dict[str, Any]:
  """Returns config.json with the keys of transformers 4 and 5.

  Args:
    cfg: the model; adapters and the compute dtype are no part of config.json.
    dtype: of the weights beside it.

  Raises:
    UserError: the family's config.json cannot say what `cfg` is.
  """
  config = {
    "architectures": [names.family(cfg).architecture],
    "model_type": cfg.family,
    "vocab_size": cfg.vocab_size,
    "hidden_size": cfg.embed_dim,
    "intermediate_size": cfg.mlp_dim,
    "num_hidden_layers": cfg.num_layers,
    "num_attention_heads": cfg.num_heads,
    "num_key_value_heads": cfg.num_kv_heads,
    "head_dim": cfg.head_dim,
    "max_position_embeddings": cfg.max_seq_len,
    "rms_norm_eps": cfg.norm_eps,
    "tie_word_embeddings": cfg.tie_embeddings,
    **families.FAMILIES[cfg.family].write(cfg),
    "attention_dropout": 0.0,
    "initializer_range": 0.02,
    "use_cache": True,
    "torch_dtype": dtype,
    "dtype": dtype,
  }
  _check_says(config, cfg)
  return config


def _check_says(config: Mapping[str, Any], cfg: ModelConfig) -> None:
  """Raises unless `config` is read as the model that it was written for."""
  wanted = dataclasses.replace(cfg, dtype="float32", lora=None)
  found = from_hf(config)
  for field in dataclasses.fields(ModelConfig):
    value = getattr(wanted, field.name)
    if getattr(found, field.name) != value:
      raise UserError(
        f"model.{field.name} is {value!r}, which the config.json of a {cfg.family} "
        "model cannot say: it cannot be exported; change it, or model.family"
      )


def _model_type(fields: Fields) -> str:
  model_type = fields.get("model_type")
  if not isinstance(model_type, str) or model_type not in families.FAMILIES:
    known = ", ".join(families.FAMILIES)
    raise fields.error("model_type", model_type, f"supported model types are {known}")
  wanted = names.FAMILIES[model_type].architecture
  architectures = fields.get("architectures")
  if architectures not in (None, [], [wanted]):
    raise fields.error("architectures", architectures, f"supported is ['{wanted}']")
  return model_type


def _check_keys(fields: Fields, family: Family) -> None:
  fixed = {**_FIXED, **family.fixed}
  for field, allowed in fixed.items():
    value = fields.config.get(field)
    if value not in allowed:
      only = json.dumps(allowed[0])
      raise fields.error(
        field, value, f"it changes the computation, supported is only {only}"
      )
  known = _REPRESENTED | _HARMLESS | family.keys | set(fixed)
  for field, value in fields.config.items():
    if field not in known and not is_off(value):
      raise fields.error(
        field,
        value,
        "unknown, it may change the computation; if you know that it does not, delete "
        "it from the file",
      )


def _num_kv_heads(fields: Fields, model_type: str, num_heads: int) -> int:
  """Returns the number; null is one per head, and so is no key in a Llama's file."""
  if model_type != "llama" and "num_key_value_heads" not in fields.config:
    raise fields.error("num_key_value_heads", None, "it is missing: set it")
  return fields.whole("num_key_value_heads", num_heads)


def _head_dim(fields: Fields, family: Family, embed_dim: int, num_heads: int) -> int:
  default = family.head_dim
  if default is None and fields.get("head_dim") is None:
    if embed_dim % num_heads:
      raise fields.error(
        "hidden_size", embed_dim, f"{num_heads} heads do not divide it; give head_dim"
      )
    default = embed_dim // num_heads
  return fields.whole("head_dim", default)
