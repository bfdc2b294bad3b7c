"""(ModelConfig, parameters) -> Hugging Face model directory.

Weights are written tensor by tensor: adapters are merged into one layer's kernel at a
time, in float32, and cast once. Nothing is written that was not checked against the
table of names, so the key set is complete by construction; what was written is opened
and checked again before it gets its name.

With several processes all of them call `export`: a layer is gathered by all, written by
process 0, and the bytes are those that one process writes.
"""

import math
import os
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax import distributed, records, tokenizer
from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config
from msm_jax.hf import directory as hf_directory
from msm_jax.hf import (
  gathering,
  names,
  partial,
  tensor_blocks,
  tensor_files,
  tensor_writer,
)
from msm_jax.hf import load as hf_load
from msm_jax.models import lora
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params

_FORMAT = 1  # of the files; another number makes interrupted exports begin anew
slice_of = gathering.layer_of


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
  identity: Mapping[str, Any] | None = None,
) -> None:
  """Writes a model with its adapters, if any, merged.

  Args:
    out: a new directory; it appears complete or not at all.
    cfg: the model; `cfg.lora` set exactly when `params` hold adapters.
    params: nested dict of stacked leaves, as NumPy or JAX arrays, sharded as they are.
    tokenizer_dir: whose files are copied byte for byte.
    base_dir: the Hugging Face directory that training began from, if any: its sampling
      defaults, stop ids, licence and notices are carried over.
    stop_ids: further ids that end an answer (the chat template's stop token).
    dtype: of the written weights.
    lineage: for the model card (base_model, spec, corpus, stages, steps, license).
    max_shard_bytes: more than this goes into several files with an index.
    identity: JSON values that tell these weights from all others (run, step). An
      export that was interrupted then goes on with the files that it has finished;
      without, it begins anew.

  Raises:
    UserError: `out` exists, a tokenizer larger than the model, NaN in the weights, no
      room on the disk.
  """
  with distributed.together():
    tok = _fitting_tokenizer(tokenizer_dir, cfg)
    found = names.tensors(cfg)
    check_leaves(params, found, cfg)
    shapes = {tensor.name: tensor.shape for tensor in found}
    cast = tensor_files.dtype_of(dtype)
    ids = hf_directory.token_ids(tok, base_dir, stop_ids)
    config = {**hf_config.to_hf(cfg, dtype), **ids}
  if identity is not None:
    kind = {"format": _FORMAT, "config": config, "max_shard_bytes": max_shard_bytes}
    identity = {"weights": dict(identity), "lora": _scale(cfg), **kind}
  with partial.resumed(out, identity) as (new, journal):
    _check_room(new, shapes, cast)
    read = _Merged(cfg, params, found)
    tensor_files.write_files(new, shapes, cast, read, max_shard_bytes, journal)
    records.write_json(new / hf_config.CONFIG_FILE, config)
    hf_directory.write_generation_config(new, ids, base_dir)
    hf_directory.copy_tokenizer(tokenizer_dir, new)
    hf_directory.copy_notices(base_dir, new)
    about = {"name": pathlib.Path(out).name, **(lineage or {})}
    front = {"library_name": "transformers", "pipeline_tag": "text-generation"}
    if about.get("base_model"):
      front["base_model_relation"] = "finetune"
    hf_directory.write_card(new, hf_directory.with_license(about, base_dir), front)
    if distributed.is_first():
      _check_written(new, found, cast)


def _check_room(directory: pathlib.Path, shapes: Mapping, dtype: np.dtype) -> None:
  """Refuses before anything is computed what the disk cannot hold."""
  if not distributed.is_first():
    return
  needed = sum(math.prod(shape) for shape in shapes.values()) * dtype.itemsize
  finished = sum(path.stat().st_size for path in directory.iterdir())
  free = shutil.disk_usage(directory).free
  if needed - finished > free:
    raise UserError(
      f"{directory.parent.parent} has {free / 1e9:.1f} GB free, the export needs "
      f"{(needed - finished) / 1e9:.1f} GB: name another place, or make room"
    )


def _check_written(
  directory: pathlib.Path, found: Sequence[names.Tensor], dtype: np.dtype
) -> None:
  """Asserts that what was written is the model: config, key set, shapes, dtype."""
  cfg = hf_config.read(directory)
  assert names.tensors(cfg) == list(found), "config.json describes another model"
  files = tensor_files.TensorFiles(directory)
  hf_load.check_names(files, cfg, found)
  hf_load.check_shapes(files, found)
  assert {files.dtype(tensor.name) for tensor in found} == {dtype}


def _scale(cfg: ModelConfig) -> float | None:
  return cfg.lora.alpha / cfg.lora.rank if cfg.lora else None


class _Merged:
  """Returns their tensor by its name, adapters merged, in float32 where merged.

  Processes other than 0 take part in the gathering and get None.
  """

  def __init__(self, cfg: ModelConfig, params: Params, found: Sequence[names.Tensor]):
    self.leaves = dict(names.walk(params))
    self.tensors = {tensor.name: tensor for tensor in found}
    self.scale = _scale(cfg)

  def __call__(self, name: str) -> np.ndarray | tensor_writer.Pieces | None:
    tensor = self.tensors[name]
    if tensor.path[-1] == "kernel" and (*tensor.path[:-1], "lora_a") in self.leaves:
      paths = [tensor.path, *((*tensor.path[:-1], leaf) for leaf in lora.LEAVES)]
      layers = [slice_of(self.leaves[path], tensor.layer) for path in paths]
      return self._with_adapter(tensor, *layers) if distributed.is_first() else None
    pieces = gathering.pieces_of(self.leaves[tensor.path], tensor.layer)
    return _as_theirs(tensor, pieces) if distributed.is_first() else None

  def _with_adapter(self, tensor: names.Tensor, ours, a, b) -> np.ndarray:
    delta = self._delta(a, b).reshape(ours.shape)
    return tensor.from_leaf(ours.astype(np.float32) + delta)

  def _delta(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    rank = a.shape[-1]
    a, b = (values.astype(np.float32) for values in (a, b))
    return np.float32(self.scale) * (a.reshape(-1, rank) @ b.reshape(rank, -1))


def _as_theirs(
  tensor: names.Tensor, pieces: Sequence[gathering.Piece]
) -> np.ndarray | tensor_writer.Pieces:
  """Returns pieces of our slice as pieces of their tensor, or put together."""
  places = [tensor_blocks.place_of(tensor, index) for index, _ in pieces]
  flattened = len(tensor.shape) != len(tensor.leaf_shape) and not tensor.num_in_dims
  if flattened or None in places:  # small (a bias), or divided where they are one
    return tensor.from_leaf(gathering.joined(pieces))
  found = [
    (rows[0], columns[0], tensor_blocks.as_theirs(tensor, ours))
    for (rows, columns), (_, ours) in zip(places, pieces, strict=True)
  ]
  return tensor_writer.Pieces(tensor.shape, found)


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
