"""Hugging Face model directory -> (ModelConfig, parameters).

Tensors are read in blocks, cast and transposed on the way, straight into the sharding
of each leaf. Each process reads only the bytes of its own part; an error on one of them
is raised on all.
"""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from msm_jax import distributed
from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config
from msm_jax.hf import leaf_reader, names, tensor_files
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params

Files = tensor_files.TensorFiles | tensor_files.TensorFile
_COMPARED_BYTES = 4 << 20  # at once


def load(
  directory: str | os.PathLike[str],
  *,
  dtype: str | None = "float32",
  shardings: Params | None = None,
  hold: Callable[[names.Path, Any], Any] | None = None,
) -> tuple[ModelConfig, Params]:
  """Reads a model.

  Args:
    directory: config.json and safetensors (one file, or an index). Pickles are never
      opened.
    dtype: of the parameters; None keeps that of the files, which then must agree.
    shardings: a sharding for every leaf of `transformer.abstract_params(cfg)`, where
      `cfg = hf.config.read(directory)`; None puts all on the default device.
    hold: makes of a leaf, known by its path, what is kept, before the next is read.

  Raises:
    UserError: anything missing, extra, of another shape, NaN, damaged or unknown.
  """
  directory = pathlib.Path(directory)
  with distributed.together():
    cfg = hf_config.read(directory)
    files = tensor_files.TensorFiles(directory)
    wanted = names.tensors(cfg)
    check_names(files, cfg, wanted)
    check_shapes(files, wanted)
    given = tensor_files.dtype_of(dtype) if dtype else _common_dtype(files, wanted)
    _check_tied_head(files, cfg)
    params = fill(files, wanted, given, shardings, hold)
  return cfg, params


def fill(
  files: Files,
  wanted: Sequence[names.Tensor],
  dtype: np.dtype,
  shardings: Params | None = None,
  hold: Callable[[names.Path, Any], Any] | None = None,
) -> Params:
  """Returns the nested dict of leaves that `wanted` describes, one leaf at a time."""
  by_path = dict(names.walk(shardings)) if shardings is not None else None
  leaves: dict[names.Path, Any] = {}
  with distributed.together(), leaf_reader.thread_pool() as pool:
    for path, parts in names.by_leaf(wanted).items():
      sharding = by_path[path] if by_path is not None else None
      leaf = leaf_reader.read_leaf(files, parts, dtype, sharding, pool)
      leaf = leaf if hold is None else hold(path, leaf)
      leaves[path] = jax.block_until_ready(leaf)  # before the next takes host memory
  return names.nest(leaves)


def check_names(
  files: tensor_files.TensorFiles, cfg: ModelConfig, wanted: Sequence[names.Tensor]
) -> None:
  """Refuses missing and extra tensors by name; every tensor is used exactly once."""
  family = names.family(cfg)
  given, expected = files.names(), {tensor.name for tensor in wanted}
  missing = sorted(expected - given)
  if missing:
    hint = ""
    if missing == [family.head.name]:
      hint = f" (config.json says tie_word_embeddings {cfg.tie_embeddings})"
    raise UserError(
      f"{files.directory}: tensor {missing[0]} is missing{hint}"
      f"{_and_more(missing)}: the weights do not belong to this config.json"
    )
  extra = sorted(
    name
    for name in given - expected
    if name != family.head.name and not family.ignored.fullmatch(name)
  )
  if extra:
    raise UserError(
      f"{files.path(extra[0])}: tensor {extra[0]} has no place in a "
      f"{family.architecture} of {cfg.num_layers} layers{_and_more(extra)}: the "
      "weights do not belong to this config.json"
    )


def check_shapes(
  files: Files,
  wanted: Sequence[names.Tensor],
) -> None:
  """Refuses a tensor of another shape, naming it."""
  for tensor in wanted:
    given = files.shape(tensor.name)
    if given != tensor.shape:
      raise UserError(
        f"{files.path(tensor.name)}: tensor {tensor.name} has shape {list(given)} "
        f"where the config asks for {list(tensor.shape)}: the weights do not belong to "
        "it"
      )


def _check_tied_head(files: tensor_files.TensorFiles, cfg: ModelConfig) -> None:
  """Refuses a head that is not the embedding; each process compares its share."""
  family = names.family(cfg)
  head, embedding = family.head.name, family.embedding
  if not cfg.tie_embeddings or head not in files.names():
    return
  same = files.shape(head) == files.shape(embedding)
  if not same or not _same_values(files, head, embedding):
    raise UserError(
      f"{files.path(head)}: tensor {head} differs from {embedding}, but "
      "config.json says tie_word_embeddings true: set it to false, or delete the tensor"
    )


def _same_values(files: tensor_files.TensorFiles, one: str, other: str) -> bool:
  """Returns whether the rows that are this process's share are the same values."""
  num_rows, num_columns = files.shape(one)
  index, count = distributed.process_index(), distributed.num_processes()
  first, last = index * num_rows // count, (index + 1) * num_rows // count
  step = max(1, _COMPARED_BYTES // max(1, 8 * num_columns))
  for start in range(first, last, step):
    rows = (start, min(start + step, last))
    blocks = []
    for name in (one, other):
      block = np.empty((rows[1] - rows[0], num_columns), files.dtype(name))
      files.read(name, num_columns, rows, (0, num_columns), block)
      blocks.append(block)
    if not np.array_equal(*blocks):
      return False
  return True


def _common_dtype(files, wanted: Sequence[names.Tensor]) -> np.dtype:
  found = {files.dtype(tensor.name) for tensor in wanted}
  if len(found) > 1:
    raise UserError(
      f"{files.directory} mixes {', '.join(sorted(str(d) for d in found))}: say which "
      "dtype to load it in"
    )
  return found.pop()


def _and_more(found: Sequence[str]) -> str:
  return f" and {len(found) - 1} more" if len(found) > 1 else ""
