"""The loop of a stage: rows in, updates, metrics and checkpoints out.

The loop knows nothing of specs or arms. It takes parameters and rows and gives
parameters back; what is trained, on what and from where is its caller's business
(`study.py`). Its order is what makes a run exact: the update, its metrics, the save,
and only then the next batch, so that state, loader and metrics describe one moment.

Runs of the same shapes may go through it together (`population.py`): one program, one
step, and for each run the files that it would have had alone (`member.py`).
"""

import contextlib
import time
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np

from msm_jax import distributed, progress, sharding, train_state
from msm_jax import metrics as metrics_lib
from msm_jax import train as train_lib
from msm_jax.errors import Stopped
from msm_jax.input_pipeline import RowSource
from msm_jax.interrupt import StopRequest
from msm_jax.models.lora import Params
from msm_jax.train import Step
from msm_jax.train_state import TrainState
from msm_jax.training import levers
from msm_jax.training.ballot import Ballot
from msm_jax.training.member import Job, Member, Run
from msm_jax.training.profiling import Profile
from msm_jax.training.watchdog import Watchdog

_SAID: set[tuple[str, ...]] = set()  # once per process, not per run


def train(job: Job, *, params: Params, frozen: Params, source: RowSource) -> Params:
  """Trains one run to the end of its stage and returns the trained leaves.

  See `train_together`.
  """
  return train_together([Member(job, params, lambda: params, source)], frozen)[0]


def train_together(members: Sequence[Member], frozen: Params) -> list[Params]:
  """Trains runs to the end of the stage, as one program; returns the trained leaves.

  Each goes on from the newest checkpoint in its `job.run_dir` if there is one. Those
  that are not at the same step are trained apart from the others.

  Args:
    members: the runs.
    frozen: all other leaves, the same for all.

  Raises:
    Stopped: on Ctrl-C or SIGTERM in any process, after the states were saved.
    UserError: for what a person can mend: sizes, memory, disk, figures that are not
      finite, checkpoints of another run or all damaged.
  """
  for member in members:
    member.check()
  job = members[0].job
  watchdog = Watchdog(
    job.run_dir,
    step_deadline_s=job.settings.step_deadline_s,
    process_deadline_s=job.settings.process_deadline_s,
  )
  with (
    watchdog,
    jax.set_mesh(job.mesh),
    levers.memory_explained(
      _label(members), job.config, job.cfg, job.mesh, len(members)
    ),
    contextlib.ExitStack() as files,
    watchdog.guard(),
  ):
    step = train_lib.make_step(
      job.config, job.cfg, members[0].leaves, job.mesh, len(members)
    )
    runs = [
      Run(member, files.enter_context(member.checkpointer())) for member in members
    ]
    _say_undivided(job)
    loop = _Loop(_label(members), runs, step, watchdog)
    with loop.lost("restore"):
      frozen = train_state.place(frozen, job.cfg, job.mesh)
      state = step.population.join(loop.begin())
    steps = [run.first_step for run in runs]
    if len(set(steps)) == 1:
      return step.population.params(loop.run(state, frozen).params)
  del state
  return _train_apart(members, steps, frozen)


def _train_apart(
  members: Sequence[Member], steps: Sequence[int], frozen: Params
) -> list[Params]:
  """Trains runs that are not at the same step, those at the same together."""
  found = {member.job.label: step for member, step in zip(members, steps, strict=True)}
  progress.say(
    f"note: {', '.join(f'{label} is at step {at}' for label, at in found.items())}: "
    "runs are one program from the same step on only; trained apart"
  )
  trained: dict[int, Params] = {}
  for step in dict.fromkeys(steps):
    places = [place for place, at in enumerate(steps) if at == step]
    done = train_together([members[place] for place in places], frozen)
    trained |= zip(places, done, strict=True)
  return [trained[place] for place in range(len(members))]


def _label(members: Sequence[Member]) -> str:
  """Returns the name of all of them, for people."""
  label = members[0].job.label
  return label if len(members) == 1 else f"{label} and {len(members) - 1} more"


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
  """The moving parts between two updates of the runs of one program."""

  def __init__(self, label: str, runs: Sequence[Run], step: Step, watchdog: Watchdog):
    self.label, self.runs, self.step, self.watchdog = label, runs, step, watchdog
    self.job = runs[0].job  # config, mesh and settings are those of all
    self.ballot = Ballot(self.job.mesh)
    self.saved_at = time.monotonic()
    self.saved_call = -1  # of this process's calls

  def begin(self) -> Iterator[TrainState]:
    """Yields the state that each run goes on from."""
    for run in self.runs:
      yield run.begin(self.step)
      self.watchdog.beat()

  def run(self, state: TrainState, frozen: Params) -> TrainState:
    """Makes the updates that are left and returns the last state, saved."""
    config, job = self.job.config, self.job
    at = self.runs[0].first_step
    for run in self.runs:
      run.goodput.begin(at)
    ends = train_lib.call_ends(config, at)
    sources = [run.batches(ends) for run in self.runs]
    tokens = len(self.runs) * config.batch_size * config.seq_len
    bar = progress.Progress(self.label, config.num_train_steps, "step", at, tokens)
    profile = Profile(job.settings.profile, job.run_dir / "profile", at)
    with self._writers() as writers, bar, profile, StopRequest() as stop:
      metrics = None
      for number, end in enumerate(ends):
        with self.lost("data"):
          batches = [next(source) for source in sources]
        profile.before(end, metrics)
        # The first call compiles before it returns.
        with self._compiling(number == 0, end - at):
          state, metrics = self.step.update(state, frozen, batches)
        for writer, figures in zip(writers, metrics, strict=True):
          writer.write(end, figures)
        bar.advance(end - at, loss=_shown(writer.last_loss for writer in writers))
        self._note(end)
        before, at = at, end
        stops, due = self.ballot.cast(stop.requested, self._is_due())
        # What was wished in the call of a save was wished before it.
        due = due and number > self.saved_call + 1
        if at < config.num_train_steps and (stops or due or self._is_set(before, at)):
          self._save(at, state, writers, wait=stops)
          self.saved_call = number
          if stops:
            raise self._stopped(at)
      profile.end(metrics)
      for source in sources:
        source.close()
      made = set(np.asarray(state.step).ravel().tolist())
      assert made == {at} == {config.num_train_steps}, (at, made)
      self._save(at, state, writers, wait=True)
      if any(self.ballot.settle(stop.requested)):
        raise self._stopped(at)
    return state

  def _stopped(self, at: int) -> Stopped:
    return Stopped(f"{self.label}: stopped at step {at}; run again to go on")

  @contextlib.contextmanager
  def lost(self, kind: str) -> Iterator[None]:
    """Counts the time in its block as lost, in the book of every run."""
    with contextlib.ExitStack() as books:
      for run in self.runs:
        books.enter_context(run.goodput.lost(kind))
      yield

  @contextlib.contextmanager
  def _writers(self) -> Iterator[list[metrics_lib.Writer]]:
    with contextlib.ExitStack() as files:
      yield [files.enter_context(run.writer(len(self.runs))) for run in self.runs]

  @contextlib.contextmanager
  def _compiling(self, first: bool, num_steps: int) -> Iterator[None]:
    if not first:
      yield
      return
    started = time.monotonic()
    with self.lost("compile"):
      yield
    seconds = time.monotonic() - started
    if seconds > 5:
      progress.say(f"{self.label}: compiled in {seconds:.1f} s")

  def _note(self, end: int) -> None:
    """Takes note of an update that was dispatched."""
    self.watchdog.beat()
    for run in self.runs:
      run.goodput.advance(end)
      run.note_saved()
      run.goodput.write(only_if_old=True)

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

  def _save(
    self,
    at: int,
    state: TrainState,
    writers: Sequence[metrics_lib.Writer],
    *,
    wait: bool,
  ) -> None:
    # A state whose figures are not finite must not replace a good one, and a
    # checkpoint is never ahead of the metrics.
    for writer in writers:
      writer.flush(to_disk=True)
    with self.lost("save"):
      for place, run in enumerate(self.runs):
        part = self.step.population.part(state, place)
        run.checkpointer.save(at, part, run.job.meta, wait=wait)
    self.saved_at = time.monotonic()
    self.watchdog.beat()
    for run in self.runs:
      run.note_saved()
      if wait:
        run.goodput.write()


def _shown(losses: Iterable[float | None]) -> str:
  """Returns the losses of all runs for people, the least and the greatest."""
  found = sorted(loss for loss in losses if loss is not None)
  if not found:
    return "-"
  low, high = f"{found[0]:.4f}", f"{found[-1]:.4f}"
  return low if len(found) == 1 else f"{low} to {high}"
