"""The tree of stages and seeds: train what is missing.

Arms that share their first stages share those runs (`runs.py` says where they lie and
how parameters travel along a path). A run that was interrupted goes on from its newest
checkpoint. The optimizer is fresh in every stage unless that says otherwise. Where it
pays, runs of the same shapes are trained as one program (`training/siblings.py`).
"""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import jax

from msm_jax import (
  checkpoint,
  distributed,
  input_pipeline,
  prepare,
  progress,
  records,
  train,
)
from msm_jax.errors import UserError
from msm_jax.experiment import StageConfig
from msm_jax.models.lora import Params
from msm_jax.runs import DONE, Path, Runs
from msm_jax.train import TrainConfig
from msm_jax.training import levers, loop, siblings
from msm_jax.training.siblings import Task


class Study(Runs):
  """An experiment in a workdir, on a mesh: trains its runs."""

  def train(self, path: Path, seed: int) -> None:
    """Trains the last stage of `path`, or says nothing when that is done."""
    if not self.is_done(path, seed):
      self._train_together([Task(path, seed)])

  def _train_together(self, tasks: Sequence[Task]) -> None:
    """Trains siblings, as one program."""
    started = time.monotonic()
    members = [self._member(task) for task in tasks]
    if len(tasks) > 1:
      names = ", ".join(task.label for task in tasks)
      progress.say(f"train: {len(tasks)} runs as one program: {names}")
    loop.train_together(members, self._frozen(members[0].job, tasks[0]))
    for task, member in zip(tasks, members, strict=True):
      self._write_done(task, member, time.monotonic() - started)

  def _stage(self, task: Task) -> StageConfig:
    return self.experiment.stages[task.path[-1]]

  def _config(self, task: Task) -> TrainConfig:
    manifest = prepare.read_rows_manifest(self.workdir, task.path[-1])
    return _train_config(self._stage(task), manifest["num_train_steps"])

  def _frozen(self, job: loop.Job, task: Task) -> Params:
    """Returns what stays as it is; held once for all siblings."""
    stage = self._stage(task)
    if stage.adaptation == "full" and not stage.freeze:
      return {}
    with levers.memory_explained(job.label, job.config, job.cfg, job.mesh):
      frozen = stage.split(self.base_before(task.path, task.seed))[1]
    self._let_go(task)
    return frozen

  def _first(self, task: Task) -> Params:
    """Returns the leaves that a stage trains, as they are before."""
    if self._stage(task).adaptation == "lora":
      return self.adapter_before(task.path, task.seed)
    base = self.base_before(task.path, task.seed)
    self._let_go(task)
    return self._stage(task).split(base)[0]

  def _let_go(self, task: Task) -> None:
    """Lets go of a start whose leaves are not those that the stage holds."""
    full = self._stage(task).adaptation == "full"
    if full or self.merges(task.path, task.seed):
      self.start(task.seed).forget()

  def _member(self, task: Task) -> loop.Member:
    job = loop.Job(
      config=self._config(task),
      cfg=self.cfg(task.path, task.seed),
      mesh=self.mesh,
      run_dir=self.run_dir(task.path, task.seed),
      meta=self.meta(task.path, task.seed),
      label=f"train {task.label}",
      project=self.experiment.name,
      settings=self.experiment.run,
    )
    return loop.Member(
      job,
      leaves=self.trained_leaves(task.path, task.seed),
      first=functools.partial(self._first, task),
      source=_rows(self.workdir, task.path[-1], task.seed),
      carried=self._carried(task),
    )

  def _write_done(self, task: Task, member: loop.Member, seconds: float) -> None:
    done = {
      "path": list(task.path),
      "stage": task.path[-1],
      "seed": task.seed,
      "step": member.job.config.num_train_steps,
      "identity": self._run_identity(task.path, task.seed),
      "wall_s": round(seconds, 2),
      "num_params": member.job.cfg.num_params(),
      "num_trainable": sum(leaf.size for leaf in jax.tree.leaves(member.leaves)),
    }
    with distributed.together():  # nobody looks for it before it is there
      if distributed.is_first():
        records.write_json(member.job.run_dir / DONE, done)

  def _carried(self, task: Task) -> Callable[[], Any] | None:
    """Returns what reads the optimizer state at the end of the stage before, None
    where the last stage of a path begins with none.
    """
    if self._stage(task).optimizer_state != "carry":
      return None
    if len(task.path) == 1:
      progress.say(
        f"note: {task.label} has no stage before it: its moments begin at zero"
      )
      return None
    before = Task(task.path[:-1], task.seed)
    return functools.partial(self._last_opt_state, before)

  def _last_opt_state(self, task: Task) -> Any:
    path, seed, run_dir = task.path, task.seed, self.run_dir(task.path, task.seed)
    leaves = self.trained_leaves(path, seed)
    step = train.make_step(self._config(task), self.cfg(path, seed), leaves, self.mesh)
    with checkpoint.Checkpointer(run_dir, read_only=True) as checkpointer:
      state = checkpointer.restore(step.state, self.meta(path, seed))
    last = self.last_step(path, seed)
    if state is None or int(state.step) != last:
      raise UserError(
        f"{run_dir} has no checkpoint of its last step ({last}) that can be read, and "
        f"optimizer_state='carry' needs its moments: delete it to train it again"
      )
    return state.opt_state

  def is_done(self, path: Path, seed: int) -> bool:
    """Returns whether this run is complete.

    Raises:
      UserError: one is, but with another start, rows or settings.
    """
    if not path or not self.is_trained(path, seed):
      return not path
    done = self.run_dir(path, seed) / DONE
    if records.read_json(done).get("identity") != self._run_identity(path, seed):
      raise UserError(
        f"{done.parent} was trained from another start, with other rows or settings: "
        "use another --workdir, or delete it and the evals that used it"
      )
    return True

  def _run_identity(self, path: Path, seed: int) -> str:
    return records.sha256_json(self.meta(path, seed))

  def train_all(
    self, seeds: Sequence[int], paths: Sequence[Path] | None = None
  ) -> None:
    """Trains what is missing of `paths` (default: all), seed by seed; siblings together
    where that pays (`config.run.population`).
    """
    paths = self.experiment.paths() if paths is None else paths
    for name in {path[-1]: None for path in paths}:
      self._check_stage(name)  # the last one, too, before the first is trained
    if all(self._most_together(Task(path, 0)) == 1 for path in paths):
      for seed in seeds:
        for path in paths:
          self.train(path, seed)
      return
    for length in sorted({len(path) for path in paths}):  # parents first
      todo = [
        Task(path, seed)
        for path in paths
        for seed in seeds
        if len(path) == length and not self.is_done(path, seed)
      ]
      shapes = {task: self._shape(task) for task in todo}
      for group in siblings.groups(shapes, self._most_together):
        self._train_together(group)

  def _most_together(self, task: Task) -> int:
    """Returns how many siblings of a run are one program at most."""
    most = self.experiment.run.population
    return self._config(task).most_together(self.mesh) if most is None else most

  def _shape(self, task: Task) -> dict[str, Hashable]:
    """Returns what siblings agree in."""
    stage, base = self._stage(task), None
    if stage.adaptation == "lora" or stage.freeze:  # else each has leaves of its own
      base = self.base_key_before(task.path, task.seed)
    known = {"adaptation": stage.adaptation, "freeze": tuple(stage.freeze)}
    known["model"] = self.cfg(task.path, task.seed)
    return {**known, "the frozen base": base, **vars(self._config(task))}

  def _check_stage(self, name: str) -> None:
    manifest = prepare.read_rows_manifest(self.workdir, name)
    config = _train_config(self.experiment.stages[name], manifest["num_train_steps"])
    train.check(config, self.mesh, f"config.stages.{name}")


def _rows(workdir: pathlib.Path, stage: str, seed: int) -> input_pipeline.RowSource:
  directories, order = prepare.training_rows(workdir, stage, seed)
  try:
    return input_pipeline.open_rows(directories, order)
  except UserError as error:
    raise UserError(
      f"{error}; `prepare` makes the same rows again when "
      f"{prepare.rows_dir(workdir, stage)} is deleted"
    ) from None


def _train_config(stage: StageConfig, num_train_steps: int) -> TrainConfig:
  names = {field.name for field in dataclasses.fields(TrainConfig)}
  shared = {name: value for name, value in vars(stage).items() if name in names}
  return TrainConfig(
    **shared
    | {
      "num_train_steps": num_train_steps,
      "optimizer": stage.optim(num_train_steps),
      "checkpoint_at": stage.kept_steps(num_train_steps),
    }
  )
