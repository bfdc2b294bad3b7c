"""The model that a study begins with: from scratch, from Hugging Face, from a run.

Every leaf is made or read in its place on the mesh: no process ever holds more of a
model than its own part. The base is held in `config.model.base_dtype`, adapters in
float32. A base of 8 or 4 bits is made of one leaf at a time.
"""

import dataclasses
import functools
import math
import pathlib
import re
from collections.abc import Callable
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from msm_jax import origin, progress, quantised, records, train_state
from msm_jax import tokenizer as tokenizer_lib
from msm_jax.errors import UserError
from msm_jax.hf import adapter as hf_adapter
from msm_jax.hf import config as hf_config
from msm_jax.hf import directory as hf_directory
from msm_jax.hf import load as hf_load
from msm_jax.models import lora, transformer
from msm_jax.models.config import LoraConfig, ModelConfig
from msm_jax.models.lora import Params
from msm_jax.origin import ModelSettings
from msm_jax.storage import inputs

_QUANTISED = re.compile(r"bnb|gptq|awq|hqq|[48]-?bit|fp8|int[48]", re.IGNORECASE)


@dataclasses.dataclass(frozen=True)
class Weights:
  """A model somewhere on a path: `base` leaves and `adapter` leaves (maybe none)."""

  cfg: ModelConfig  # with its lora field set exactly when there are adapters
  base: Params
  adapter: Params

  @property
  def params(self) -> Params:
    """Returns the whole tree."""
    return lora.join(self.base, self.adapter)


class Trained(Protocol):
  """A run of ours in another workdir."""

  def cfg(self) -> ModelConfig: ...
  def weights(self) -> Weights: ...
  def meta(self) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True)
class Start:
  """The model before the first stage.

  Attributes:
    model: what the config says about it.
    seed: of a model from scratch.
    source: a Hugging Face directory, a run of ours, None for a model from scratch.
    adapter_dir: of a PEFT adapter to add, if any.
    tokenizer: reads the study's tokenizer.
    mesh: makes the mesh where the leaves go; not before it is needed.
  """

  model: ModelSettings
  seed: int
  source: pathlib.Path | Trained | None
  adapter_dir: pathlib.Path | None
  tokenizer: Callable[[], tokenizer_lib.Tokenizer]
  mesh: Callable[[], Mesh]

  @functools.cached_property
  def cfg(self) -> ModelConfig:
    """Returns the model; its `lora` is set exactly when it brings adapters.

    Raises:
      UserError: what is there is not what the config says, or is damaged.
    """
    model = self.model
    if self.source is None:
      return model.scratch(self.tokenizer().vocab_size)
    model.check_sizes(self.source_cfg)
    check_vocab(self.tokenizer(), self.source_cfg)
    brought = self.brought
    if model.adapter_use == "merge":
      brought = None
    elif brought is not None and model.lora is not None:
      _check_agree(model.lora, brought)
    return dataclasses.replace(self.source_cfg, dtype=model.dtype, lora=brought)

  @functools.cached_property
  def fingerprint(self) -> str | None:
    """Tells one starting point from another; None for one from scratch."""
    if self.source is None:
      return None
    if isinstance(self.source, pathlib.Path):
      base = hf_directory.fingerprint(self.directory())
      if self.adapter_dir is None:
        return base
    else:
      base = self.source.meta()
    added = self.adapter_dir and hf_adapter.fingerprint(self.adapter_dir)
    return records.sha256_json([base, added, self.model.adapter_use])

  @functools.cached_property
  def adapter(self) -> hf_adapter.Adapter | None:
    """Returns the adapter of `config.model.adapter_from`, which fits the model."""
    if self.adapter_dir is None:
      return None
    if self.source_cfg.lora is not None:
      raise UserError(
        f"config.model.adapter_from is {str(self.adapter_dir)!r}, but the run of "
        "init_from has adapters already: export that run merged and begin from that"
      )
    return hf_adapter.find(self.adapter_dir, self.source_cfg)

  def weights(self) -> Weights:
    """Returns the model's parameters, read once."""
    if self.source is None:  # cheap, and every seed has its own
      drawn = fresh(self.cfg, self.seed, self.mesh())
      return Weights(self.cfg, quantised.hold(drawn, self.model.base_dtype), {})
    return self._read

  def directory(self) -> pathlib.Path:
    """Returns the Hugging Face directory with its weights; `source` may lack them
    while they are in a bucket.
    """
    place = origin.for_seed(self.model.init_from, self.seed)
    return inputs.model_dir(place, "config.model.init_from")

  def forget(self) -> None:
    """Lets go of the parameters; `weights` reads them again."""
    self.__dict__.pop("_read", None)

  @functools.cached_property
  def _read(self) -> Weights:
    plain = dataclasses.replace(self.cfg, lora=None)
    merges = self.model.adapter_use == "merge" and self.brought is not None
    if isinstance(self.source, pathlib.Path):
      layout = self._layout(transformer.abstract_params(plain), plain)
      dtype, hold = self.model.base_dtype, None
      if dtype in quantised.KINDS and not merges:
        hold = functools.partial(quantised.hold_leaf, dtype=dtype)
      if dtype in quantised.KINDS or merges:
        dtype = "float32"
      given = {"dtype": dtype, "shardings": layout, "hold": hold}
      base = hf_load.load(self.directory(), **given)[1]
      leaves = {} if self.adapter is None else self._adapter_leaves(plain)
    else:
      found = self.source.weights()
      base, leaves = found.base, found.adapter
      if self.adapter is not None:
        leaves = self._adapter_leaves(plain)
    if merges:
      scale = self.brought.alpha / self.brought.rank
      layout = self._layout(transformer.abstract_params(plain), plain)
      dtype = self.model.base_dtype
      base, leaves = _merged(base, leaves, scale, layout, dtype), {}
    base = quantised.hold(base, self.model.base_dtype)
    return Weights(self.cfg, train_state.place(base, plain, self.mesh()), leaves)

  @functools.cached_property
  def source_cfg(self) -> ModelConfig:
    """Returns the model of `init_from` by itself."""
    if isinstance(self.source, pathlib.Path):
      return hf_config.read(self.source)
    return self.source.cfg()

  @property
  def brought(self) -> LoraConfig | None:
    """Returns the adapters that come with it, merged or not."""
    return self.source_cfg.lora if self.adapter is None else self.adapter.lora

  def _adapter_leaves(self, plain: ModelConfig) -> Params:
    _say_what_differs(self.adapter_dir, self.adapter, self.model.base_model)
    cfg = dataclasses.replace(plain, lora=self.adapter.lora)
    shapes = lora.split(transformer.abstract_params(cfg))[0]
    return self.adapter.leaves(shardings=self._layout(shapes, cfg))

  def _layout(self, leaves: Params, cfg: ModelConfig) -> Params:
    return train_state.param_shardings(leaves, cfg, self.mesh())


def fresh(
  cfg: ModelConfig,
  seed: int,
  mesh: Mesh,
  *,
  adapter_only: bool = False,
  draw: int = 0,
) -> Params:
  """Returns freshly drawn float32 parameters, each drawn where it lies on `mesh`.

  They depend on `cfg`, `seed` and `draw` alone, not on the mesh.
  """
  key = jax.random.key(seed)
  if draw:
    key = jax.random.fold_in(key, draw)
  return _initializer(cfg, mesh, adapter_only)(key)


@functools.lru_cache(maxsize=8)
def _initializer(
  cfg: ModelConfig, mesh: Mesh, adapter_only: bool
) -> Callable[[jax.Array], Params]:
  def part(params: Params) -> Params:
    return lora.split(params)[0] if adapter_only else params

  def init(key: jax.Array) -> Params:
    return part(transformer.init_params(cfg, key))

  shapes = part(transformer.abstract_params(cfg))
  return jax.jit(init, out_shardings=train_state.param_shardings(shapes, cfg, mesh))


def check_vocab(tok: tokenizer_lib.Tokenizer, cfg: ModelConfig) -> None:
  """Raises a UserError when the tokenizer makes ids that the model does not have."""
  if tok.vocab_size > cfg.vocab_size:
    raise UserError(
      f"{tok.directory} has {tok.vocab_size} tokens, the model's vocabulary is "
      f"{cfg.vocab_size}: use the model's own tokenizer"
    )


def same_model(one: str | None, other: str | None) -> bool:
  """Returns whether two names of models mean the same, as far as names can say."""

  def last(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].lower()

  return one is None or other is None or last(one) == last(other)


def merged(weights: Weights, base_dtype: str, mesh: Mesh) -> Params:
  """Returns the base of `weights` with its adapters added, in `base_dtype`.

  It is added up in float32 and rounded once.
  """
  cfg = weights.cfg
  plain = dataclasses.replace(cfg, lora=None)
  shapes = transformer.abstract_params(plain)
  layout = train_state.param_shardings(shapes, plain, mesh)
  scale = cfg.lora.alpha / cfg.lora.rank
  base = _merged(weights.base, weights.adapter, scale, layout, base_dtype)
  return quantised.hold(base, base_dtype)


def _merged(
  base: Params, adapter: Params, scale: float, layout: Params, dtype: str
) -> Params:
  """Returns `base` with `adapter` added to it in float32, in `dtype` if that is one of
  floats: the sum of one leaf after the other is float32, not that of all.
  """
  dtype = "float32" if dtype in quantised.KINDS else dtype

  def merge(base, adapter):
    base = quantised.hold(base, "float32")
    return quantised.hold(lora.merge(lora.join(base, adapter), scale), dtype)

  return jax.jit(merge, out_shardings=layout)(base, adapter)


def _check_agree(asked: LoraConfig, found: LoraConfig) -> None:
  same = asked.rank == found.rank and set(asked.targets) == set(found.targets)
  if not same or not math.isclose(asked.alpha, found.alpha):
    raise UserError(
      f"config.model.lora has {_described(asked)}; the adapter that the study begins "
      f"with has {_described(found)}: set lora to None (or to that), or adapter_use to "
      "'merge'"
    )


def _described(found: LoraConfig) -> str:
  return f"rank {found.rank}, alpha {found.alpha:g}, targets {', '.join(found.targets)}"


def _say_what_differs(
  directory: pathlib.Path, adapter: hf_adapter.Adapter, base_model: str | None
) -> None:
  if not same_model(adapter.base_model, base_model):
    rounded = _QUANTISED.search(adapter.base_model)
    progress.say(
      f"WARNING: the adapter {directory} was trained on {adapter.base_model!r}"
      f"{' (quantised; it learned beside rounded weights)' if rounded else ''}, "
      f"config.model.base_model is {base_model!r}. Its shapes fit, so it is used; what "
      "it does to another base is not known. Exports say so."
    )
  if adapter.dropout:
    progress.say(
      f"note: the adapter {directory} was trained with lora_dropout "
      f"{adapter.dropout:g}; it goes on without"
    )
