"""Checkpoints: Orbax v1 behind one door.

A run directory has `checkpoints/<step>/` with three parts: `params` (the trainable
leaves, all that a later stage or an export needs), `rest` (step and optimizer) and
`meta` (JSON: which model, which stage). A step counts only once its commit marker is
there (`COMMIT_FILE`); a damaged newest step is left behind with a loud message and the
one before it is used.
"""

import dataclasses
import os
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import jax
from orbax.checkpoint import v1 as ocp

from msm_jax import progress
from msm_jax.errors import UserError
from msm_jax.models.lora import Params
from msm_jax.train_state import TrainState

_KEEP = 2


@dataclasses.dataclass(frozen=True)
class Loaded:
  """A restored tree and what its checkpoint says about itself."""

  step: int
  tree: Any
  meta: dict[str, Any]


class Checkpointer:
  """Saves and restores the states of one run; `read_only` changes nothing on disk."""

  def __init__(self, run_dir: pathlib.Path, *, read_only: bool = False):
    self.directory = pathlib.Path(run_dir).absolute() / "checkpoints"
    self._read_only = read_only
    if read_only and not self.directory.exists():
      raise UserError(f"{run_dir} has no checkpoint: run `train` for it first")
    training = ocp.training
    self._inner = training.Checkpointer(
      self.directory,
      context=_context(),
      preservation_policy=training.preservation_policies.LatestN(_KEEP),
      # A reader must not remove what a running writer has under way.
      cleanup_tmp_directories=not read_only,
    )

  def __enter__(self) -> "Checkpointer":
    return self

  def __exit__(self, kind, error, trace) -> None:
    self._inner.close()  # raises if a save in the background failed

  def save(
    self, step: int, state: TrainState, meta: dict[str, Any], *, wait: bool = False
  ) -> None:
    """Saves `state` under `step` (its own), in the background unless `wait`."""
    parts = {
      "params": state.params,
      "rest": {"step": state.step, "opt_state": state.opt_state},
      "meta": {**meta, "step": step},
    }
    if step not in [saved.step for saved in self._inner.checkpoints]:
      self._inner.save_checkpointables_async(step, parts, force=True)
    if wait:
      self._inner.wait()

  def steps(self) -> list[int]:
    """Returns the saved steps, newest first."""
    return sorted((saved.step for saved in self._inner.checkpoints), reverse=True)

  def restore(self, state: TrainState, meta: dict[str, Any]) -> TrainState | None:
    """Returns the newest state that can be read, laid out as `state` is; None if none.

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
    return self._inner.load_checkpointables(step, {"meta": None})["meta"]

  def _check_step(self, step: int) -> None:
    steps = self.steps()
    if step not in steps:
      raise UserError(f"{self.directory} has no step {step}: it has {sorted(steps)}")

  def _put_away(self, damaged: Sequence[int]) -> None:
    """Moves damaged steps out of the way, so that they can be saved again."""
    if self._read_only or not damaged:
      return
    if jax.process_index() == 0:
      for step in damaged:
        target = self.directory.with_name("damaged") / f"{step}-{time.time_ns()}"
        target.parent.mkdir(exist_ok=True)
        os.replace(self.directory / str(step), target)
    self._inner.reload()

  def _load(
    self, parts: dict[str, Any], meta: dict[str, Any], step: int | None = None
  ) -> Loaded | None:
    steps = self.steps()
    if step is not None:
      self._check_step(step)
      steps = [step]
    damaged: list[int] = []
    for candidate in steps:
      try:
        found = self.read_meta(candidate)
        _check_meta(self.directory / str(candidate), found, meta)
        tree = self._inner.load_checkpointables(candidate, parts)
        self._put_away(damaged)
        return Loaded(candidate, tree, found)
      except (UserError, MemoryError):
        raise
      except Exception as error:  # the library's errors have no common base
        progress.say(
          f"WARNING: {self.directory / str(candidate)} is damaged "
          f"({type(error.__cause__ or error).__name__}: {_first_line(error)}); "
          "falling back to the step before it"
        )
        damaged.append(candidate)
    if steps:
      raise UserError(
        f"{self.directory}: none of the steps {steps} can be read (see above); if the "
        "disk is sound, delete the directory to train this stage again"
      )
    return None


def _context() -> ocp.Context:
  context = ocp.Context()
  context.atomicity.mode = ocp.options.AtomicityMode.COMMIT_FILE
  return context


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
  return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _check_meta(
  path: pathlib.Path, found: dict[str, Any], wanted: dict[str, Any]
) -> None:
  for field, value in wanted.items():
    if found.get(field) != value:
      raise UserError(
        f"{path} is a checkpoint of another run: its {field} is "
        f"{_shown(found.get(field), value)}, this run has "
        f"{_shown(value, found.get(field))}; use another --workdir or delete that run"
      )


def _shown(value: Any, other: Any) -> Any:
  """Returns only what differs when both are dicts."""
  if isinstance(value, dict) and isinstance(other, dict):
    return {key: value[key] for key in value if value[key] != other.get(key)}
  return value


def _first_line(error: Exception) -> str:
  return str(error.__cause__ or error).split("\n", 1)[0][:200]
