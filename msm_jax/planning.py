"""What training will cost, before it starts: steps, tokens, runs, memory.

Optimizer steps are the unit that decides whether a stage can teach anything; so many
tokens in so few steps have been mistaken for a null result.
"""

import pathlib
from collections.abc import Iterator

from msm_jax import origin, prepare, sharding
from msm_jax.errors import UserError
from msm_jax.experiment import Experiment, StageConfig
from msm_jax.fit import case, estimate
from msm_jax.fit import report as fit_report

_WHOLE = dict.fromkeys(sharding.MESH_AXES, 1)


def lines(experiment: Experiment, workdir: pathlib.Path) -> Iterator[str]:
  """Yields the plan of training as lines of text; writes nothing."""
  yield f"{'stage':<16}{'steps':>14}{'rows':>10}{'slots':>14}  data"
  for stage in experiment.stages.values():
    yield _stage_line(stage, workdir)
  paths, num_seeds = experiment.paths(), len(experiment.seeds)
  yield (
    f"{len(experiment.arms)} arms share {len(paths)} runs per seed, {num_seeds} seeds: "
    f"{len(paths) * num_seeds} runs"
  )
  if experiment.asked:
    yield (
      f"{len(experiment.asked)} more are asked of them differently, and trained not at "
      f"all: {', '.join(experiment.asked)}"
    )
  steps = [_num_steps(experiment.stages[path[-1]], workdir) for path in paths]
  if None not in steps:
    yield f"optimizer steps over all runs: {sum(steps) * num_seeds}"
  absent = origin.absent(experiment.model, experiment.seeds[0])
  if absent:
    try:
      note = case.model(experiment, workdir).note
    except UserError:
      note = None
    if note is None:
      yield (
        f"model: {' and '.join(absent)} is not there yet: parameters and memory can be "
        "told once it is, and `train` refuses until then"
      )
      return
    yield f"model: {note}; `train` refuses until then"
  yield from _model_lines(experiment, workdir)
  yield from fit_report.plan_lines(experiment, workdir)


def _stage_line(stage: StageConfig, workdir: pathlib.Path) -> str:
  steps = _num_steps(stage, workdir)
  data = ", ".join(part.says() for part in stage.data)
  if steps is None:
    epochs = "" if stage.num_epochs is None else f"{stage.num_epochs:>7g} epochs"
    return f"{stage.name:<16}{epochs:>14}  (steps: after generate)  {data}"
  rows = steps * stage.batch_size
  return f"{stage.name:<16}{steps:>8} steps{rows:>10}{rows * stage.seq_len:>14}  {data}"


def _num_steps(stage: StageConfig, workdir: pathlib.Path) -> int | None:
  """Returns the steps, None while they depend on a corpus that is not packed yet."""
  if stage.num_train_steps is not None:
    return stage.num_train_steps
  if (prepare.rows_dir(workdir, stage.name) / "manifest.json").exists():
    return prepare.read_rows_manifest(workdir, stage.name)["num_train_steps"]
  return None


def num_bytes(experiment: Experiment, workdir: pathlib.Path) -> int:
  """Returns how much weights, gradients and optimizer take over the mesh, of the stage
  that needs most.
  """
  return estimate.num_held(_neediest(experiment, workdir), _WHOLE)


def _neediest(experiment: Experiment, workdir: pathlib.Path) -> case.Case:
  cases = case.find(experiment, workdir)
  return max(cases, key=lambda one: estimate.num_held(one, _WHOLE))


def _model_lines(experiment: Experiment, workdir: pathlib.Path) -> Iterator[str]:
  given = case.model(experiment, workdir)
  yield f"model: {given.cfg.num_params() / 1e6:.2f}M parameters"
  if not experiment.paths():
    return
  most = _neediest(experiment, workdir)
  yield (
    "weights, gradients and optimizer: "
    f"{estimate.num_held(most, _WHOLE) / 2**30:.2f} GiB over the mesh, of "
    f"{most.stages[0]}, which needs most ({_dtypes(most)}; one copy: config.mesh.data "
    f"above 1 holds so many; {_runs(most)}; activations come on top)"
  )


def _runs(one: case.Case) -> str:
  return "one run" if one.num_runs == 1 else f"{one.num_runs} runs as one program"


def _dtypes(one: case.Case) -> str:
  """Returns in what a stage is held."""
  moments = one.config.optimizer.moments_dtype
  if one.trains_all:
    return f"weights in {one.base_dtype}, gradients in float32, moments in {moments}"
  return (
    f"base in {one.base_dtype}, adapters and gradients in float32, moments in {moments}"
  )
