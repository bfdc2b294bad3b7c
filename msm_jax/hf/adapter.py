"""PEFT adapters: `adapter_config.json` and `adapter_model.safetensors`, in and out.

The config says which modules are adapted and how they are scaled (`peft_config.py`);
the file must have exactly the tensors that follow from it.
"""

import dataclasses
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
from msm_jax.hf import names, peft_config, tensor_files
from msm_jax.models import lora
from msm_jax.models.config import LORA_TARGETS, LoraConfig, ModelConfig
from msm_jax.models.lora import Params

CONFIG_FILE = peft_config.FILE
WEIGHTS_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."
# PEFT drops the adapter's name when it saves; who dumps a state dict keeps it.
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])(?:\.(?P<name>\w+))?\.weight")
# Names of tensors that plain LoRA does not have, and what they are.
_FOREIGN = {
  "lora_magnitude_vector": "the magnitudes of DoRA",
  "lora_embedding_": "an adapter of the embedding",
  ".lora_B.bias": "a bias in the adapter",
  "modules_to_save": "whole layers trained beside the adapter",
  "trainable_tokens": "trained rows of the embedding",
  "embed_tokens.weight": "a whole weight of the base (was its vocabulary resized?)",
  "lm_head.weight": "a whole weight of the base (was its vocabulary resized?)",
  ".bias": "a trained bias",
}


@dataclasses.dataclass(frozen=True)
class Adapter:
  """An adapter on disk that fits a model; its weights are not read yet.

  Attributes:
    lora: put it into the model's config.
    base_model: which model it was trained on, by its own account.
    dropout: that it was trained with; ours is trained without.
  """

  lora: LoraConfig
  base_model: str | None
  dropout: float
  file: tensor_files.TensorFile
  tensors: tuple[names.Tensor, ...]

  def leaves(self, dtype: str = "float32", shardings: Params | None = None) -> Params:
    """Returns the adapter leaves, to be joined with the base parameters.

    Args:
      dtype: of the leaves.
      shardings: one for every leaf; None puts all on the default device.

    Raises:
      UserError: a weight is not finite.
    """
    cast = tensor_files.dtype_of(dtype)
    return hf_load.fill(self.file, self.tensors, cast, shardings)


def find(directory: str | os.PathLike[str], cfg: ModelConfig) -> Adapter:
  """Returns the PEFT adapter of a directory, checked against the base model `cfg`.

  Args:
    directory: with adapter_config.json and adapter_model.safetensors.
    cfg: the base model's config; its `lora` field is not looked at.

  Raises:
    UserError: DoRA and whatever else plain LoRA is not, another base, damaged weights.
  """
  directory = pathlib.Path(directory)
  config = peft_config.read(directory)
  targets = config.targets(cfg)
  if not (directory / WEIGHTS_FILE).exists():
    raise UserError(
      f"{directory / WEIGHTS_FILE} is missing: name a PEFT adapter directory with "
      "safetensors (pickled adapters are never loaded)"
    )
  file = _AdapterFile(directory / WEIGHTS_FILE)
  wanted = tuple(names.adapter_tensors(cfg, config.rank, targets))
  _check_targets(file, targets)
  _check_names(file, cfg, {tensor.name for tensor in wanted})
  hf_load.check_shapes(file, wanted)
  found = LoraConfig(rank=config.rank, alpha=config.alpha, targets=targets)
  return Adapter(found, config.base_model, config.dropout, file, wanted)


def load(
  directory: str | os.PathLike[str],
  cfg: ModelConfig,
  *,
  dtype: str = "float32",
  shardings: Params | None = None,
) -> tuple[LoraConfig, Params]:
  """Returns (lora, leaves) of `find(directory, cfg)`; see there."""
  found = find(directory, cfg)
  return found.lora, found.leaves(dtype, shardings)


def fingerprint(directory: str | os.PathLike[str]) -> str:
  """Returns a digest of an adapter's two files."""
  paths = [pathlib.Path(directory) / name for name in (CONFIG_FILE, WEIGHTS_FILE)]
  absent = [path for path in paths if not path.is_file()]
  if absent:
    raise UserError(f"{absent[0]} is missing: name a PEFT adapter directory")
  return records.sha256_json([records.sha256_file(path) for path in paths])


def save(
  out: str | os.PathLike[str],
  cfg: ModelConfig,
  params: Params,
  *,
  base_model: str,
  tokenizer_dir: str | os.PathLike[str] | None = None,
  base_dir: str | os.PathLike[str] | None = None,
  dtype: str = "float32",
  lineage: Mapping[str, Any] | None = None,
) -> None:
  """Writes the adapter leaves of `params` so that PEFT and vLLM load them.

  With several processes all of them call it, and process 0 writes.

  Args:
    out: a new directory; it appears complete or not at all.
    cfg: the model; `cfg.lora` describes the adapter.
    params: the whole tree, or its adapter leaves alone.
    base_model: name or path of the model that the adapter belongs to.
    tokenizer_dir: whose files are copied beside it, if given.
    base_dir: the base model's directory, if at hand: its licence and notices are
      carried over.
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
    records.write_json(new / CONFIG_FILE, peft_config.to_peft(cfg.lora, base_model))
    if tokenizer_dir is not None:
      hf_directory.copy_tokenizer(tokenizer_dir, new)
    hf_directory.copy_notices(base_dir, new)
    card = {"name": pathlib.Path(out).name, "base_model": base_model, **(lineage or {})}
    front = {"library_name": "peft", "base_model_relation": "adapter"}
    hf_directory.write_card(new, hf_directory.with_license(card, base_dir), front)


class _AdapterFile(tensor_files.TensorFile):
  """The tensors of an adapter under the names that PEFT saves them with.

  An adapter's own name (`lora_A.default.weight`) is dropped, and the prefix that PEFT
  puts before every module is added where it is missing.
  """

  def __init__(self, path: pathlib.Path):
    super().__init__(path)
    named = {name: _canonical(name) for name in self.entries}
    if len(set(named.values())) < len(named):
      raise UserError(
        f"{self.file}: it holds several adapters for the same modules: save each to "
        "a directory of its own"
      )
    self.entries = {named[name]: entry for name, entry in self.entries.items()}


def _canonical(name: str) -> str:
  match = _LORA.fullmatch(name)
  if match is None:
    return name
  return f"{_PREFIX}{match['module'].removeprefix(_PREFIX)}.lora_{match['side']}.weight"


def _check_targets(file: tensor_files.TensorFile, targets: tuple[str, ...]) -> None:
  """Refuses what is no plain LoRA, and projections that file and config disagree on."""
  lasts = set()
  for name in file.names():
    match = _LORA.fullmatch(name)
    foreign = [what for part, what in _FOREIGN.items() if part in name]
    if match is None or foreign:
      what = f" is {foreign[0]}: it" if foreign else ""
      raise UserError(
        f"{file.file}: tensor {name}{what} is no part of plain LoRA; merge the adapter "
        "with PEFT (merge_and_unload) and load the merged model"
      )
    lasts.add(match["module"].rsplit(".", 1)[-1])
  named = {peft_config.MODULES[target] for target in targets}
  for module in sorted(lasts - named):
    known = module in peft_config.MODULES.values()
    why = f"{CONFIG_FILE} does not name it" if known else "that is not supported"
    raise UserError(
      f"{file.file}: it adapts {module}, but {why} (adapted are "
      f"{', '.join(peft_config.MODULES[t] for t in LORA_TARGETS if t in targets)})"
    )
  for module in sorted(named - lasts):
    raise UserError(
      f"{file.file}: {CONFIG_FILE} says that {module} is adapted, but there is no "
      "tensor of it: the two files do not belong together"
    )


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
