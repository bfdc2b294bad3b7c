"""The loop of a stage: rows in, updates, metrics and checkpoints out.

The loop knows nothing of specs or arms. It takes parameters and rows and gives
parameters back; what is trained, on what and from where is its caller's business
(`study.py`). Its order is what makes a run exact: the update, its metrics, the save,
and only then the next batch, so that state, loader and metrics describe one moment.
"""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from msm_jax import (
  distributed,
  input_pipeline,
  levers,
  optim,
  progress,
  sharding,
  trackers,
  train_state,
)
from msm_jax import metrics as metrics_lib
from msm_jax import train as train_lib
from msm_jax.ballot import Ballot
from msm_jax.checkpoint import Checkpointer
from msm_jax.errors import Stopped, UserError
from msm_jax.goodput import Goodput
from msm_jax.input_pipeline import RowSource
from msm_jax.interrupt import StopRequest
from msm_jax.models import lora
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.profiling import Profile
from msm_jax.run_config import RunConfig
from msm_jax.train import Step, TrainConfig
from msm_jax.train_state import TrainState
from msm_jax.watchdog import Watchdog

_SAID: set[tuple[str, ...]] = set()  # once per process, not per run


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


def train(
  job: Job,
  *,
  params: Params,
  frozen: Params,
  source: RowSource,
  carried: Callable[[], Any] | None = None,
) -> Params:
  """Trains to the end of the stage and returns the trained leaves.

  Goes on from the newest checkpoint in `job.run_dir` if there is one.

  Args:
    job: the run.
    params: trainable leaves to start from; not changed.
    frozen: all other leaves.
    source: exactly `num_train_steps * batch_size` rows, in order.
    carried: reads the optimizer state whose moments it begins with; None: with zeros.

  Raises:
    Stopped: on Ctrl-C or SIGTERM in any process, after the state was saved.
    UserError: for what a person can mend: sizes, memory, disk, figures that are not
      finite, checkpoints of another run or all damaged.
  """
  config, mesh = job.config, job.mesh
  train_lib.check(config, mesh)
  trackers.check(job.settings.trackers)
  expected_rows = config.num_train_steps * config.batch_size
  assert len(source) == expected_rows, (len(source), expected_rows)
  watchdog = Watchdog(
    job.run_dir,
    step_deadline_s=job.settings.step_deadline_s,
    process_deadline_s=job.settings.process_deadline_s,
  )
  with (
    watchdog,
    jax.set_mesh(mesh),
    levers.memory_explained(job.label, config, job.cfg, mesh),
    Checkpointer(job.run_dir, keep=config.checkpoint_at) as checkpointer,
    watchdog.guard(),
  ):
    step = train_lib.make_step(config, job.cfg, params, mesh)
    goodput = Goodput(job.run_dir)
    _say_undivided(job)
    with goodput.lost("restore"):
      frozen = train_state.place(frozen, job.cfg, mesh)
      state = _restore(checkpointer, step, job, goodput)
      state = state or _first(step, params, carried)
    watchdog.beat()
    loop = _Loop(job, step, source, checkpointer, goodput, watchdog)
    return loop.run(state, frozen).params


def _first(step: Step, params: Params, carried: Callable[[], Any] | None) -> TrainState:
  state = step.init(params)
  if carried is None:
    return state
  return dataclasses.replace(state, opt_state=optim.carried(state.opt_state, carried()))


def _restore(
  checkpointer: Checkpointer, step: Step, job: Job, goodput: Goodput
) -> TrainState | None:
  """Returns the state to go on from; None only where nothing was ever saved."""
  state = checkpointer.restore(step.state, job.meta)
  saved = goodput.saved_step
  if state is not None:
    if int(state.step) < saved:
      progress.say(
        f"WARNING: {job.label}: the checkpoint of step {saved} is gone or damaged; "
        f"going on from step {int(state.step)}"
      )
    return state
  if saved:
    raise UserError(
      f"{checkpointer.directory} has no checkpoint, but one of step {saved} was saved: "
      f"restore it, or delete {job.run_dir} to train this stage from its beginning"
    )
  if (job.run_dir / "metrics.jsonl").exists():
    progress.say(f"{job.label}: stopped before its first checkpoint; begins again")
  return None


def _say_undivided(job: Job) -> None:
  cfg = job.cfg
  sizes = {
    "heads": cfg.num_heads,
    "kv_heads": cfg.num_kv_heads,
    "mlp": cfg.mlp_dim,
    "embed": cfg.embed_dim,
    "vocab": cfg.vocab_size,
  }
  found = tuple(sharding.undivided(sizes, job.mesh))
  if found and found not in _SAID:
    _SAID.add(found)
    progress.say(
      f"note: the mesh does not divide {', '.join(found)}: held whole on every device"
    )


class _Loop:
  """The moving parts of a run between two updates."""

  def __init__(
    self,
    job: Job,
    step: Step,
    source: RowSource,
    checkpointer: Checkpointer,
    goodput: Goodput,
    watchdog: Watchdog,
  ):
    self.job, self.step, self.source = job, step, source
    self.checkpointer, self.goodput, self.watchdog = checkpointer, goodput, watchdog
    self.ballot = Ballot(job.mesh)
    self.saved_at = time.monotonic()
    self.saved_call = -1  # of this process's calls

  def run(self, state: TrainState, frozen: Params) -> TrainState:
    """Makes the updates that are left and returns the last state, saved."""
    config, job = self.job.config, self.job
    at = int(state.step)
    self.goodput.begin(at)
    ends = train_lib.call_ends(config, at)
    batches = input_pipeline.batches(
      self.source,
      batch_size=config.batch_size,
      first_step=at,
      ends=ends,
      num_microbatches=config.num_microbatches,
      mesh=job.mesh,
    )
    bar = progress.Progress(job.label, config.num_train_steps, "step", done=at)
    profile = Profile(job.settings.profile, job.run_dir / "profile", at)
    with self._writer(at, state) as writer, bar, profile, StopRequest() as stop:
      metrics = None
      for number, end in enumerate(ends):
        with self.goodput.lost("data"):
          batch = next(batches)
        profile.before(end, metrics)
        # The first call compiles before it returns.
        with self._compiling(number == 0, end - at):
          state, metrics = self.step.fn(state, frozen, batch)
        writer.write(end, metrics)
        loss = writer.last_loss
        bar.advance(end - at, loss="-" if loss is None else f"{loss:.4f}")
        self._note(end)
        before, at = at, end
        stops, due = self.ballot.cast(stop.requested, self._is_due())
        # What was wished in the call of a save was wished before it.
        due = due and number > self.saved_call + 1
        if at < config.num_train_steps and (stops or due or self._is_set(before, at)):
          # A state whose figures are not finite must not replace a good one, and a
          # checkpoint is never ahead of the metrics.
          writer.flush(to_disk=True)
          self._save(at, state, wait=stops)
          self.saved_call = number
          if stops:
            raise Stopped(f"{job.label}: stopped at step {at}; run again to go on")
    batches.close()
    assert at == config.num_train_steps == int(state.step), (at, int(state.step))
    self._save(at, state, wait=True)
    return state

  def _writer(self, at: int, state: TrainState) -> metrics_lib.Writer:
    job, config = self.job, self.job.config
    flops = job.cfg.flops_per_token(
      config.seq_len, train_base=not lora.split(state.params)[0]
    )
    about = trackers.About(
      job.run_dir,
      name=job.label,
      project=job.project,
      config=job.meta,
      first_step=at,
    )
    names = job.settings.trackers if distributed.is_first() else ()
    return metrics_lib.Writer(
      job.run_dir,
      first_step=at,
      log_every_steps=config.log_every_steps,
      shape=metrics_lib.Shape(
        batch_size=config.batch_size, seq_len=config.seq_len, flops_per_token=flops
      ),
      goodput=self.goodput,
      trackers=trackers.start(names, about),
      blame=self._blame,
    )

  @contextlib.contextmanager
  def _compiling(self, first: bool, num_steps: int) -> Iterator[None]:
    if not first:
      yield
      return
    started = time.monotonic()
    with self.goodput.lost("compile"):
      yield
    seconds = time.monotonic() - started
    if seconds > 5:
      progress.say(f"{self.job.label}: compiled in {seconds:.1f} s")

  def _note(self, end: int) -> None:
    """Takes note of an update that was dispatched."""
    self.watchdog.beat()
    self.goodput.advance(end)
    self.goodput.saved(self.checkpointer.completed())
    self.goodput.write(only_if_old=True)

  def _is_due(self) -> bool:
    """Returns whether this process finds, by its clock, that it is time to save."""
    every = self.job.config.checkpoint_every_s
    first = distributed.is_first()  # one clock is enough
    return first and every is not None and time.monotonic() - self.saved_at >= every

  def _is_set(self, before: int, at: int) -> bool:
    """Returns whether the config asks for a checkpoint of step `at`."""
    every = self.job.config.checkpoint_every_steps
    crossed = every is not None and at // every > before // every
    return crossed or at in self.job.config.checkpoint_at

  def _save(self, at: int, state: TrainState, *, wait: bool) -> None:
    with self.goodput.lost("save"):
      self.checkpointer.save(at, state, self.job.meta, wait=wait)
    self.saved_at = time.monotonic()
    self.watchdog.beat()
    self.goodput.saved(self.checkpointer.completed())
    if wait:
      self.goodput.write()

  def _blame(self, step: int) -> str:
    """Returns which rows made a step, how to look at them, and what is left."""
    size = self.job.config.batch_size
    parts = self.source.where((step - 1) * size, step * size)
    rows = "; ".join(
      f"{directory.name} {', '.join(map(str, sorted(numbers)))}"
      for directory, numbers in parts.items()
    )
    directory, numbers = next(iter(parts.items()))
    return (
      f"its rows are {rows} (look: python launch.py show {directory} "
      f"--row={min(numbers)}); {self.checkpointer.last_good()}"
    )
