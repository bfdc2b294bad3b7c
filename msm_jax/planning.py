"""What training will cost, before it starts: steps, tokens, runs, memory.

Optimizer steps are the unit that decides whether a stage can teach anything; so many
tokens in so few steps have been mistaken for a null result.
"""

import pathlib
from collections.abc import Iterator

import jax

from msm_jax import prepare
from msm_jax.experiment import Experiment, StageConfig
from msm_jax.hf import config as hf_config
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig


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
  steps = [_num_steps(experiment.stages[path[-1]], workdir) for path in paths]
  if None not in steps:
    yield f"optimizer steps over all runs: {sum(steps) * num_seeds}"
  yield from _model_lines(experiment)


def _stage_line(stage: StageConfig, workdir: pathlib.Path) -> str:
  steps = _num_steps(stage, workdir)
  data = ", ".join(f"{part.corpus} x {part.share:g}" for part in stage.data)
  if steps is None:
    return (
      f"{stage.name:<16}{stage.num_epochs:>7g} epochs  (steps: after generate)  {data}"
    )
  rows = steps * stage.batch_size
  return f"{stage.name:<16}{steps:>8} steps{rows:>10}{rows * stage.seq_len:>14}  {data}"


def _num_steps(stage: StageConfig, workdir: pathlib.Path) -> int | None:
  """Returns the steps, None while they depend on a corpus that is not packed yet."""
  if stage.num_train_steps is not None:
    return stage.num_train_steps
  if (prepare.rows_dir(workdir, stage.name) / "manifest.json").exists():
    return prepare.read_rows_manifest(workdir, stage.name)["num_train_steps"]
  return None


def _model_lines(experiment: Experiment) -> Iterator[str]:
  if experiment.hf_dir is not None:
    cfg = hf_config.read(experiment.hf_dir)
  else:
    cfg = experiment.scratch_model(experiment.tokenizer["vocab_size"])
  num_params = cfg.num_params()
  yield f"model: {num_params / 1e6:.2f}M parameters"
  full = any(stage.adaptation == "full" for stage in experiment.stages.values())
  num_adapter = 0 if full else _num_adapter_params(experiment, cfg)
  trained = num_params if full else num_adapter
  # float32: the weights, then gradient and two moments of what is trained.
  need = 4 * (num_params + num_adapter + 3 * trained)
  yield (
    f"weights, gradients and optimizer: {need / 2**30:.2f} GiB over the mesh (float32; "
    "activations come on top)"
  )


def _num_adapter_params(experiment: Experiment, cfg: ModelConfig) -> int:
  import dataclasses

  with_adapter = dataclasses.replace(cfg, lora=experiment.lora)
  shapes = transformer.abstract_params(with_adapter)
  return sum(leaf.size for leaf in jax.tree.leaves(shapes)) - cfg.num_params()
