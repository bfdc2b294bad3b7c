"""What is compiled: the update of a stage, as the config describes it."""

import collections
import dataclasses
import pathlib
from typing import Any, NamedTuple

from msm_jax import origin, records
from msm_jax.errors import UserError
from msm_jax.experiment import Experiment, StageConfig
from msm_jax.fit import released
from msm_jax.hf import config as hf_config
from msm_jax.models import lora
from msm_jax.models.config import LoraConfig, ModelConfig
from msm_jax.runs import Runs
from msm_jax.storage import inputs
from msm_jax.train import TrainConfig

# A search varies these; memory does not depend on how long a stage is, or on its rates.
_VARIED = ("num_microbatches", "remat")
_FREE = ("num_train_steps", "optimizer", "log_every_steps")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """The update of one stage, or of several that are alike.

  Attributes:
    stages: their names.
    cfg: the model, adapters included, if they are trained.
    config: of the first stage; a search varies some of it.
    trains_all: whether the base is trained.
    base_dtype: of the base, trained or frozen.
    freeze: what is not trained although all else is.
    num_runs: how many are one program.
    own: what each stage's own config has for what a search varies.
    note: what is not counted, if anything.
  """

  stages: tuple[str, ...]
  cfg: ModelConfig
  config: TrainConfig
  trains_all: bool
  base_dtype: str
  freeze: tuple[str, ...] = ()
  num_runs: int = 1
  own: tuple[tuple[int, str], ...] = ()
  note: str = ""

  @property
  def name(self) -> str:
    """Returns the names of the stages."""
    return ", ".join(self.stages)

  def own_settings(self) -> dict[str, dict[str, int | str]]:
    """Returns what each stage's own config has for what a search varies."""
    own = self.own or (_varied(self.config),) * len(self.stages)
    return {
      stage: dict(zip(_VARIED, values, strict=True))
      for stage, values in zip(self.stages, own, strict=True)
    }

  def split(self, params: Any) -> tuple[Any, Any]:
    """Returns (the leaves that are trained, those that stay as they are)."""
    if not self.trains_all:
      return lora.split(params)
    return lora.partition(params, lambda path: path[0] not in self.freeze)

  def vary(self, num_microbatches: int, remat: str) -> "Case":
    """Returns the case with other settings of those that a search varies."""
    config = dataclasses.replace(
      self.config, num_microbatches=num_microbatches, remat=remat
    )
    return dataclasses.replace(self, config=config)

  def identity(self) -> str:
    """Returns a digest of all that memory depends on, but what a search varies and the
    mesh.
    """
    found = dataclasses.asdict(self)
    for name in ("stages", "own", "note"):
      del found[name]
    for name in (*_VARIED, *_FREE):
      del found["config"][name]
    found["moments_dtype"] = self.config.optimizer.moments_dtype
    return records.sha256_json(found)[:16]


def find(
  experiment: Experiment,
  workdir: pathlib.Path,
  arm: str | None = None,
  stage: str | None = None,
) -> list[Case]:
  """Returns the cases of an experiment (of an arm, of a stage), alike ones as one.

  Reads no weights: of a Hugging Face directory only `config.json`.

  Raises:
    UserError: no such arm or stage, or the model's sizes are not known.
  """
  paths = experiment.paths(arm, stage)
  names = [stage] if stage else list(dict.fromkeys(path[-1] for path in paths))
  if not paths:
    raise UserError(f"--arm={arm} has no stage {stage or 'at all'}: nothing to compile")
  given = model(experiment, workdir)
  alike: dict[str, list[Case]] = {}
  for name in names:
    case = _case(experiment, experiment.stages[name], given)
    alike.setdefault(case.identity(), []).append(case)
  return [
    dataclasses.replace(
      cases[0],
      stages=tuple(case.name for case in cases),
      own=tuple(_varied(case.config) for case in cases),
    )
    for cases in alike.values()
  ]


def _varied(config: TrainConfig) -> tuple[int, str]:
  return config.num_microbatches, config.remat


def _case(experiment: Experiment, stage: StageConfig, given: "Given") -> Case:
  trains_all, cfg = stage.adaptation == "full", given.cfg
  if stage.seq_len > cfg.max_seq_len:
    raise UserError(
      f"config.stages.{stage.name}.seq_len ({stage.seq_len}) is longer than the "
      f"model's context ({cfg.max_seq_len}): lower it"
    )
  num_runs, note = _together(experiment, stage)
  return Case(
    num_runs=num_runs,
    note=note,
    stages=(stage.name,),
    cfg=dataclasses.replace(cfg, lora=None if trains_all else given.adapters),
    config=_train_config(stage),
    trains_all=trains_all,
    freeze=tuple(stage.freeze),
    base_dtype=experiment.model.base_dtype,
  )


def _together(experiment: Experiment, stage: StageConfig) -> tuple[int, str]:
  """Returns (runs of a stage that are one program, what to say about it).

  Counts siblings from above: those that turn out to differ in their frozen base are
  trained apart.
  """
  shape = _shape_of(stage)
  lengths = collections.Counter(
    len(path)
    for path in experiment.paths()
    if _shape_of(experiment.stages[path[-1]]) == shape
  )
  of_stage = {len(path) for path in experiment.paths() if path[-1] == stage.name}
  most = max((lengths[length] for length in of_stage), default=1)
  num_siblings, bound = most * len(experiment.seeds), experiment.run.population
  if bound is None and num_siblings > 1:
    return 1, (
      f"one run is counted, and up to {num_siblings} are alike: `train` may make "
      "several one program, which takes more; config.run.population=1 keeps to one, "
      "another number is counted here"
    )
  return min(bound or 1, num_siblings), ""


def _shape_of(stage: StageConfig) -> Any:
  return stage.adaptation, tuple(stage.freeze), _train_config(stage)


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


class Given(NamedTuple):
  """The model that stages begin with.

  Attributes:
    cfg: of the base.
    adapters: those that stages with adaptation 'lora' train.
    note: where the sizes are from, unless from the model itself.
  """

  cfg: ModelConfig
  adapters: LoraConfig | None
  note: str = ""


def model(experiment: Experiment, workdir: pathlib.Path) -> Given:
  """Returns the model of an experiment, by its sizes alone.

  Raises:
    UserError: it is not there, and no released model whose sizes are known.
  """
  given, seed = experiment.model, experiment.seeds[0]
  if given.init_from is None:
    return Given(given.scratch(experiment.tokenizer["vocab_size"]), given.lora)
  if origin.absent(given, seed):
    return _absent(experiment)
  start = Runs(experiment, workdir).start(seed)
  goes_on = start.brought is not None and given.adapter_use == "continue"
  cfg = dataclasses.replace(start.source_cfg, dtype=given.dtype, lora=None)
  return Given(cfg, start.brought if goes_on else given.lora)


def _absent(experiment: Experiment) -> Given:
  """Returns the model of files that are not there, as far as the config tells."""
  given = experiment.model
  lacks = " and ".join(origin.absent(given, experiment.seeds[0]))
  place = origin.for_seed(given.init_from, experiment.seeds[0])
  if origin.is_run(given.init_from):
    raise UserError(f"{lacks} is not there yet, and only it tells the model's sizes")
  found = inputs.exists(place) and inputs.model_dir(place, lacks, weights=False)
  if found and (found / hf_config.CONFIG_FILE).is_file():
    cfg, source = hf_config.read(found), place
  else:
    cfg, source = released.find(given.base_model), str(given.base_model)
  if cfg is None:
    raise UserError(
      f"{lacks} is not there, and without it the sizes of {given.base_model} are not "
      f"known: put its {hf_config.CONFIG_FILE} there (nothing else is needed), from "
      f"https://huggingface.co/{given.base_model}/blob/main/{hf_config.CONFIG_FILE}; "
      f"known by config.model.base_model are {', '.join(released.names())}"
    )
  needs_lora = any(stage.adaptation == "lora" for stage in experiment.stages.values())
  if needs_lora and given.lora is None:
    raise UserError(f"{lacks} is not there: set config.model.lora to what it will be")
  note = f"{lacks} is not there yet: sizes are those of {source}"
  return Given(dataclasses.replace(cfg, dtype=given.dtype), given.lora, note)
