"""`config.json` of Hugging Face to ModelConfig and back.

transformers 5 renamed keys: `rope_theta` and `rope_scaling` became `rope_parameters`,
`torch_dtype` became `dtype`. Both generations are read, as transformers 5 reads them,
and both are written: transformers 4 silently falls back to theta 10000 otherwise.

Every key of a file is either represented in ModelConfig, known not to change the
forward pass, or refused by name.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from msm_jax import progress, records
from msm_jax.errors import UserError
from msm_jax.hf import names
from msm_jax.models.config import ModelConfig, RopeScaling

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"
TOKEN_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")

_ACTIVATIONS = {
  "silu": "silu",
  "swish": "silu",
  "relu": "relu",
  "gelu_pytorch_tanh": "gelu_tanh",
  "gelu_new": "gelu_tanh",
}
_HF_ACTIVATIONS = {"silu": "silu", "relu": "relu", "gelu_tanh": "gelu_pytorch_tanh"}
# Read into ModelConfig.
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
  "hidden_act",
  "max_position_embeddings",
  "original_max_position_embeddings",
  "rms_norm_eps",
  "rope_theta",
  "rope_scaling",
  "rope_parameters",
  "tie_word_embeddings",
}
# These change the computation; we compute what the given values mean and nothing else.
_FIXED: dict[str, tuple[Any, ...]] = {
  "attention_bias": (False, None),
  "mlp_bias": (False, None),
  "pretraining_tp": (1, None),
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
}
_ROPE_KEYS = {
  "default": set(),
  "linear": {"factor"},
  "llama3": {
    "factor",
    "low_freq_factor",
    "high_freq_factor",
    "original_max_position_embeddings",
  },
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
  reader = _Reader(config, source)
  reader.check_family()
  reader.check_keys()
  num_heads = reader.size("num_attention_heads")
  embed_dim = reader.size("hidden_size")
  rope_theta, rope_scaling = reader.rope()
  try:
    return ModelConfig(
      vocab_size=reader.size("vocab_size"),
      embed_dim=embed_dim,
      mlp_dim=reader.size("intermediate_size"),
      num_layers=reader.size("num_hidden_layers"),
      num_heads=num_heads,
      num_kv_heads=reader.size("num_key_value_heads", num_heads),
      head_dim=reader.head_dim(embed_dim, num_heads),
      max_seq_len=reader.size("max_position_embeddings", 2048),
      rope_theta=rope_theta,
      rope_scaling=rope_scaling,
      norm_eps=reader.number("rms_norm_eps", 1e-6),
      tie_embeddings=reader.flag("tie_word_embeddings", False),
      activation=reader.choice("hidden_act", _ACTIVATIONS, "silu"),
    )
  except UserError as error:
    raise UserError(f"{source}: {str(error).removeprefix(source + ': ')}") from None


def to_hf(cfg: ModelConfig, dtype: str) -> dict[str, Any]:
  """Returns config.json with the keys of transformers 4 and 5.

  Args:
    cfg: the model; adapters and the compute dtype are no part of config.json.
    dtype: of the weights beside it.
  """
  family = names.family(cfg)
  model_type = next(key for key, value in names.FAMILIES.items() if value is family)
  scaling = _scaling_to_hf(cfg.rope_scaling)
  rope_parameters = {"rope_type": "default", **scaling, "rope_theta": cfg.rope_theta}
  return {
    "architectures": [family.architecture],
    "model_type": model_type,
    "vocab_size": cfg.vocab_size,
    "hidden_size": cfg.embed_dim,
    "intermediate_size": cfg.mlp_dim,
    "num_hidden_layers": cfg.num_layers,
    "num_attention_heads": cfg.num_heads,
    "num_key_value_heads": cfg.num_kv_heads,
    "head_dim": cfg.head_dim,
    "hidden_act": _HF_ACTIVATIONS[cfg.activation],
    "max_position_embeddings": cfg.max_seq_len,
    "rms_norm_eps": cfg.norm_eps,
    "rope_theta": cfg.rope_theta,
    "rope_scaling": scaling or None,
    "rope_parameters": rope_parameters,
    "tie_word_embeddings": cfg.tie_embeddings,
    "attention_bias": False,
    "attention_dropout": 0.0,
    "mlp_bias": False,
    "pretraining_tp": 1,
    "initializer_range": 0.02,
    "use_cache": True,
    "torch_dtype": dtype,
    "dtype": dtype,
  }


def _scaling_to_hf(scaling: RopeScaling | None) -> dict[str, Any]:
  if scaling is None:
    return {}
  keys = sorted(_ROPE_KEYS[scaling.rope_type])
  values = {key: getattr(scaling, key) for key in keys}
  return {"rope_type": scaling.rope_type, **values}


class _Reader:
  """Reads typed values of one config.json; errors name file, field, value, way out."""

  def __init__(self, config: Mapping[str, Any], source: str):
    self.config, self.source = config, source

  def error(self, field: str, value: Any, way_out: str) -> UserError:
    return UserError(f"{self.source}: field {field} is {value!r}: {way_out}")

  def check_family(self) -> None:
    model_type = self.config.get("model_type")
    known = ", ".join(names.FAMILIES)
    if not isinstance(model_type, str) or model_type not in names.FAMILIES:
      raise self.error("model_type", model_type, f"supported model types are {known}")
    wanted = names.FAMILIES[model_type].architecture
    architectures = self.config.get("architectures")
    if architectures not in (None, [], [wanted]):
      raise self.error("architectures", architectures, f"supported is ['{wanted}']")

  def check_keys(self) -> None:
    for field, allowed in _FIXED.items():
      value = self.config.get(field)
      if value not in allowed:
        only = json.dumps(allowed[0])
        raise self.error(
          field, value, f"it changes the computation, supported is only {only}"
        )
    for field, value in self.config.items():
      known = field in _REPRESENTED or field in _FIXED or field in _HARMLESS
      if not known and value not in (None, False, {}, []):
        raise self.error(
          field,
          value,
          "unknown, it may change the computation; if you know that it does not, "
          "delete it from the file",
        )

  def size(self, field: str, default: int | None = None) -> int:
    value = self.config.get(field)
    return self.whole(field, default if value is None else value)

  def whole(self, field: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise self.error(field, value, "it must be a whole number above 0")
    return value

  def head_dim(self, embed_dim: int, num_heads: int) -> int:
    if self.config.get("head_dim") is None and embed_dim % num_heads:
      raise self.error(
        "hidden_size", embed_dim, f"{num_heads} heads do not divide it; give head_dim"
      )
    return self.size("head_dim", embed_dim // num_heads)

  def number(
    self, field: str, default: float | None, where: Mapping | None = None
  ) -> float:
    value = (self.config if where is None else where).get(field)
    value = default if value is None else value
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not 0 < value < float("inf"):
      raise self.error(field, value, "it must be a number above 0")
    return float(value)

  def flag(self, field: str, default: bool) -> bool:
    value = self.config.get(field)
    value = default if value is None else value
    if not isinstance(value, bool):
      raise self.error(field, value, "it must be true or false")
    return value

  def choice(self, field: str, choices: Mapping[str, str], default: str) -> str:
    value = self.config.get(field, default)
    if not isinstance(value, str) or value not in choices:
      raise self.error(field, value, f"supported are {', '.join(choices)}")
    return choices[value]

  def rope(self) -> tuple[float, RopeScaling | None]:
    """Returns (theta, scaling) as transformers 5 understands the file.

    A non-empty `rope_scaling` replaces `rope_parameters`; theta is taken from the
    chosen dict, else from `rope_theta`, else it is 10000.
    """
    field = "rope_scaling" if self.config.get("rope_scaling") else "rope_parameters"
    chosen = self.config.get(field) or {}
    if not isinstance(chosen, dict):
      raise self.error(field, chosen, "it must be an object or null")
    rope_type = chosen.get("rope_type", chosen.get("type", "default"))
    if not isinstance(rope_type, str) or rope_type not in _ROPE_KEYS:
      raise self.error(
        f"{field}.rope_type", rope_type, f"supported are {', '.join(_ROPE_KEYS)}"
      )
    self._check_rope_keys(field, chosen, rope_type)
    theta = self.number("rope_theta", self.number("rope_theta", 10000.0), chosen)
    scaling = self._scaling(chosen, rope_type)
    self._tell_conflict(field, theta, scaling)
    return theta, scaling

  def _check_rope_keys(self, field: str, chosen: dict, rope_type: str) -> None:
    known = _ROPE_KEYS[rope_type] | {"rope_type", "type", "rope_theta"}
    for key, value in chosen.items():
      harmless = key in _ROPE_KEYS["llama3"] or (
        key == "partial_rotary_factor" and value == 1
      )
      if key not in known and not harmless and value is not None:
        raise self.error(
          f"{field}.{key}", value, f"rope type {rope_type!r} is not supported with it"
        )

  def _scaling(self, chosen: dict, rope_type: str) -> RopeScaling | None:
    if rope_type == "default":
      return None
    factor = self.number("factor", None, chosen)
    if rope_type == "linear":
      return RopeScaling(rope_type="linear", factor=factor)
    original = chosen.get("original_max_position_embeddings")
    if original is None:
      original = self.config.get("original_max_position_embeddings")
    return RopeScaling(
      rope_type="llama3",
      factor=factor,
      low_freq_factor=self.number("low_freq_factor", None, chosen),
      high_freq_factor=self.number("high_freq_factor", None, chosen),
      original_max_position_embeddings=self.whole(
        "original_max_position_embeddings", original
      ),
    )

  def _tell_conflict(self, field: str, theta: float, scaling) -> None:
    """Says on stderr which of two disagreeing keys is followed."""
    other = self.config.get("rope_parameters") or {}
    chosen_type = scaling.rope_type if scaling else "default"
    if field == "rope_parameters":
      top = self.config.get("rope_theta")
      if top is not None and top != theta:
        progress.say(
          f"{self.source}: rope_theta {top} and rope_parameters.rope_theta {theta} "
          "disagree; the second is used, as transformers 5 does"
        )
    elif other and (
      other.get("rope_theta", theta) != theta
      or other.get("rope_type", "default") != chosen_type
      or (scaling and other.get("factor") != scaling.factor)
    ):
      progress.say(
        f"{self.source}: rope_scaling and rope_parameters disagree; rope_scaling with "
        f"theta {theta} is used, as transformers 5 does"
      )
