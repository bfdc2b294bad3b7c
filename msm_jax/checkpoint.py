"""Checkpoints: Orbax v1 behind one door.

A run directory has `checkpoints/<step>/` with three parts: `params` (the trainable
leaves, all that a later stage or an export needs), `rest` (step and optimizer) and
`meta` (JSON: which model, which stage, and a digest of every leaf). A step counts only
once its commit marker is there (`COMMIT_FILE`); a newest step that cannot be read, or
that does not hold what was saved (`training/integrity.py`), is left behind with a loud
message and the one before it is used.

Of a workdir on a bucket the checkpoints lie there alone: every host writes its part of
the leaves to it and reads what it needs (`storage/checkpoint_dirs.py`).
"""

import contextlib
import dataclasses
import json
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from msm_jax import distributed, faults, progress, records
from msm_jax.errors import Stopped, UserError
from msm_jax.models.lora import Params
from msm_jax.storage import checkpoint_dirs
from msm_jax.train_state import TrainState
from msm_jax.training import integrity, sealing

_KEEP = 2
_KEPT = "kept.json"  # in the directory of the run


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A restored tree and what its checkpoint says about itself."""

  step: int
  tree: Any
  meta: dict[str, Any]


class Checkpointer:
  """Saves and restores the states of one run; `read_only` changes nothing on disk.

  The newest steps are kept, and those in `keep`, of whichever start of the run.
  """

  def __init__(
    self,
    run_dir: pathlib.Path,
    *,
    read_only: bool = False,
    keep: Collection[int] = (),
  ):
    self.directory = checkpoint_dirs.of(run_dir)
    self._is_remote = checkpoint_dirs.is_remote(self.directory)
    self._read_only = read_only
    if read_only and not self.directory.exists():
      raise UserError(f"{run_dir} has no checkpoint: run `train` for it first")
    if not read_only:
      self._say_half_written()
      keep = _kept(pathlib.Path(run_dir) / _KEPT, keep)
    policies = ocp.training.preservation_policies
    self._saving: int | None = None  # the step that is written in the background
    self._completed = 0
    self._inner = ocp.training.Checkpointer(
      self.directory,
      context=_context(),
      preservation_policy=policies.AnyPreservationPolicy(
        [policies.LatestN(_KEEP), policies.CustomSteps(sorted(keep))]
      ),
      # A reader must not remove what a running writer has under way.
      cleanup_tmp_directories=not read_only,
    )

  def _say_half_written(self) -> None:
    """Names what is about to be removed: a save that was stopped in the middle."""
    found = distributed.is_first() and checkpoint_dirs.half_written(self.directory)
    if found:
      progress.say(
        f"WARNING: {self.directory}: {', '.join(found)} has no "
        f"{checkpoint_dirs.COMMITTED}: a save that was stopped; it is removed"
      )

  def __enter__(self) -> "Checkpointer":
    return self

  def __exit__(self, kind, error, trace) -> None:
    try:
      self._inner.close()  # raises if a save in the background failed
    except Exception as failure:
      if error is None:  # else that one is told
        raise self._told(failure) from failure

  def save(
    self, step: int, state: TrainState, meta: dict[str, Any], *, wait: bool = False
  ) -> None:
    """Saves `state` under `step` (its own), in the background unless `wait`.

    Raises:
      UserError: the state is not finite (nothing is saved then), or this save or the
        one before it failed for want of room on the disk or leave on the bucket.
      Stopped: it took longer than the library waits, or the bucket does not answer.
    """
    try:
      self._complete()
      if step not in self.steps():
        self._start_save(step, state, meta)
      if wait:
        self._complete()
    except UserError:
      raise
    except Exception as error:
      raise self._told(error) from error

  def _start_save(self, step: int, state: TrainState, meta: dict[str, Any]) -> None:
    parts = {
      "params": state.params,
      "rest": {"step": state.step, "opt_state": state.opt_state},
    }
    digests, finite = integrity.inspect([parts[name] for name in sealing.PARTS])
    if not finite:
      raise UserError(
        f"{self.directory.parent}: parameters or optimizer are not finite after step "
        f"{step}; nothing was saved, {self.last_good()}"
      )
    sealed = sealing.sealed({**meta, "step": step}, digests)
    self._inner.save_checkpointables_async(step, parts | {"meta": sealed}, force=True)
    self._saving = step

  def completed(self) -> int:
    """Returns the newest step that was saved here completely, 0 before there is one.

    Raises:
      UserError: a save in the background failed for want of room on the disk.
    """
    if self._saving is not None and not self._inner.is_saving_in_progress():
      try:
        self._complete()
      except Exception as error:
        raise self._told(error) from error
    return self._completed

  def _complete(self) -> None:
    """Waits for the save in the background, if there is one; raises what it raised."""
    if self._saving is not None:
      self._inner.wait()
      self._completed, self._saving = self._saving, None

  def last_good(self) -> str:
    """Returns a phrase about the newest checkpoint that is complete, when one that is
    being written is.
    """
    with contextlib.suppress(Exception):  # then the one before it is the last
      self._complete()
    steps = [step for step in self.steps() if step != self._saving]
    if not steps:
      return "there is no checkpoint yet"
    return (
      f"the last good checkpoint is step {steps[0]} ({self.directory / str(steps[0])})"
    )

  def _told(self, error: Exception) -> Exception:
    """Returns an error of a save for people, where the disk, the bucket or a clock is
    to blame.
    """
    silent = self._is_remote and faults.no_answer(error)
    reason = faults.of_disk(error)
    if reason is None and self._is_remote:
      reason = faults.no_leave(error)
    if reason is None and not silent and not isinstance(error, TimeoutError):
      return error
    step, self._saving = self._saving, None
    if silent:  # nor would it now
      return Stopped(
        f"{self.directory}: the checkpoint of step {step} could not be written "
        f"({silent}); run again to go on"
      )
    self._inner.reload()
    if reason is None:  # by a clock that may have been set meanwhile
      return Stopped(
        f"{self.directory}: the checkpoint of step {step} was not written in time, "
        f"{self.last_good()}; run again to go on"
      )
    return UserError(
      f"{self.directory}: the checkpoint of step {step} could not be written "
      f"({reason}), {self.last_good()}: make room there or mend its permissions, then "
      "run again to go on"
    )

  def steps(self) -> list[int]:
    """Returns the saved steps, newest first."""
    return sorted((saved.step for saved in self._inner.checkpoints), reverse=True)

  def restore(self, state: TrainState, meta: dict[str, Any]) -> TrainState | None:
    """Returns the newest state that can be read, laid out as `state` is; None if none.

    `state` may be abstract.

    Raises:
      UserError: a checkpoint is of another model or stage than `meta` says, or every
        one is damaged.
    """
    abstract = jax.tree.map(_abstract, state)
    parts = {
      "params": abstract.params,
      "rest": {"step": abstract.step, "opt_state": abstract.opt_state},
    }
    loaded = self._load(parts, meta)
    if loaded is None:
      return None
    rest = loaded.tree["rest"]
    return TrainState(rest["step"], loaded.tree["params"], rest["opt_state"])

  def restore_params(
    self, abstract: Params, meta: dict[str, Any], step: int | None = None
  ) -> Loaded | None:
    """Returns the parameters alone, of `step` or of the newest that can be read."""
    loaded = self._load({"params": abstract}, meta, step)
    if loaded is None:
      return None
    return dataclasses.replace(loaded, tree=loaded.tree["params"])

  def read_meta(self, step: int) -> dict[str, Any]:
    """Returns what the checkpoint of `step` says about itself."""
    self._check_step(step)
    return self._read_sealed(step)[0]

  def _read_sealed(self, step: int) -> tuple[dict[str, Any], str | None]:
    """Returns (what a checkpoint says about itself, the digests of its leaves)."""
    return sealing.opened(self._read(step, {"meta": None})["meta"])

  def _read(self, step: int, parts: dict[str, Any]) -> dict[str, Any]:
    """Returns parts of a step; each process reads for itself.

    The library would wait for all processes at its end, and so for ever (with one that
    waits in `exchange`) when one of them alone fails to read.
    """
    with _context(alone=True):
      return ocp.load_checkpointables(self.directory / str(step), parts)

  def _check_step(self, step: int) -> None:
    steps = self.steps()
    if step not in steps:
      raise UserError(f"{self.directory} has no step {step}: it has {sorted(steps)}")

  def _put_away(self, damaged: Mapping[int, str]) -> None:
    """Moves damaged steps out of the way, so that they can be saved again."""
    if self._read_only or not damaged:
      return
    with distributed.together():  # nobody looks again before they are gone
      for step, reason in damaged.items() if distributed.is_first() else ():
        checkpoint_dirs.put_away(self.directory, step, reason)
    self._inner.reload()

  def _load(
    self, parts: dict[str, Any], meta: dict[str, Any], step: int | None = None
  ) -> Loaded | None:
    steps = self._agreed_steps()
    if step is not None:
      self._check_step(step)
      steps = [step]
    damaged: dict[int, str] = {}
    for candidate in steps:
      loaded, digests, problem = self._try(candidate, parts, meta)
      problem = next(filter(None, distributed.exchange(problem)), "")
      if problem.startswith(faults.NO_ANSWER):  # says nothing about the step
        raise Stopped(
          f"{self.directory / str(candidate)}: {problem}; run again to go on"
        )
      # A digest is the work of all processes, so it comes after they agree.
      problem = problem or sealing.wrong_digests(loaded.tree, digests)
      if not problem:
        self._put_away(damaged)
        return loaded
      if step is not None:  # no other will do
        raise UserError(
          f"{self.directory}: step {step} is damaged ({problem}); restore it from a "
          f"copy; there are steps {sorted(self.steps())}"
        )
      progress.say(
        f"WARNING: {self.directory / str(candidate)} is damaged ({problem}); "
        "falling back to the step before it"
      )
      damaged[candidate] = problem
    if steps:
      raise UserError(
        f"{self.directory}: none of the steps {steps} can be read (see above); if the "
        f"disk is sound, delete {self.directory.parent} to train this stage again"
      )
    return None

  def _agreed_steps(self) -> list[int]:
    """Returns the saved steps as process 0 sees them, newest first."""
    return json.loads(distributed.told_by_first(json.dumps(self.steps())))

  def _try(
    self, step: int, parts: dict[str, Any], meta: dict[str, Any]
  ) -> tuple[Loaded | None, str | None, str]:
    """Returns (the step, its digests, "") or (None, None, what is wrong with it)."""
    try:
      found, digests = self._read_sealed(step)
      sealing.check_meta(self.directory / str(step), found, meta)
      tree = self._read(step, parts)
      return Loaded(step, tree, found), digests, ""
    except (UserError, MemoryError):
      raise
    except Exception as error:  # the library's errors have no common base
      if faults.is_out_of_memory(error):
        raise
      silent = self._is_remote and faults.no_answer(error)
      reason = f"{type(error.__cause__ or error).__name__}: {_first_line(error)}"
      return None, None, silent or reason


def _kept(path: pathlib.Path, keep: Collection[int]) -> set[int]:
  """Returns and notes what is to be kept, by this start of the run or one before."""
  noted = []
  if distributed.is_first() and path.exists():
    noted = records.read_json(path)["steps"]
  noted = json.loads(distributed.told_by_first(json.dumps(noted)))
  steps = {*noted, *keep}
  if len(steps) > len(noted) and distributed.is_first():
    records.write_json(path, {"steps": sorted(steps)})
  return steps


def _context(*, alone: bool = False) -> ocp.Context:
  """Returns the library's settings, for all processes or for this one `alone`."""
  context = ocp.Context()
  if alone and distributed.num_processes() > 1:
    number = distributed.process_index()
    context.multiprocessing.primary_host = number
    context.multiprocessing.active_processes = {number}
    context.multiprocessing.barrier_sync_key_prefix = f"process-{number}"
  context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
  # Trained numbers shrink by 7 %, for five times the time on the cores that feed and
  # run the updates meanwhile.
  context.array.saving.use_compression = False
  # Replicas write a leaf together, each its slice; every shape of a slice is a program
  # to compile at the first save, more time than a small leaf takes to be written.
  context.array.saving.min_slice_bytes_for_replica_parallel = 2**20
  return context


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _first_line(error: Exception) -> str:
  return str(error.__cause__ or error).split("\n", 1)[0][:200]
