"""The runs of a study: where each lies, what makes it what it is, its parameters.

A run is a path of stages and a seed, `runs/<path>/seed<k>`; it is done when its
`done.json` is there. Parameters travel along a path. A `full` stage trains every leaf;
a `lora` stage trains adapters beside the frozen leaves of the last full stage (or of
the model that the study begins with), and goes on with the adapters of the stage before
it, if that had any, or with those that the start brought.
"""

import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh

from msm_jax import (
  checkpoint,
  origin,
  prepare,
  progress,
  records,
  sharding,
  tokenizer,
  train_state,
)
from msm_jax import experiment as experiment_lib
from msm_jax import workdir as workdir_lib
from msm_jax.errors import UserError
from msm_jax.experiment import Experiment, StageConfig, path_name
from msm_jax.models import lora, transformer
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.start import Start, Weights, fresh

DONE = "done.json"
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Runs:
  """The runs of an experiment in a workdir, and the model before the first of them."""

  experiment: Experiment
  workdir: pathlib.Path
  _starts: dict[Any, Start] = dataclasses.field(
    default_factory=dict, init=False, repr=False, compare=False
  )

  @functools.cached_property
  def mesh(self) -> Mesh:
    """Returns the mesh that all runs use."""
    if jax.process_index() > 0:
      progress.mute()
    return sharding.make_mesh(**self.experiment.mesh)

  @functools.cached_property
  def tokenizer(self) -> tokenizer.Tokenizer:
    """Returns the study's tokenizer."""
    return tokenizer.load(self.workdir / "tokenizer")

  def run_dir(self, path: Path, seed: int) -> pathlib.Path:
    """Returns where the run of a path and seed lies."""
    return self.workdir / "runs" / path_name(path) / f"seed{seed}"

  def is_trained(self, path: Path, seed: int) -> bool:
    """Returns whether the run is complete."""
    return not path or (self.run_dir(path, seed) / DONE).exists()

  def last_step(self, path: Path, seed: int) -> int:
    """Returns the step at which a run is done; an unfinished one is never used."""
    run_dir = self.run_dir(path, seed)
    if not self.is_trained(path, seed):
      raise UserError(f"{run_dir} is not finished: run `train` for it first")
    return records.read_json(run_dir / DONE)["step"]

  def start(self, seed: int) -> Start:
    """Returns the model before any stage, as yet unread."""
    model = self.experiment.model
    places = [
      place and origin.for_seed(place, seed)
      for place in (model.init_from, model.adapter_from)
    ]
    key = seed if model.init_from is None else tuple(places)
    if key not in self._starts:
      self.forget()  # one model at a time
      source = origin.find(model.init_from, seed) if model.init_from else None
      if isinstance(source, origin.Run):
        source = self._open(source)
      adapter_dir = pathlib.Path(places[1]).expanduser() if places[1] else None
      self._starts[key] = Start(
        model, seed, source, adapter_dir, lambda: self.tokenizer, lambda: self.mesh
      )
    return self._starts[key]

  def cfg(self, path: Path, seed: int) -> ModelConfig:
    """Returns the model at the end of a path."""
    cfg, model = self.start(seed).cfg, self.experiment.model
    for name in path:
      if self.experiment.stages[name].seq_len > cfg.max_seq_len:
        raise UserError(
          f"config.stages.{name}.seq_len ({self.experiment.stages[name].seq_len}) is "
          f"longer than the model's context ({cfg.max_seq_len}): lower it"
        )
    kinds = [self.experiment.stages[name].adaptation for name in path]
    if cfg.lora is not None and "full" in kinds:
      raise UserError(
        f"config.model.init_from {model.init_from!r} brings adapters, but the stage "
        f"{path[kinds.index('full')]!r} trains every leaf: a stage with adaptation "
        "'full' cannot follow adapters; set config.model.adapter_use to 'merge'"
      )
    if cfg.lora is None and "lora" in kinds:
      if model.lora is None:
        raise UserError(
          "config.model.lora is None, but a stage has adaptation 'lora' and init_from "
          f"{model.init_from!r} brings no adapters: set it"
        )
      cfg = dataclasses.replace(cfg, lora=model.lora)
    return cfg

  def weights(self, path: Path, seed: int, step: int | None = None) -> Weights:
    """Returns the model at the end of a trained path, or at `step` of its last
    stage.
    """
    kinds = [self.experiment.stages[name].adaptation for name in path]
    num_full = max((n for n, kind in enumerate(kinds, 1) if kind == "full"), default=0)
    cfg = self.cfg(path, seed)
    if num_full:  # every leaf comes from there, nothing of the start is read
      whole = path[:num_full]
      leaves = transformer.abstract_params(self.cfg(whole, seed))
      base = self._restore(whole, seed, leaves, step if whole == path else None)
      weights = Weights(cfg, base, {})
    else:
      weights = dataclasses.replace(self.start(seed).weights(), cfg=cfg)
    if len(path) == num_full:
      return weights
    leaves = lora.split(transformer.abstract_params(cfg))[0]
    return dataclasses.replace(weights, adapter=self._restore(path, seed, leaves, step))

  def begin(self, path: Path, seed: int) -> Weights:
    """Returns the model that the last stage of `path` begins with."""
    weights, cfg = self.weights(path[:-1], seed), self.cfg(path, seed)
    adapter = weights.adapter
    if cfg.lora is not None and not adapter:
      adapter = fresh(cfg, seed, self.mesh, adapter_only=True)
    return Weights(cfg, weights.base, adapter)

  def meta(self, path: Path, seed: int) -> dict[str, Any]:
    """Returns what makes a run this run."""
    model = dataclasses.asdict(self.cfg(path, seed))
    model["base_dtype"] = self.experiment.model.base_dtype
    return {
      "path": list(path),
      "seed": seed,
      "pretrained": self.start(seed).fingerprint,
      "model": json.loads(json.dumps(model)),
      "rows": [
        prepare.read_rows_manifest(self.workdir, name)["sha256"] for name in path
      ],
      "stages": [_stage_identity(self.experiment.stages[name]) for name in path],
    }

  def saved_meta(self, path: Path, seed: int, step: int | None) -> dict[str, Any]:
    """Returns what the checkpoint of a run (default: its last) says about itself."""
    step = self.last_step(path, seed) if step is None else step
    run_dir = self.run_dir(path, seed)
    with checkpoint.Checkpointer(run_dir, read_only=True) as checkpointer:
      return checkpointer.read_meta(step)

  def forget(self) -> None:
    """Lets go of the start that was read last."""
    self._starts.clear()

  def _restore(self, path: Path, seed: int, leaves: Params, step: int | None) -> Params:
    target = train_state.abstract(leaves, self.cfg(path, seed), self.mesh)
    run_dir = self.run_dir(path, seed)
    if step is None:
      step = self.last_step(path, seed)
    with checkpoint.Checkpointer(run_dir, read_only=True) as checkpointer:
      loaded = checkpointer.restore_params(target, self.meta(path, seed), step)
    assert loaded is not None, "a step that is not there is an error"
    return loaded.tree

  def _open(self, run: origin.Run) -> "OtherRun":
    origin.check_chain(self.workdir, run)
    path = run.workdir / workdir_lib.CONFIG
    try:
      experiment = experiment_lib.parse(records.read_json(path))
    except UserError as error:
      raise UserError(f"{path}: {error}") from None
    absent = [name for name in run.path if name not in experiment.stages]
    if absent:
      raise UserError(
        f"config.model.init_from names the stage {absent[0]!r}, {path} has "
        f"{sorted(experiment.stages)}"
      )
    experiment = dataclasses.replace(experiment, mesh=self.experiment.mesh)
    return OtherRun(Runs(experiment, run.workdir), run)


@dataclasses.dataclass(frozen=True)
class OtherRun:
  """A run of another workdir, as its own study sees it, but on our mesh."""

  runs: Runs
  run: origin.Run

  def cfg(self) -> ModelConfig:
    """Returns the model that was trained."""
    try:
      return self.runs.cfg(self.run.path, self.run.seed)
    except UserError as error:  # it speaks of the other config
      raise UserError(f"{self.run.workdir}: {error}") from None

  def weights(self) -> Weights:
    """Returns its parameters; nothing of them is kept here."""
    weights = self.runs.weights(self.run.path, self.run.seed, self.run.step)
    self.runs.forget()
    return weights

  def meta(self) -> dict[str, Any]:
    """Returns what its checkpoint says about itself, the step included."""
    return self.runs.saved_meta(self.run.path, self.run.seed, self.run.step)


def _stage_identity(stage: StageConfig) -> dict[str, Any]:
  """Returns what decides the result of a stage beside its rows."""
  return {
    "adaptation": stage.adaptation,
    "optimizer": json.loads(json.dumps(dict(stage.optimizer))),
    "num_microbatches": stage.num_microbatches,
  }
