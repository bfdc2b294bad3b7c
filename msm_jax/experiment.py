"""A config as frozen, checked values: stages, arms, model, evaluations.

`parse` takes the plain dict of a config and returns an `Experiment`, or a UserError
that names the field. Nothing below this file sees a ConfigDict.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from msm_jax import asked as asked_lib
from msm_jax import chat_setup, doses, origin, quantised, tree
from msm_jax import fields as fields_lib
from msm_jax import hardware as hardware_lib
from msm_jax.asked import AskedConfig
from msm_jax.errors import UserError
from msm_jax.evals import kinds, reasoning_patterns
from msm_jax.evals.kinds import KINDS
from msm_jax.evals.reasoning_patterns import ReasoningPatternsConfig
from msm_jax.hardware import Hardware
from msm_jax.mixture import DataConfig
from msm_jax.origin import ModelSettings
from msm_jax.report.settings import from_config as report_settings
from msm_jax.stages import StageConfig
from msm_jax.training import run_config
from msm_jax.training.run_config import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """A study: what can be done (stages), what follows what (arms), how often (seeds).

  `asked` are arms that are asked differently; `subjects` are those and all arms.
  """

  name: str
  seeds: tuple[int, ...]
  num_workers: int
  model: ModelSettings
  mesh: Mapping[str, int]
  tokenizer: Mapping[str, Any]
  stages: Mapping[str, StageConfig]
  arms: Mapping[str, tuple[str, ...]]
  asked: Mapping[str, AskedConfig]
  specs: Mapping[str, Any]
  evals: Mapping[str, Mapping[str, Any]]
  analyses: Mapping[str, Mapping[str, Any]]
  report: Mapping[str, Any]
  run: RunConfig
  hardware: Hardware | None = None

  def paths(
    self, arm: str | None = None, stage: str | None = None
  ) -> list[tuple[str, ...]]:
    """Returns every path of stages that an arm needs, parents first, each once.

    Args:
      arm: only those of this arm, or of the arm that this one is asked differently of.
      stage: only those that end with this stage, and what comes before them.
    """
    ends = list(self.arms.values()) if arm is None else [self.subject_path(arm)]
    if stage is not None:
      if stage not in self.stages:
        raise UserError(f"--stage={stage} is not one of {sorted(self.stages)}")
      ends = [path[: path.index(stage) + 1] for path in ends if stage in path]
    found = {path[:n] for path in ends for n in range(1, len(path) + 1)}
    return sorted(found, key=lambda path: (len(path), path))

  @property
  def subjects(self) -> dict[str, tuple[str, ...]]:
    """Returns what evaluations ask and reports show: name -> path of its stages."""
    return asked_lib.subjects(self.arms, self.asked)

  def named_subjects(self, name: str | None = None) -> list[str]:
    """Returns all subjects, or the one that is asked for.

    Raises:
      UserError: there is no such subject.
    """
    if name is None:
      return list(self.subjects)
    self.subject_path(name)
    return [name]

  def subject_path(self, name: str) -> tuple[str, ...]:
    """Returns the stages of a subject; a UserError if there is no such subject."""
    subjects = self.subjects
    if name not in subjects:
      raise UserError(f"--arm={name} is not one of {', '.join(subjects)}")
    return subjects[name]

  def evaluations(self, name: str) -> list[str]:
    """Returns the evaluations that a subject is asked."""
    return asked_lib.evaluations(self.evals, self.asked.get(name))

  def arm_path(self, arm: str) -> tuple[str, ...]:
    """Returns the stages of an arm; a UserError if there is no such arm."""
    if arm in self.asked:
      raise UserError(
        f"--arm={arm} is {self.asked[arm].says()}: it has no weights of its own; use "
        f"--arm={self.asked[arm].of}"
      )
    if arm not in self.arms:
      raise UserError(f"--arm={arm} is not one of {', '.join(self.arms)}")
    return self.arms[arm]


_SECTIONS = (
  "name",
  "seeds",
  "num_workers",
  "allow_missing_controls",
  "corpora",
  "tokenizer",
  "model",
  "mesh",
  "stages",
  "arms",
  "evals",
  "report",
)


def parse(config: Mapping[str, Any]) -> Experiment:
  """Returns the experiment that `config` (a plain dict) describes.

  Raises:
    UserError: naming the field that is missing, unknown or contradicts another.
  """
  absent = [name for name in _SECTIONS if name not in config]
  if absent:
    raise UserError(
      f"config.{absent[0]} is missing: see configs/cheese_tiny.py for one"
    )
  if config["num_workers"] < 1:
    raise UserError(f"config.num_workers ({config['num_workers']}) must be at least 1")
  stages = {name: _stage(name, value) for name, value in config["stages"].items()}
  arms = {name: tuple(path) for name, path in config["arms"].items()}
  model = origin.parse(config["model"])
  if model.init_from is not None:
    # Refuses unknown fields and values.
    chat_setup.settings(config["tokenizer"], from_run=origin.is_run(model.init_from))
  tree.check(config, stages, arms)
  doses.check(config["corpora"], stages, model.init_from)
  _check_start(model, stages, arms)
  if not config["allow_missing_controls"]:
    tree.check_controls(arms)
  _check_seeds(config["seeds"])
  _check_batches(stages, config["mesh"])
  _check_evals(config)
  asked = asked_lib.parse(config)
  if config["report"]:  # a study may do without, until it asks for one
    report_settings(config)
  _check_analyses(config)
  return Experiment(
    name=config["name"],
    seeds=tuple(config["seeds"]),
    num_workers=config["num_workers"],
    model=model,
    mesh=dict(config["mesh"]),
    tokenizer=dict(config["tokenizer"]),
    stages=stages,
    arms=arms,
    asked=asked,
    specs=dict(config.get("specs") or {}),  # a study of given corpora has none
    evals={name: dict(value) for name, value in config["evals"].items()},
    # Configs of before have none.
    analyses={name: dict(value) for name, value in _analyses(config).items()},
    report=dict(config["report"]),
    run=run_config.parse(config.get("run", {})),  # configs of before have none
    hardware=hardware_lib.parse(config.get("hardware")),  # for `plan`
  )


def _stage(name: str, value: Mapping[str, Any]) -> StageConfig:
  where = f"config.stages.{name}"
  fields = dict(value)
  data = tuple(
    fields_lib.build(DataConfig, dict(part), f"{where}.data[{i}]")
    for i, part in enumerate(fields.pop("data", ()))
  )
  return fields_lib.build(StageConfig, fields | {"name": name, "data": data}, where)


def _check_seeds(seeds) -> None:
  if not seeds or len(set(seeds)) != len(seeds):
    raise UserError(f"config.seeds {tuple(seeds)} must be distinct and at least one")


def eval_config(name: str, value: Mapping[str, Any]) -> Any:
  """Returns the fields of `config.evals.<name>` as its kind has them."""
  return kinds.config_of(name, value)


def _check_evals(config) -> None:
  for name, value in config["evals"].items():
    where = f"config.evals.{name}"
    kind = value.get("type")
    if kind not in KINDS:
      raise UserError(f"{where}.type {kind!r} is not one of {sorted(KINDS)}")
    built = eval_config(name, value)
    corpus = value.get("corpus")
    if corpus is not None and corpus not in config["corpora"]:
      raise UserError(
        f"{where}.corpus is {corpus!r}, config.corpora has {sorted(config['corpora'])}"
      )
    spec = getattr(built, "spec", None)
    if spec is not None and spec not in config.get("specs", {}):
      raise UserError(
        f"{where}.spec is {spec!r}, config.specs has {sorted(config.get('specs', {}))}"
      )
    if KINDS[kind].check is not None:
      KINDS[kind].check(built, where)
    if KINDS[kind].grade is not None and config.get("judge") is None:
      raise UserError(f"{where} needs a grader: set config.judge")
    if "." in name or "/" in name:
      raise UserError(f"{where}: no '.' or '/' in the name of an evaluation")
  for arm in config["arms"]:
    if "/" in arm or arm.startswith("."):
      raise UserError(f"config.arms[{arm!r}]: no '/' in the name of an arm")


def analysis_config(name: str, value: Mapping[str, Any]) -> ReasoningPatternsConfig:
  """Returns the fields of `config.analyses.<name>`."""
  fields = {key: field for key, field in value.items() if key != "type"}
  return fields_lib.build(ReasoningPatternsConfig, fields, f"config.analyses.{name}")


def _analyses(config) -> Mapping[str, Any]:
  return config.get("analyses") or {}


def _check_analyses(config) -> None:
  for name, value in _analyses(config).items():
    where = f"config.analyses.{name}"
    if value.get("type") != "reasoning_patterns":
      raise UserError(f"{where}.type {value.get('type')!r} is not 'reasoning_patterns'")
    reasoning_patterns.check(analysis_config(name, value), where, config["evals"])
    if name in config["evals"] or "." in name or "/" in name:
      raise UserError(
        f"{where}: its name must differ from those of config.evals, without '.' or '/'"
      )
    if config.get("judge") is None:
      raise UserError(f"{where} needs a grader: set config.judge")


def _check_batches(stages, mesh) -> None:
  """Raises a UserError for a batch that the mesh cannot divide, as far as it is
  known.
  """
  sizes = [mesh["data"], mesh["fsdp"]]
  if -1 in sizes:  # known once the devices are; the training loop checks again
    return
  for name, stage in stages.items():
    parts = sizes[0] * sizes[1] * stage.num_microbatches
    if stage.batch_size % parts:
      raise UserError(
        f"config.stages.{name}.batch_size ({stage.batch_size}) must be a multiple of "
        f"num_microbatches ({stage.num_microbatches}) x config.mesh data x fsdp "
        f"({sizes[0]} x {sizes[1]}); use {-(-stage.batch_size // parts) * parts}"
      )


def _check_start(model: ModelSettings, stages, arms) -> None:
  """Raises a UserError for a start that the stages cannot go on from."""
  full = [name for name, stage in stages.items() if stage.adaptation == "full"]
  _check_quantised(model, stages)
  if model.init_from is None and () in arms.values():
    arm = next(arm for arm, path in arms.items() if not path)
    raise UserError(
      f"config.arms[{arm!r}] is empty, but config.model.init_from is None: there is "
      "no model before the first stage"
    )
  limit = model.sizes.get("max_seq_len") if model.init_from is None else None
  for name, stage in stages.items():
    if limit is not None and stage.seq_len > limit:
      raise UserError(
        f"config.stages.{name}.seq_len ({stage.seq_len}) is longer than "
        f"config.model.max_seq_len ({limit}): lower it"
      )
  follows = [name for name in full if stages[name].adapter_use == "continue"]
  if follows and model.adapter_from is not None and model.adapter_use == "continue":
    raise UserError(
      f"config.model.adapter_use is 'continue', but the stage {follows[0]!r} trains "
      "every leaf: a stage with adaptation 'full' cannot follow adapters; set it to "
      "'merge'"
    )
  needs_lora = len(full) < len(stages) and not model.brings_adapter()
  if model.lora is None and needs_lora:
    raise UserError(
      "config.model.lora is None, but a stage has adaptation 'lora': set it"
    )


def _check_quantised(model: ModelSettings, stages) -> None:
  """Raises a UserError for a stage that changes a base of 8 or 4 bits."""
  if model.base_dtype not in quantised.KINDS:
    return
  held = f"but config.model.base_dtype is {model.base_dtype!r}"
  for name, stage in stages.items():
    if stage.adaptation == "full":
      raise UserError(
        f"config.stages.{name}.adaptation is 'full', {held}, and what is quantised is "
        f"never trained: set it to 'lora', or base_dtype to one of {origin.DTYPES}"
      )
    if stage.adapter_use == "merge":
      raise UserError(
        f"config.stages.{name}.adapter_use is 'merge', {held}: rounding the sum again "
        "would lose what the adapters learned; set it to 'continue', or base_dtype to "
        f"one of {origin.DTYPES}"
      )
