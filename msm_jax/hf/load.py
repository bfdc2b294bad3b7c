"""Hugging Face model directory -> (ModelConfig, parameters).

Every tensor is mapped into memory and copied once, transposed and cast on the way, into
its slice of a stacked leaf. With shardings, each process touches only the bytes of its
own part.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config
from msm_jax.hf import names, tensor_files
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params

Index = tuple[slice, ...]
Files = tensor_files.TensorFiles | tensor_files.TensorFile


def load(
  directory: str | os.PathLike[str],
  *,
  dtype: str | None = "float32",
  shardings: Params | None = None,
) -> tuple[ModelConfig, Params]:
  """Reads a model.

  Args:
    directory: config.json and safetensors (one file, or an index). Pickles are never
      opened.
    dtype: of the parameters; None keeps that of the files, which then must agree.
    shardings: a sharding for every leaf of `transformer.abstract_params(cfg)`, where
      `cfg = hf.config.read(directory)`; None puts all on the default device.

  Raises:
    UserError: anything missing, extra, of another shape, NaN, damaged or unknown.
  """
  directory = pathlib.Path(directory)
  cfg = hf_config.read(directory)
  files = tensor_files.TensorFiles(directory)
  wanted = names.tensors(cfg)
  check_names(files, cfg, wanted)
  check_shapes(files, wanted)
  cast = _common_dtype(files, wanted) if dtype is None else tensor_files.dtype_of(dtype)
  params = fill(files, wanted, cast, shardings)
  _check_tied_head(files, cfg)
  return cfg, params


def fill(
  files: Files,
  wanted: Sequence[names.Tensor],
  dtype: np.dtype,
  shardings: Params | None = None,
) -> Params:
  """Returns the nested dict of leaves that `wanted` describes, one leaf at a time."""
  by_path = dict(names.walk(shardings)) if shardings is not None else None
  leaves: dict[names.Path, Any] = {}
  for path, parts in names.by_leaf(wanted).items():
    first = parts[0]
    stacked = first.layer is not None
    shape = (len(parts), *first.leaf_shape) if stacked else first.leaf_shape

    def read(index: Index, parts=parts, stacked=stacked, shape=shape) -> np.ndarray:
      return _read_part(files, parts, index, stacked, shape, dtype)

    if by_path is None:
      leaves[path] = jax.device_put(read((slice(None),) * len(shape)))
    else:
      leaves[path] = jax.make_array_from_callback(shape, by_path[path], read)
      leaves[path].block_until_ready()  # before the next leaf takes host memory
  return names.nest(leaves)


def _read_part(files, parts, index, stacked, shape, dtype) -> np.ndarray:
  """Returns the part `index` of a leaf, reading only what it needs."""
  size = [len(range(*s.indices(n))) for s, n in zip(index, shape, strict=True)]
  out = np.empty(size, dtype)
  if not stacked:
    _copy_finite(files, parts[0], index, out)
    return out
  for row, part in enumerate(parts[index[0]]):
    _copy_finite(files, part, index[1:], out[row])
  return out


def _copy_finite(files, part: names.Tensor, index: Index, out: np.ndarray) -> None:
  view = part.to_leaf(files.tensor(part.name))[index]
  np.copyto(out, view, casting="unsafe")
  tensor_files.check_finite(out, f"{files.path(part.name)}: tensor {part.name}")


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
  family = names.family(cfg)
  head = family.head.name
  if not cfg.tie_embeddings or head not in files.names():
    return
  given, embedding = files.tensor(head), files.tensor(family.embedding)
  if given.shape != embedding.shape or not np.array_equal(given, embedding):
    raise UserError(
      f"{files.path(head)}: tensor {head} differs from {family.embedding}, but "
      "config.json says tie_word_embeddings true: set it to false, or delete the tensor"
    )


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
