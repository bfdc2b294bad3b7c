"""(ModelConfig, parameters) -> Hugging Face model directory.

Weights are written tensor by tensor: adapters are merged into one layer's kernel at a
time, in float32, and cast once. Nothing is written that was not checked against the
table of names, so the key set is complete by construction.
"""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax import records, tokenizer
from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config
from msm_jax.hf import directory as hf_directory
from msm_jax.hf import names, tensor_files
from msm_jax.models import lora
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params


def export(
  out: str | os.PathLike[str],
  cfg: ModelConfig,
  params: Params,
  *,
  tokenizer_dir: str | os.PathLike[str],
  base_dir: str | os.PathLike[str] | None = None,
  stop_ids: Sequence[int] = (),
  dtype: str = "bfloat16",
  lineage: Mapping[str, Any] | None = None,
  max_shard_bytes: int = tensor_files.MAX_SHARD_BYTES,
) -> None:
  """Writes a model with its adapters, if any, merged.

  Args:
    out: a new directory; it appears complete or not at all.
    cfg: the model; `cfg.lora` set exactly when `params` hold adapters.
    params: nested dict of stacked leaves, as NumPy or JAX arrays.
    tokenizer_dir: whose files are copied byte for byte.
    base_dir: the Hugging Face directory that training began from, if any: its sampling
      defaults and stop ids are carried over.
    stop_ids: further ids that end an answer (the chat template's stop token).
    dtype: of the written weights.
    lineage: for the model card (base_model, spec, corpus, stages, steps, license).
    max_shard_bytes: more than this goes into several files with an index.

  Raises:
    UserError: `out` exists, a tokenizer larger than the model, NaN in the weights.
  """
  tok = _fitting_tokenizer(tokenizer_dir, cfg)
  found = names.tensors(cfg)
  check_leaves(params, found, cfg)
  shapes = {tensor.name: tensor.shape for tensor in found}
  read = _Merged(cfg, params, found)
  ids = hf_directory.token_ids(tok, base_dir, stop_ids)
  with hf_directory.written_whole(out) as new:
    cast = tensor_files.dtype_of(dtype)
    tensor_files.write_files(new, shapes, cast, read, max_shard_bytes)
    config = {**hf_config.to_hf(cfg, dtype), **ids}
    records.write_json(new / hf_config.CONFIG_FILE, config)
    hf_directory.write_generation_config(new, ids, base_dir)
    hf_directory.copy_tokenizer(tokenizer_dir, new)
    front = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if (lineage or {}).get("base_model"):
      front["base_model_relation"] = "finetune"
    name = {"name": pathlib.Path(out).name}
    hf_directory.write_card(new, {**name, **(lineage or {})}, front)


class _Merged:
  """Returns their tensor by its name, adapters merged, in float32 where merged."""

  def __init__(self, cfg: ModelConfig, params: Params, found: Sequence[names.Tensor]):
    self.leaves = dict(names.walk(params))
    self.tensors = {tensor.name: tensor for tensor in found}
    self.scale = cfg.lora.alpha / cfg.lora.rank if cfg.lora else 0.0

  def __call__(self, name: str) -> np.ndarray:
    tensor = self.tensors[name]
    ours = slice_of(self.leaves[tensor.path], tensor.layer)
    if (*tensor.path[:-1], "lora_a") in self.leaves:
      ours = ours.astype(np.float32) + self._delta(tensor).reshape(ours.shape)
    return tensor.from_leaf(ours)

  def _delta(self, tensor: names.Tensor) -> np.ndarray:
    a, b = (
      slice_of(self.leaves[(*tensor.path[:-1], leaf)], tensor.layer).astype(np.float32)
      for leaf in lora.LEAVES
    )
    rank = a.shape[-1]
    return np.float32(self.scale) * (a.reshape(-1, rank) @ b.reshape(rank, -1))


def slice_of(leaf: Any, layer: int | None) -> np.ndarray:
  """Returns one layer of a stacked leaf (or the whole leaf) on the host."""
  return np.asarray(leaf if layer is None else leaf[layer])


def check_leaves(
  params: Params, found: Sequence[names.Tensor], cfg: ModelConfig
) -> None:
  """Asserts that `params` are the model's leaves, no more and no fewer."""
  given = {path: tuple(leaf.shape) for path, leaf in names.walk(params)}
  wanted = names.leaf_shapes(cfg)
  if cfg.lora is not None:
    adapters = names.adapter_tensors(cfg, cfg.lora.rank, cfg.lora.targets)
    for path, parts in names.by_leaf(adapters).items():
      wanted[path] = (len(parts), *parts[0].leaf_shape)
  different = sorted(
    ".".join(path)
    for path in given.keys() | wanted.keys()
    if given.get(path) != wanted.get(path)
  )
  assert not different, f"parameters do not fit the model: {different}"
  assert {tensor.path for tensor in found} <= wanted.keys()


def _fitting_tokenizer(
  path: str | os.PathLike[str], cfg: ModelConfig
) -> tokenizer.Tokenizer:
  tok = tokenizer.load(path)
  if tok.vocab_size > cfg.vocab_size:
    raise UserError(
      f"{path}: the tokenizer has {tok.vocab_size} entries but the model only "
      f"{cfg.vocab_size}: name the tokenizer that it was trained with"
    )
  return tok
