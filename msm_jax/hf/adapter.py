"""PEFT adapters: `adapter_config.json` and `adapter_model.safetensors`, in and out.

A PEFT adapter adds (lora_alpha / r) B A to a weight, or (lora_alpha / sqrt(r)) B A with
rank-stabilised scaling (Kalajdzievski 2023). Ours is alpha / rank, so rank-stabilised
adapters are read with alpha = lora_alpha * sqrt(r). What else PEFT can do is refused by
name.
"""

import math
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.hf import directory as hf_directory
from msm_jax.hf import export as hf_export
from msm_jax.hf import load as hf_load
from msm_jax.hf import names, tensor_files
from msm_jax.models import lora
from msm_jax.models.config import LORA_TARGETS, LoraConfig, ModelConfig
from msm_jax.models.lora import Params

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
_MODULES = {
  target: module.rsplit(".", 1)[1]
  for target, (_, module, _) in names.PROJECTIONS.items()
}
# The initialisations that leave the base weights as they are.
_PLAIN_INITS = (None, True, False, "gaussian", "orthogonal", "eva")
# Read, or without influence on what the adapter computes.
_KNOWN = {
  "peft_type",
  "r",
  "lora_alpha",
  "target_modules",
  "use_rslora",
  "lora_dropout",
  "init_lora_weights",
  "task_type",
  "inference_mode",
  "base_model_name_or_path",
  "revision",
  "auto_mapping",
  "peft_version",
  "exclude_modules",
  "layers_pattern",
  "megatron_core",
  "qalora_group_size",
  "runtime_config",
  "ensure_weight_tying",
}


def save(
  out: str | os.PathLike[str],
  cfg: ModelConfig,
  params: Params,
  *,
  base_model: str,
  tokenizer_dir: str | os.PathLike[str] | None = None,
  dtype: str = "float32",
  lineage: Mapping[str, Any] | None = None,
) -> None:
  """Writes the adapter leaves of `params` so that PEFT loads them.

  Args:
    out: a new directory; it appears complete or not at all.
    cfg: the model; `cfg.lora` describes the adapter.
    params: the whole tree, or its adapter leaves alone.
    base_model: name or path of the model that the adapter belongs to.
    tokenizer_dir: whose files are copied beside it, if given.
    dtype: of the written weights.
    lineage: for the model card.

  Raises:
    UserError: the model has no adapter, or `out` exists.
  """
  if cfg.lora is None:
    raise UserError(
      "the model has no adapter (its stages trained all weights): export it as 'merged'"
    )
  leaves = dict(names.walk(lora.split(params)[0]))
  found = names.adapter_tensors(cfg, cfg.lora.rank, cfg.lora.targets)
  tensors = {tensor.name: tensor for tensor in found}
  assert set(leaves) == {tensor.path for tensor in found}, "not the model's adapter"

  def read(name: str):
    tensor = tensors[name]
    return tensor.from_leaf(hf_export.slice_of(leaves[tensor.path], tensor.layer))

  shapes = {tensor.name: tensor.shape for tensor in found}
  with hf_directory.written_whole(out) as new:
    cast = tensor_files.dtype_of(dtype)
    tensor_files.write_file(new / WEIGHTS_FILE, shapes, cast, read)
    records.write_json(new / CONFIG_FILE, _to_peft(cfg.lora, base_model))
    if tokenizer_dir is not None:
      hf_directory.copy_tokenizer(tokenizer_dir, new)
    card = {"name": pathlib.Path(out).name, "base_model": base_model, **(lineage or {})}
    front = {"library_name": "peft", "base_model_relation": "adapter"}
    hf_directory.write_card(new, card, front)


def load(
  directory: str | os.PathLike[str],
  cfg: ModelConfig,
  *,
  dtype: str = "float32",
  shardings: Params | None = None,
) -> tuple[LoraConfig, Params]:
  """Reads a PEFT adapter for the model `cfg`.

  Args:
    directory: with adapter_config.json and adapter_model.safetensors.
    cfg: the base model's config; its `lora` field is not looked at.
    dtype: of the leaves.
    shardings: a sharding for every adapter leaf; None puts all on the default device.

  Returns:
    (lora, leaves): put `lora` into `cfg` and join the leaves with the base parameters.

  Raises:
    UserError: DoRA and whatever else plain LoRA is not, another base, damaged weights.
  """
  directory = pathlib.Path(directory)
  rank, alpha = _scaling(directory / CONFIG_FILE)
  if not (directory / WEIGHTS_FILE).exists():
    raise UserError(
      f"{directory / WEIGHTS_FILE} is missing: name a PEFT adapter directory with "
      "safetensors (pickled adapters are never loaded)"
    )
  file = tensor_files.TensorFile(directory / WEIGHTS_FILE)
  targets = _targets(file)
  wanted = names.adapter_tensors(cfg, rank, targets)
  _check_names(file, cfg, {tensor.name for tensor in wanted})
  hf_load.check_shapes(file, wanted)
  leaves = hf_load.fill(file, wanted, tensor_files.dtype_of(dtype), shardings)
  return LoraConfig(rank=rank, alpha=alpha, targets=targets), leaves


def _to_peft(cfg: LoraConfig, base_model: str) -> dict[str, Any]:
  alpha = int(cfg.alpha) if float(cfg.alpha).is_integer() else cfg.alpha
  return {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base_model,
    "inference_mode": True,
    "r": cfg.rank,
    "lora_alpha": alpha,
    "target_modules": [_MODULES[target] for target in cfg.targets],
    "use_rslora": False,
    "use_dora": False,
    "lora_dropout": 0.0,
    "bias": "none",
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "modules_to_save": None,
    "rank_pattern": {},
    "alpha_pattern": {},
    "layers_to_transform": None,
  }


def _scaling(path: pathlib.Path) -> tuple[int, float]:
  """Returns (rank, our alpha) of an adapter_config.json after checking all of it."""
  if not path.is_file():
    raise UserError(f"{path} is missing: name a PEFT adapter directory")
  config = records.read_json(path)
  if not isinstance(config, dict) or config.get("peft_type") != "LORA":
    kind = config.get("peft_type") if isinstance(config, dict) else None
    raise UserError(f"{path}: field peft_type is {kind!r}: supported is 'LORA'")
  _check_options(path, config)
  rank, alpha = config.get("r", 8), config.get("lora_alpha", 8)
  if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
    raise UserError(f"{path}: field r is {rank!r}: it must be a whole number above 0")
  if isinstance(alpha, bool) or not isinstance(alpha, (int, float)):
    raise UserError(f"{path}: field lora_alpha is {alpha!r}: it must be a number")
  return rank, alpha * math.sqrt(rank) if config.get("use_rslora") else float(alpha)


def _check_options(path: pathlib.Path, config: Mapping[str, Any]) -> None:
  for field, value in config.items():
    off = value in (None, False, {}, []) or (field == "bias" and value == "none")
    if field not in _KNOWN and not off:
      raise UserError(
        f"{path}: field {field} is {value!r}: only plain LoRA is supported; merge the "
        "adapter with PEFT and load the merged model"
      )
  init = config.get("init_lora_weights")
  if init not in _PLAIN_INITS:
    raise UserError(
      f"{path}: field init_lora_weights is {init!r}: it changes the base weights; "
      "convert the adapter to plain LoRA with PEFT"
    )


def _targets(file: tensor_files.TensorFile) -> tuple[str, ...]:
  """Returns which projections the file has weights for, in our order."""
  modules = [re.sub(r"\.lora_[AB]\.weight$", "", name) for name in file.names()]
  found = {module.rsplit(".", 1)[-1] for module in modules}
  targets = tuple(target for target in LORA_TARGETS if _MODULES[target] in found)
  unknown = sorted(found - set(_MODULES.values()))
  if unknown or not targets:
    raise UserError(
      f"{file.file}: it adapts {unknown or 'nothing'}: supported are "
      f"{', '.join(_MODULES.values())}"
    )
  return targets


def _check_names(
  file: tensor_files.TensorFile, cfg: ModelConfig, wanted: set[str]
) -> None:
  given = set(file.names())
  missing, extra = sorted(wanted - given), sorted(given - wanted)
  if missing or extra:
    what = f"{missing[0]} is missing" if missing else f"{extra[0]} is extra"
    raise UserError(
      f"{file.file}: tensor {what} for a base of {cfg.num_layers} layers: the adapter "
      "belongs to another model, or adapts only some layers, which is not supported"
    )
