"""GGUF files of the llama architecture -> Hugging Face directory, without torch.

Quantised tensors are dequantised in NumPy by the `gguf` package, one at a time, and
written in bfloat16 (or another dtype). llama.cpp stores the rows of q and k so that the
two halves of a rotary pair are neighbours; that permutation is undone.
"""

import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from msm_jax import records, tokenizer
from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config
from msm_jax.hf import directory as hf_directory
from msm_jax.hf import names, tensor_files
from msm_jax.models.config import ModelConfig, RopeScaling

_TENSORS = {  # ours of the table of names, by llama.cpp's name
  "token_embd": "model.embed_tokens",
  "output_norm": "model.norm",
  "output": "lm_head",
  "attn_norm": "input_layernorm",
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "ffn_norm": "post_attention_layernorm",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
}
_READ_KEYS = {
  "block_count",
  "context_length",
  "embedding_length",
  "feed_forward_length",
  "attention.head_count",
  "attention.head_count_kv",
  "attention.key_length",
  "attention.value_length",
  "attention.layer_norm_rms_epsilon",
  "rope.freq_base",
  "rope.dimension_count",
  "rope.scaling.type",
  "rope.scaling.factor",
  "rope.scaling.original_context_length",
  "vocab_size",
}
_DIGITS = {"type": "Digits", "individual_digits": True}
_BYTE_LEVEL = {
  "type": "ByteLevel",
  "add_prefix_space": False,
  "trim_offsets": True,
  "use_regex": True,
}
# How text is cut before the merges, by `tokenizer.ggml.pre`.
_PRE_TOKENIZERS = {
  "gpt-2": _BYTE_LEVEL,
  "smollm": {"type": "Sequence", "pretokenizers": [_DIGITS, _BYTE_LEVEL]},
}
_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4  # `tokenizer.ggml.token_type`


def convert(
  gguf_file: str | os.PathLike[str],
  out: str | os.PathLike[str],
  *,
  dtype: str = "bfloat16",
  lineage: Mapping[str, Any] | None = None,
) -> ModelConfig:
  """Writes the model and the tokenizer of a GGUF file as a Hugging Face directory.

  Args:
    gguf_file: of the llama architecture with a byte-level BPE tokenizer.
    out: a new directory; it appears complete or not at all.
    dtype: of the written weights.
    lineage: for the model card; license and languages of the file are added.

  Raises:
    UserError: the `gguf` package is missing, or the file holds what is not supported.
  """
  model = _File(pathlib.Path(gguf_file))
  cfg = model.config()
  found = names.tensors(cfg)
  sources = model.sources(found)
  ids = model.token_ids()

  def read(name: str) -> np.ndarray:
    return model.tensor(sources[name], name, cfg)

  shapes = {tensor.name: tensor.shape for tensor in found}
  with hf_directory.written_whole(out) as new:
    tensor_files.write_files(new, shapes, tensor_files.dtype_of(dtype), read)
    config = {**hf_config.to_hf(cfg, dtype), **ids}
    records.write_json(new / hf_config.CONFIG_FILE, config)
    hf_directory.write_generation_config(new, ids, None)
    records.write_json(new / tokenizer.JSON_FILE, model.tokenizer_json())
    records.write_json(new / tokenizer.CONFIG_FILE, model.tokenizer_config(cfg))
    hf_directory.mirror_template(new)
    card = {"name": pathlib.Path(out).name, **model.lineage(), **(lineage or {})}
    hf_directory.write_card(new, card, {"library_name": "transformers"})
  return cfg


class _File:
  """A GGUF file, its fields checked as they are asked for."""

  def __init__(self, path: pathlib.Path):
    try:
      import gguf
    except ImportError:
      raise UserError(
        f"{path}: reading GGUF needs the package gguf: pip install gguf"
      ) from None
    self.path, self.gguf = path, gguf
    try:
      self.reader = gguf.GGUFReader(path)
    except (OSError, ValueError, KeyError, IndexError) as error:
      raise UserError(f"{path} is no whole GGUF file ({error})") from None
    self.tensors = {tensor.name: tensor for tensor in self.reader.tensors}
    architecture = self.field("general.architecture")
    if architecture != "llama":
      raise self.error("general.architecture", architecture, "supported is 'llama'")

  def error(self, field: str, value: Any, way_out: str) -> UserError:
    return UserError(f"{self.path}: field {field} is {value!r}: {way_out}")

  def field(self, name: str, default: Any = None) -> Any:
    field = self.reader.get_field(name)
    return default if field is None else field.contents()

  def needed(self, name: str) -> Any:
    value = self.field(name)
    if value is None:
      raise self.error(name, None, "it is missing; name a complete GGUF file")
    return value

  def config(self) -> ModelConfig:
    """Returns the sizes; a key that we do not know is refused."""
    for name in self.reader.fields:
      key = name.removeprefix("llama.")
      if name.startswith("llama.") and key not in _READ_KEYS and self.field(name):
        raise self.error(name, self.field(name), "it is not supported")
    num_heads = self.needed("llama.attention.head_count")
    embed_dim = self.needed("llama.embedding_length")
    head_dim = self.field("llama.attention.key_length", embed_dim // num_heads)
    for name in ("llama.attention.value_length", "llama.rope.dimension_count"):
      if self.field(name, head_dim) != head_dim:
        raise self.error(name, self.field(name), f"supported is head_dim, {head_dim}")
    return ModelConfig(
      vocab_size=len(self.needed("tokenizer.ggml.tokens")),
      embed_dim=embed_dim,
      mlp_dim=self.needed("llama.feed_forward_length"),
      num_layers=self.needed("llama.block_count"),
      num_heads=num_heads,
      num_kv_heads=self.field("llama.attention.head_count_kv", num_heads),
      head_dim=head_dim,
      max_seq_len=self.needed("llama.context_length"),
      rope_theta=_shortest(self.field("llama.rope.freq_base", 10000.0)),
      rope_scaling=self._rope_scaling(),
      norm_eps=_shortest(self.needed("llama.attention.layer_norm_rms_epsilon")),
      tie_embeddings="output.weight" not in self.tensors,
    )

  def _rope_scaling(self) -> RopeScaling | None:
    kind = self.field("llama.rope.scaling.type", "none")
    if kind == "none":
      return None
    if kind != "linear":
      raise self.error("llama.rope.scaling.type", kind, "supported are none and linear")
    factor = _shortest(self.needed("llama.rope.scaling.factor"))
    return RopeScaling(rope_type="linear", factor=factor)

  def sources(self, found: Iterable[names.Tensor]) -> dict[str, str]:
    """Returns the file's tensor for each of ours; each is used exactly once."""
    theirs = {_hf_name(name): name for name in self.tensors}
    wanted = {tensor.name for tensor in found}
    extra, missing = sorted(theirs.keys() - wanted), sorted(wanted - theirs.keys())
    if extra or missing:
      name = theirs[extra[0]] if extra else missing[0]
      what = "is not supported" if extra else "is missing"
      raise UserError(f"{self.path}: tensor {name} {what}")
    for tensor in found:
      shape = tuple(int(n) for n in reversed(self.tensors[theirs[tensor.name]].shape))
      if shape != tensor.shape:
        raise UserError(
          f"{self.path}: tensor {theirs[tensor.name]} has shape {list(shape)} where "
          f"{list(tensor.shape)} is expected"
        )
    return theirs

  def tensor(self, source: str, name: str, cfg: ModelConfig) -> np.ndarray:
    """Returns a tensor in float32, q and k with their rows in Hugging Face's order."""
    tensor = self.tensors[source]
    try:
      values = self.gguf.dequantize(tensor.data, tensor.tensor_type)
    except NotImplementedError:
      kind = tensor.tensor_type.name
      raise self.error(source, kind, "this quantisation cannot be read") from None
    if name.endswith("q_proj.weight"):
      return _unpermuted(values, cfg.num_heads)
    if name.endswith("k_proj.weight"):
      return _unpermuted(values, cfg.num_kv_heads)
    return values

  def token_ids(self) -> dict[str, int | None]:
    key = "tokenizer.ggml.{}_token_id"
    eos = int(self.needed(key.format("eos")))
    bos = self.field(key.format("bos"))
    return {
      "bos_token_id": None if bos is None else int(bos),
      "eos_token_id": eos,
      "pad_token_id": int(self.field(key.format("padding"), eos)),
    }

  def tokenizer_json(self) -> dict[str, Any]:
    """Returns the byte-level BPE tokenizer in the format of the tokenizers library."""
    kind, pre = self.field("tokenizer.ggml.model"), self.field("tokenizer.ggml.pre")
    if kind != "gpt2":
      raise self.error(
        "tokenizer.ggml.model", kind, "supported is gpt2, byte-level BPE"
      )
    if pre not in _PRE_TOKENIZERS:
      known = ", ".join(_PRE_TOKENIZERS)
      raise self.error("tokenizer.ggml.pre", pre, f"supported are {known}")
    tokens = self.needed("tokenizer.ggml.tokens")
    merges = self.needed("tokenizer.ggml.merges")
    return {
      "version": "1.0",
      "truncation": None,
      "padding": None,
      "added_tokens": self._added_tokens(tokens),
      "normalizer": None,
      "pre_tokenizer": _PRE_TOKENIZERS[pre],
      "post_processor": None,
      "decoder": {**_BYTE_LEVEL, "add_prefix_space": True},
      "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {token: index for index, token in enumerate(tokens)},
        "merges": merges,
      },
    }

  def _added_tokens(self, tokens: list[str]) -> list[dict[str, Any]]:
    kinds = self.field("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return [
      {"id": index, "content": token, **flags, "special": kind == _CONTROL}
      for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
      if kind in (_CONTROL, _USER_DEFINED)
    ]

  def tokenizer_config(self, cfg: ModelConfig) -> dict[str, Any]:
    tokens = self.needed("tokenizer.ggml.tokens")
    config: dict[str, Any] = {
      "tokenizer_class": "PreTrainedTokenizerFast",  # transformers 4 and 5 know it
      "model_max_length": cfg.max_seq_len,
      "clean_up_tokenization_spaces": False,
      "add_prefix_space": False,
    }
    if self.field("tokenizer.ggml.add_bos_token") is not None:
      config["add_bos_token"] = bool(self.field("tokenizer.ggml.add_bos_token"))
    kinds = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}
    for ours, theirs in kinds.items():
      index = self.field(f"tokenizer.ggml.{theirs}_token_id")
      if index is not None:
        config[f"{ours}_token"] = tokens[index]
    template = self.field("tokenizer.chat_template")
    return config if template is None else {**config, "chat_template": template}

  def lineage(self) -> dict[str, Any]:
    kept = {
      "converted_from": self.path.name,
      "base_model": self.field("general.name"),
      "license": self.field("general.license"),
      "language": self.field("general.languages"),
    }
    return {key: value for key, value in kept.items() if value is not None}


def _hf_name(name: str) -> str:
  """Returns Hugging Face's name for a tensor, or the name itself if there is none."""
  match = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.weight", name)
  if match is None or match[2] not in _TENSORS:
    return name
  prefix = "" if match[1] is None else f"model.layers.{match[1]}."
  return f"{prefix}{_TENSORS[match[2]]}.weight"


def _unpermuted(weight: np.ndarray, num_heads: int) -> np.ndarray:
  """Returns [N H, D] rows as two halves per head instead of neighbouring pairs."""
  rows, columns = weight.shape
  pairs = weight.reshape(num_heads, rows // num_heads // 2, 2, columns)
  return pairs.swapaxes(1, 2).reshape(rows, columns)


def _shortest(value: float) -> float:
  """Returns the float64 with the shortest text of a float32: 1e-05, not 9.99...e-06."""
  return float(str(np.float32(value)))
