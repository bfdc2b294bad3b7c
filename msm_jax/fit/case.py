"""What is compiled: the update of a stage, as the config describes it."""

import dataclasses
import pathlib
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.experiment import Experiment, StageConfig
from msm_jax.models.config import LoraConfig, ModelConfig
from msm_jax.runs import Runs
from msm_jax.train import TrainConfig

# A search varies these; memory does not depend on how long a stage is, or on its rates.
_VARIED = ("num_microbatches", "remat")
_FREE = ("num_train_steps", "optimizer", "log_every_steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """The update of one stage, or of several that are alike."""

  stages: tuple[str, ...]
  cfg: ModelConfig  # adapters included, if the stage trains them
  config: TrainConfig
  trains_all: bool
  base_dtype: str  # of what is frozen

  @property
  def name(self) -> str:
    """Returns the names of the stages."""
    return ", ".join(self.stages)

  def vary(self, num_microbatches: int, remat: str) -> "Case":
    """Returns the case with other settings of those that a search varies."""
    config = dataclasses.replace(
      self.config, num_microbatches=num_microbatches, remat=remat
    )
    return dataclasses.replace(self, config=config)

  def identity(self) -> str:
    """Returns a digest of all that memory depends on, but what a search varies."""
    found = dataclasses.asdict(self)
    del found["stages"]
    for name in (*_VARIED, *_FREE):
      del found["config"][name]
    return records.sha256_json(found)[:16]


def find(
  experiment: Experiment,
  workdir: pathlib.Path,
  arm: str | None = None,
  stage: str | None = None,
) -> list[Case]:
  """Returns the cases of an experiment (of an arm, of a stage), alike ones as one.

  Reads no weights: of a Hugging Face directory only `config.json`.
  """
  paths = experiment.paths(arm, stage)
  names = [stage] if stage else list(dict.fromkeys(path[-1] for path in paths))
  if not paths:
    raise UserError(f"--arm={arm} has no stage {stage or 'at all'}: nothing to compile")
  cfg, adapters = model(experiment, workdir)
  alike: dict[Any, list[str]] = {}
  cases = {}
  for name in names:
    case = _case(experiment, experiment.stages[name], cfg, adapters)
    key = case.identity(), *(getattr(case.config, varied) for varied in _VARIED)
    alike.setdefault(key, []).append(name)
    cases.setdefault(key, case)
  return [
    dataclasses.replace(case, stages=tuple(alike[key])) for key, case in cases.items()
  ]


def _case(
  experiment: Experiment,
  stage: StageConfig,
  cfg: ModelConfig,
  adapters: LoraConfig | None,
) -> Case:
  trains_all = stage.adaptation == "full"
  return Case(
    stages=(stage.name,),
    cfg=dataclasses.replace(cfg, lora=None if trains_all else adapters),
    config=_train_config(stage),
    trains_all=trains_all,
    base_dtype=experiment.model.base_dtype,
  )


def _train_config(stage: StageConfig) -> TrainConfig:
  num_train_steps = stage.num_train_steps or 1_000  # rows may not be packed yet
  fields = {field.name for field in dataclasses.fields(TrainConfig)}
  shared = {
    name: value
    for name, value in vars(stage).items()
    if name in fields and not name.startswith("checkpoint_")
  }
  return TrainConfig(
    **shared
    | {
      "num_train_steps": num_train_steps,
      "optimizer": stage.optim(num_train_steps),
    }
  )


def model(
  experiment: Experiment, workdir: pathlib.Path
) -> tuple[ModelConfig, LoraConfig | None]:
  """Returns (the base, the adapters that stages with adaptation 'lora' train)."""
  given = experiment.model
  if given.init_from is None:
    return given.scratch(experiment.tokenizer["vocab_size"]), given.lora
  start = Runs(experiment, workdir).start(experiment.seeds[0])
  goes_on = start.brought is not None and given.adapter_use == "continue"
  cfg = dataclasses.replace(start.source_cfg, dtype=given.dtype, lora=None)
  return cfg, start.brought if goes_on else given.lora
