"""`adapter_config.json` of PEFT: what it may say, and which modules it means.

PEFT adds (lora_alpha / r) B A to a weight, or (lora_alpha / sqrt(r)) B A with
rank-stabilised scaling (Kalajdzievski 2023). Ours is alpha / rank, so rank-stabilised
adapters are read with alpha = lora_alpha * sqrt(r). Whatever else PEFT can do is
refused by name.
"""

import dataclasses
import json
import math
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from msm_jax.errors import UserError
from msm_jax.hf import names
from msm_jax.hf.fields import is_off
from msm_jax.models.config import LORA_TARGETS, LoraConfig, ModelConfig

FILE = "adapter_config.json"
MODULES = {
  target: module.rsplit(".", 1)[1]
  for target, (_, module, _) in names.PROJECTIONS.items()
}
_MERGE = "merge the adapter with PEFT (merge_and_unload) and load the merged model"
# Modules beside the projections that an adapter could be meant for.
_OTHERS = ("lm_head", "model.embed_tokens")
# The initialisations that leave the base weights as they are.
_PLAIN_INITS = (None, True, False, "gaussian", "orthogonal", "eva", "mica")
# Read, or without influence on what a trained adapter computes.
_KNOWN = {
  "peft_type",
  "r",
  "lora_alpha",
  "target_modules",
  "exclude_modules",
  "layers_to_transform",
  "layers_pattern",
  "rank_pattern",
  "alpha_pattern",
  "use_rslora",
  "lora_dropout",
  "init_lora_weights",
  "eva_config",
  "task_type",
  "inference_mode",
  "base_model_name_or_path",
  "revision",
  "auto_mapping",
  "peft_version",
  "megatron_core",
  "qalora_group_size",
  "runtime_config",
  "ensure_weight_tying",
}
# What the fields that are met most often ask for.
_MEANINGS = {
  "use_dora": "DoRA",
  "modules_to_save": "whole layers trained beside the adapter",
  "bias": "trained biases",
  "lora_bias": "a bias in the adapter",
  "trainable_token_indices": "trained rows of the embedding",
  "target_parameters": "adapters on bare parameters",
  "layer_replication": "repeated layers",
  "alora_invocation_tokens": "an adapter that only some tokens switch on",
  "fan_in_fan_out": "transposed weights",
  "loftq_config": "a quantised base",
  "use_qalora": "a quantised base",
}


@dataclasses.dataclass(frozen=True)
class PeftConfig:
  """A checked adapter_config.json; `alpha` is ours, so the scale is alpha / rank."""

  file: pathlib.Path
  rank: int
  alpha: float
  base_model: str | None
  dropout: float
  fields: Mapping[str, Any]

  def targets(self, cfg: ModelConfig) -> tuple[str, ...]:
    """Returns which projections of `cfg` are adapted, in our order.

    Raises:
      UserError: a module that we have no adapter for, only some layers, or none.
    """
    others = [name for name in _OTHERS if self._names(name, linear=False)]
    if others:
      raise self._error(
        "target_modules", f"it adapts {others[0]}, supported are {_supported()}"
      )
    found = []
    for target, modules in modules_of(cfg).items():
      layers = [n for n, module in enumerate(modules) if self._names(module)]
      if 0 < len(layers) < len(modules):
        raise UserError(
          f"{self.file}: it adapts {MODULES[target]} in {len(layers)} of "
          f"{len(modules)} layers ({_short(layers)}): supported are whole projections; "
          f"{_MERGE}"
        )
      if layers:
        found.append(target)
    if not found:
      raise self._error(
        "target_modules", f"it names no projection of this model: {_supported()}"
      )
    return tuple(found)

  def _names(self, module: str, linear: bool = True) -> bool:
    """Returns whether PEFT would adapt `module`, by its rules."""
    excluded, wanted = self.fields.get("exclude_modules"), self.fields["target_modules"]
    if excluded and _matches(excluded, module):
      return False
    if wanted == "all-linear":
      return linear
    if not _matches(wanted, module):
      return False
    layers = self.fields.get("layers_to_transform")
    if isinstance(wanted, str) or module in wanted or layers in (None, []):
      return True
    number = self._layer_of(module)
    return number in (layers if isinstance(layers, list) else [layers])

  def _layer_of(self, module: str) -> int | None:
    patterns = self.fields.get("layers_pattern") or [r"[^.]*"]
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
      match = re.match(rf"(?:.*?\.)?{pattern}\.(\d+)\.", module)
      if match:
        return int(match[1])
    return None

  def _error(self, field: str, why: str) -> UserError:
    return _error(self.file, field, self.fields.get(field), why)


def read(directory: pathlib.Path) -> PeftConfig:
  """Reads and checks the adapter_config.json of a directory.

  Raises:
    UserError: it is missing, no plain LoRA, or has values that cannot be.
  """
  path = directory / FILE
  if not path.is_file():
    raise UserError(f"{path} is missing: name a PEFT adapter directory")
  try:
    fields = json.loads(path.read_text("utf-8"))
  except ValueError as error:
    raise UserError(f"{path} is not valid JSON ({error}): copy it again") from None
  if not isinstance(fields, dict):
    raise UserError(f"{path} is no JSON object: name a PEFT adapter directory")
  kind = fields.get("peft_type")
  if kind != "LORA":
    raise _error(path, "peft_type", kind, f"supported is 'LORA'; {_MERGE}")
  _check_options(path, fields)
  _check_modules(path, fields)
  rank, alpha = _scaling(path, fields)
  dropout = fields.get("lora_dropout")
  if dropout is not None and not _is_number(dropout):
    raise _error(path, "lora_dropout", dropout, "it must be a number")
  base = fields.get("base_model_name_or_path")
  if base is not None and not isinstance(base, str):
    raise _error(path, "base_model_name_or_path", base, "it must be a name or null")
  return PeftConfig(path, rank, alpha, base, dropout or 0.0, fields)


def to_peft(cfg: LoraConfig, base_model: str) -> dict[str, Any]:
  """Returns the adapter_config.json for adapters of ours.

  Every key is known to PEFT since 0.10; lists and integers as vLLM's loader wants them.
  """
  alpha = int(cfg.alpha) if float(cfg.alpha).is_integer() else cfg.alpha
  targets = [target for target in LORA_TARGETS if target in cfg.targets]
  return {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": base_model,
    "inference_mode": True,
    "r": cfg.rank,
    "lora_alpha": alpha,
    "target_modules": [MODULES[target] for target in targets],
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


def modules_of(cfg: ModelConfig) -> dict[str, list[str]]:
  """Returns the names of each projection's modules, layer by layer, as PEFT sees
  them.
  """
  found: dict[str, list[str]] = {}
  for tensor in names.adapter_tensors(cfg, 1, LORA_TARGETS):
    if tensor.path[-1] == "lora_a":
      module = tensor.name.removeprefix("base_model.model.")
      module = module.removesuffix(".lora_A.weight")
      found.setdefault(tensor.path[-2], []).append(module)
  return found


def _check_options(path: pathlib.Path, fields: Mapping[str, Any]) -> None:
  for field, value in fields.items():
    off = is_off(value) or (field == "bias" and value == "none")
    if field not in _KNOWN and not off:
      meaning = f" ({_MEANINGS[field]})" if field in _MEANINGS else ""
      raise _error(
        path, field, value, f"only plain LoRA is supported{meaning}; {_MERGE}"
      )
  init = fields.get("init_lora_weights")
  if init not in _PLAIN_INITS:
    raise _error(
      path,
      "init_lora_weights",
      init,
      "it changes the base weights; convert the adapter to plain LoRA with PEFT "
      "(save_pretrained with path_initial_model_for_weight_conversion)",
    )


def _check_modules(path: pathlib.Path, fields: Mapping[str, Any]) -> None:
  """Raises for patterns of modules that are none."""
  wanted = fields.get("target_modules")
  if wanted in (None, [], ""):
    raise _error(
      path, "target_modules", wanted, "write the list of modules that are adapted"
    )
  for field in ("target_modules", "exclude_modules", "layers_pattern"):
    value = fields.get(field)
    listed = isinstance(value, list) and all(isinstance(one, str) for one in value)
    if value is not None and not isinstance(value, str) and not listed:
      raise _error(path, field, value, "it must be a list of names or one pattern")
    patterns = [value] if isinstance(value, str) else []
    if listed and field == "layers_pattern":  # elsewhere a list holds plain names
      patterns = value
    for pattern in patterns:
      try:
        groups = re.compile(pattern).groups
      except re.error as error:
        raise _error(path, field, value, f"it is no pattern ({error})") from None
      if groups and field == "layers_pattern":  # PEFT takes the first for the number
        raise _error(path, field, value, "groups have no meaning there: use (?:...)")


def _scaling(path: pathlib.Path, fields: Mapping[str, Any]) -> tuple[int, float]:
  """Returns (rank, our alpha)."""
  rank, alpha = fields.get("r", 8), fields.get("lora_alpha", 8)
  if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
    raise _error(path, "r", rank, "it must be a whole number above 0")
  if not _is_number(alpha):
    raise _error(path, "lora_alpha", alpha, "it must be a number")
  for field, value in (("rank_pattern", rank), ("alpha_pattern", alpha)):
    found = fields.get(field)
    if found is not None and not isinstance(found, dict):
      raise _error(path, field, found, "it must be an object or null")
    if any(other != value for other in (found or {}).values()):
      raise _error(
        path, field, found, f"one rank and one alpha for all is supported; {_MERGE}"
      )
  rank_stabilised = fields.get("use_rslora")
  if rank_stabilised is not None and not isinstance(rank_stabilised, bool):
    raise _error(path, "use_rslora", rank_stabilised, "it must be true or false")
  return rank, alpha * math.sqrt(rank) if rank_stabilised else float(alpha)


def _is_number(value: Any) -> bool:
  is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
  return is_number and math.isfinite(value)


def _matches(pattern: str | list[str], module: str) -> bool:
  """Returns whether a pattern means a module: one regex, or a list of suffixes."""
  if isinstance(pattern, str):
    return re.fullmatch(pattern, module) is not None
  return any(module == name or module.endswith(f".{name}") for name in pattern)


def _error(path: pathlib.Path, field: str, value: Any, why: str) -> UserError:
  return UserError(f"{path}: field {field} is {value!r}: {why}")


def _supported() -> str:
  return ", ".join(MODULES.values())


def _short(numbers: list[int]) -> str:
  shown = ", ".join(map(str, numbers[:6]))
  return shown + ", ..." if len(numbers) > 6 else shown
