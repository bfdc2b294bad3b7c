"""A run and what is its own while it is trained: rows, files, a book of time.

Several of them may be one program (`population.py`); what lies here is what each of
them has to itself, as if it were alone.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from msm_jax import distributed, input_pipeline, metrics, optim, progress, train
from msm_jax.checkpoint import Checkpointer
from msm_jax.errors import UserError
from msm_jax.input_pipeline import RowSource
from msm_jax.models import lora
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.train import Step, TrainConfig
from msm_jax.train_state import TrainState
from msm_jax.training import trackers
from msm_jax.training.goodput import Goodput
from msm_jax.training.run_config import RunConfig

_OTHERS = (
  "; the other runs of its program ({}) go on by --config.run.population=1 with their "
  "--seed and --arm"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One run of a stage: what it is, where it lies, how it goes.

  `meta` is what makes this run this run; a checkpoint that says otherwise is refused.
  `label` is for people.
  """

  config: TrainConfig
  cfg: ModelConfig  # adapters included
  mesh: Mesh
  run_dir: pathlib.Path
  meta: dict[str, Any]
  label: str
  project: str = "msm-jax"
  settings: RunConfig = dataclasses.field(default_factory=RunConfig)


@dataclasses.dataclass(frozen=True)
class Member:
  """A run that is trained together with others.

  Attributes:
    job: the run; config, model, mesh and settings are the same in all of them.
    leaves: shapes and dtypes of what is trained.
    first: reads the leaves to start from; called where there is no checkpoint to go on
      from. What it returns is not changed, nor kept.
    source: exactly `num_train_steps * batch_size` rows, in order.
    carried: reads the optimizer state whose moments it begins with; None: with zeros.
  """

  job: Job
  leaves: Params
  first: Callable[[], Params]
  source: RowSource
  carried: Callable[[], Any] | None = None

  def check(self) -> None:
    """Raises a UserError for sizes that do not divide and trackers that are absent."""
    config = self.job.config
    train.check(config, self.job.mesh)
    trackers.check(self.job.settings.trackers)
    expected_rows = config.num_train_steps * config.batch_size
    assert len(self.source) == expected_rows, (len(self.source), expected_rows)

  def checkpointer(self) -> Checkpointer:
    """Returns what saves and restores its states."""
    return Checkpointer(self.job.run_dir, keep=self.job.config.checkpoint_at)


class Run:
  """What is a run's own: its rows, its checkpoints, its metrics, its book of time."""

  def __init__(self, member: Member, checkpointer: Checkpointer):
    self.job, self.source, self._member = member.job, member.source, member
    self.checkpointer = checkpointer
    self.goodput = Goodput(self.job.run_dir)
    self.first_step = 0

  def begin(self, step: Step) -> TrainState:
    """Returns the state to go on from, or the first one."""
    state = self._restore(step) or self._first(step)
    self.first_step = int(state.step)
    return state

  def _first(self, step: Step) -> TrainState:
    carried = self._member.carried
    if carried is None:
      return step.init(self._member.first())
    before = carried()  # reads a whole state, and must find room for it
    state = step.init(self._member.first())
    opt_state = optim.carried(state.opt_state, before)
    return dataclasses.replace(state, opt_state=opt_state)

  def _restore(self, step: Step) -> TrainState | None:
    """Returns the state to go on from; None only where nothing was ever saved."""
    job, checkpointer = self.job, self.checkpointer
    state = checkpointer.restore(step.state, job.meta)
    saved = int(distributed.told_by_first(str(self.goodput.saved_step)))
    if state is not None:
      if int(state.step) < saved:
        progress.say(
          f"WARNING: {job.label}: the checkpoint of step {saved} is gone or damaged; "
          f"going on from step {int(state.step)}"
        )
      return state
    if saved:
      raise UserError(
        f"{checkpointer.directory} has no checkpoint, but one of step {saved} was "
        f"saved: restore it, or delete {job.run_dir} to train this stage from its "
        "beginning"
      )
    if (job.run_dir / "metrics.jsonl").exists():
      progress.say(f"{job.label}: stopped before its first checkpoint; begins again")
    return None

  def batches(self, ends: Sequence[int]) -> Iterator[Mapping[str, jax.Array]]:
    """Yields the rows of the calls that end with `ends`."""
    return input_pipeline.batches(
      self.source,
      batch_size=self.job.config.batch_size,
      first_step=self.first_step,
      ends=ends,
      num_microbatches=self.job.config.num_microbatches,
      mesh=self.job.mesh,
    )

  def writer(self, num_together: int) -> metrics.Writer:
    """Returns what writes the metrics, of a run in a program of so many."""
    job, config = self.job, self.job.config
    leaves = self._member.leaves
    flops = job.cfg.flops_per_token(
      config.seq_len,
      train_base=not lora.split(leaves)[0],
      freeze=[name for name in ("embed", "lm_head") if name not in leaves],
    )
    about = trackers.About(
      job.run_dir,
      name=job.label,
      project=job.project,
      config=job.meta,
      first_step=self.first_step,
    )
    names = job.settings.trackers if distributed.is_first() else ()
    return metrics.Writer(
      job.run_dir,
      first_step=self.first_step,
      log_every_steps=config.log_every_steps,
      shape=metrics.Shape(
        batch_size=config.batch_size,
        seq_len=config.seq_len,
        # Tokens are the run's own; how busy the devices are is the program's.
        flops_per_token=flops * num_together,
      ),
      goodput=self.goodput,
      trackers=trackers.start(names, about),
      blame=functools.partial(self._blame, num_together=num_together),
    )

  def note_saved(self) -> None:
    """Writes down which checkpoint is complete."""
    self.goodput.saved(self.checkpointer.completed())

  def _blame(self, step: int, *, num_together: int) -> str:
    """Returns which rows made a step, how to look at them, and what is left."""
    size = self.job.config.batch_size
    parts = self.source.where((step - 1) * size, step * size)
    rows = "; ".join(
      f"{directory.name} {', '.join(map(str, sorted(numbers)))}"
      for directory, numbers in parts.items()
    )
    directory, numbers = next(iter(parts.items()))
    others = "" if num_together == 1 else _OTHERS.format(num_together - 1)
    return (
      f"its rows are {rows} (look: python launch.py show {directory} "
      f"--row={min(numbers)}); {self.checkpointer.last_good()}{others}"
    )
