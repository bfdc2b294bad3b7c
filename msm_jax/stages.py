"""A stage as frozen, checked values: what is trained, on what, for how long."""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import fields as fields_lib
from msm_jax import mixture, origin, packing
from msm_jax.errors import UserError
from msm_jax.mixture import DataConfig
from msm_jax.models import attention, lora, remat
from msm_jax.models.lora import Params
from msm_jax.optim import OptimConfig

ADAPTATIONS = ("full", "lora")
OPTIMIZER_STATES = ("reset", "carry")
FREEZABLE = ("embed", "lm_head")  # tied embeddings have no lm_head of their own


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageConfig:
  """One stage: what it trains on and how.

  `adapter_use` is what becomes of adapters that were trained before it, if any:
  'continue' trains them on, 'merge' adds them to the base. `optimizer_state` is what
  becomes of the moments of the stage before it: 'reset' begins at zero, 'carry' takes
  them and the number of updates behind them; schedules begin anew either way.
  """

  name: str
  data: tuple[DataConfig, ...]
  adaptation: str
  num_train_steps: int | None
  num_epochs: float | None
  batch_size: int
  seq_len: int
  long_documents: str
  min_steps: int
  num_microbatches: int
  steps_per_call: int
  remat: str
  loss_chunk_len: int | None
  checkpoint_every_s: float | None
  checkpoint_every_steps: int | None
  log_every_steps: int
  optimizer: Mapping[str, Any]
  # Workdirs from before these were fields begin other studies.
  packing: str = "best_fit"
  order: str = "mixed"
  attention: str = attention.AUTO
  scan_layers: bool = True
  checkpoint_at: tuple[int | str, ...] = ()
  freeze: tuple[str, ...] = ()  # with adaptation 'full': modules that stay as they are
  adapter_use: str = "continue"
  optimizer_state: str = "reset"

  def __post_init__(self):
    where = f"config.stages.{self.name}"
    if self.adaptation not in ADAPTATIONS:
      raise UserError(f"{where}.adaptation {self.adaptation!r} is not in {ADAPTATIONS}")
    mixture.check(self.data, self.num_train_steps, self.num_epochs, where)
    if isinstance(self.remat, bool):
      raise UserError(
        f"{where}.remat is {self.remat}, but it is a word now: write "
        f"{'full' if self.remat else 'none'!r} (or one of {remat.POLICIES})"
      )
    for name, allowed in _CHOICES.items():
      if getattr(self, name) not in allowed:
        raise UserError(
          f"{where}.{name} {getattr(self, name)!r} is not one of {allowed}"
        )
    self._check_freeze()
    # The order says nothing, and must not make another run of it.
    object.__setattr__(self, "freeze", tuple(sorted(set(self.freeze))))
    for name in _COUNTS:
      value = getattr(self, name)
      if value is not None and value < 1:
        raise UserError(f"{where}.{name} ({value}) must be at least 1")
    # Refuses unknown fields and values, as far as the length is known.
    self.optim(self.num_train_steps or 1_000_000)
    self.kept_steps(self.num_train_steps or 1_000_000)

  def _check_freeze(self) -> None:
    where, names = f"config.stages.{self.name}.freeze", tuple(self.freeze)
    unknown = sorted(set(names) - set(FREEZABLE))
    if unknown or isinstance(self.freeze, str):
      raise UserError(f"{where} {self.freeze!r}: it takes a tuple of {FREEZABLE}")
    if names and self.adaptation == "lora":
      raise UserError(
        f"{where} is {names}, but a stage with adaptation 'lora' trains nothing but "
        "adapters: set it to (), or adaptation to 'full'"
      )
    multiplier = self.optimizer.get("embed_lr_multiplier", 1.0)
    if "embed" in names and multiplier != 1.0:
      raise UserError(
        f"config.stages.{self.name}.optimizer.embed_lr_multiplier is {multiplier}, but "
        "freeze has 'embed': set it to 1.0, or take 'embed' out of freeze"
      )

  def split(self, params: Params) -> tuple[Params, Params]:
    """Returns (the leaves that are trained, those that stay as they are)."""
    if self.adaptation == "lora":
      return lora.split(params)
    return lora.partition(params, lambda path: path[0] not in self.freeze)

  def adapts(self) -> dict[str, Any]:
    """Returns how it adapts the model: `adaptation`, and what is not the default."""
    found = {"freeze": list(self.freeze), "adapter_use": self.adapter_use}
    found["optimizer_state"] = self.optimizer_state
    default = {"freeze": [], "adapter_use": "continue", "optimizer_state": "reset"}
    other = {name: value for name, value in found.items() if value != default[name]}
    return {"adaptation": self.adaptation, **other}

  def optim(self, num_train_steps: int) -> OptimConfig:
    """Returns the optimizer; `warmup_fraction` becomes steps of this run.

    Raises:
      UserError: the warm-up is not shorter than the run.
    """
    where = f"config.stages.{self.name}.optimizer"
    fields = dict(self.optimizer)
    if "warmup_steps" in fields and "warmup_fraction" in fields:
      raise UserError(
        f"{where} has warmup_steps ({fields['warmup_steps']}) and warmup_fraction "
        f"({fields['warmup_fraction']}): leave one of them out"
      )
    given = "warmup_steps" if "warmup_steps" in fields else "warmup_fraction"
    value = fields.get(given, 0.0)
    fraction = fields.pop("warmup_fraction", 0.0)
    fields.setdefault("warmup_steps", round(fraction * num_train_steps))
    if not 0 <= fields["warmup_steps"] < num_train_steps:
      raise UserError(
        f"{where}.{given} ({value}): a warm-up of {fields['warmup_steps']} steps must "
        f"be at least 0 and below the {num_train_steps} steps of the stage, or the "
        f"learning rate never reaches its value: lower {given}, or train longer"
      )
    return fields_lib.build(OptimConfig, fields, where)

  def kept_steps(self, num_train_steps: int) -> tuple[int, ...]:
    """Returns the steps of `checkpoint_at`; 'log2' in it stands for 1, 2, 4, 8, ...

    Raises:
      UserError: one is no step of the run.
    """
    steps: set[int] = set()
    at = self.checkpoint_at
    if isinstance(at, int):
      raise UserError(
        f"config.stages.{self.name}.checkpoint_at is {at}: it takes a tuple, write "
        f"({at},)"
      )
    for step in (at,) if isinstance(at, str) else at:
      if step == "log2":
        steps |= {2**n for n in range(num_train_steps.bit_length())}
      elif not isinstance(step, int) or not 0 < step <= num_train_steps:
        raise UserError(
          f"config.stages.{self.name}.checkpoint_at has {step!r}: it takes 'log2' and "
          f"steps from 1 to {num_train_steps}"
        )
      else:
        steps.add(step)
    return tuple(sorted(step for step in steps if step <= num_train_steps))


def check_path(path: Sequence[StageConfig], where: str) -> None:
  """Raises a UserError for stages that cannot follow one another.

  `where` names the path in messages.
  """
  names = tuple(stage.name for stage in path)
  for before, stage in itertools.pairwise(path):
    if stage.optimizer_state == "carry":
      _check_carry(before, stage)
    kinds = before.adaptation, stage.adaptation
    if kinds == ("lora", "full") and stage.adapter_use != "merge":
      raise UserError(
        f"{where} {names}: a stage with adaptation 'full' cannot follow one with "
        f"'lora' unless it merges: set config.stages.{stage.name}.adapter_use to "
        "'merge'"
      )


def _check_carry(before: StageConfig, stage: StageConfig) -> None:
  where = f"config.stages.{stage.name}.optimizer_state is 'carry'"
  way_out = "set it to 'reset'"
  for name in ("adaptation", "freeze"):
    ours, theirs = getattr(stage, name), getattr(before, name)
    if ours != theirs:
      raise UserError(
        f"{where}, but it trains other leaves than {before.name!r} before it ({name} "
        f"is {ours!r}, there {theirs!r}): {way_out}"
      )
  if stage.adaptation == "lora" and stage.adapter_use == "merge":
    raise UserError(
      f"{where}, but adapter_use is 'merge': the moments are those of adapters that "
      f"are gone; {way_out}"
    )
  ours, theirs = stage.optim(1_000_000), before.optim(1_000_000)
  for name in ("b1", "b2", "moments_dtype"):
    if getattr(ours, name) != getattr(theirs, name):
      raise UserError(
        f"{where}, but optimizer.{name} is {getattr(ours, name)!r} and "
        f"{getattr(theirs, name)!r} in {before.name!r} before it: {way_out}"
      )


_CHOICES = {
  "long_documents": packing.LONG_DOCUMENTS,
  "packing": packing.PACKINGS,
  "order": packing.ORDERS,
  "attention": (attention.AUTO, *attention.BACKENDS),
  "remat": remat.POLICIES,
  "adapter_use": origin.ADAPTER_USES,
  "optimizer_state": OPTIMIZER_STATES,
}
_COUNTS = (
  "num_train_steps",
  "batch_size",
  "seq_len",
  "num_microbatches",
  "steps_per_call",
  "log_every_steps",
  "loss_chunk_len",
  "checkpoint_every_steps",
)
