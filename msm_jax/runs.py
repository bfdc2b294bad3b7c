"""The runs of a study: where each lies, what makes it what it is, its parameters.

A run is a path of stages and a seed, `runs/<path>/seed<k>`; it is done when its
`done.json` is there. Parameters travel along a path. A `full` stage trains every leaf
(but those in `freeze`, which stay those of the stage before); a `lora` stage trains
adapters beside the frozen leaves of the last full stage (or of the model that the study
begins with), and goes on with the adapters of the stage before it, if that had any, or
with those that the start brought. A stage that merges adds them to the base first.
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
  quantised,
  records,
  sharding,
  tokenizer,
  train_state,
)
from msm_jax import experiment as experiment_lib
from msm_jax import workdir as workdir_lib
from msm_jax.errors import UserError
from msm_jax.experiment import Experiment, StageConfig
from msm_jax.models import lora, transformer
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params
from msm_jax.start import Start, Weights, fresh, merged
from msm_jax.storage import inputs
from msm_jax.tree import path_name

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

  def _places(self, seed: int) -> tuple[str | None, str | None]:
    """Returns where the model before any stage, and its adapter, come from."""
    model = self.experiment.model
    init_from, adapter_from = (
      place and origin.for_seed(place, seed)
      for place in (model.init_from, model.adapter_from)
    )
    return init_from, adapter_from

  def _start_key(self, seed: int) -> Any:
    places = self._places(seed)
    return seed if places[0] is None else places

  def base_key(self, path: Path, seed: int) -> Any:
    """Returns what the base at the end of `path` is known by: the same for runs on the
    same base.
    """
    if not path:
      return self._start_key(seed)
    if self.experiment.stages[path[-1]].adaptation == "full":
      return path, seed
    return self.base_key_before(path, seed)

  def base_key_before(self, path: Path, seed: int) -> Any:
    """Returns what the base that the last stage of `path` begins with is known by."""
    if self.merges(path, seed):
      return path[:-1], seed, "merged"
    return self.base_key(path[:-1], seed)

  def start(self, seed: int) -> Start:
    """Returns the model before any stage, as yet unread."""
    model, places, key = (
      self.experiment.model,
      self._places(seed),
      self._start_key(seed),
    )
    if key not in self._starts:
      self.forget()  # one model at a time
      source = origin.find(model.init_from, seed) if model.init_from else None
      if isinstance(source, origin.Run):
        source = self._open(source)
      adapter_dir = None
      if places[1]:
        adapter_dir = inputs.model_dir(places[1], "config.model.adapter_from")
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
    for n, name in enumerate(path):
      stage = self.experiment.stages[name]
      if stage.adaptation == "full":
        cfg = self._without_adapters(cfg, stage, brought=n == 0)
      elif cfg.lora is None or (stage.adapter_use == "merge" and model.lora):
        if model.lora is None:
          raise UserError(
            "config.model.lora is None, but a stage has adaptation 'lora' and "
            f"init_from {model.init_from!r} brings no adapters: set it"
          )
        cfg = dataclasses.replace(cfg, lora=model.lora)
    return cfg

  def _without_adapters(
    self, cfg: ModelConfig, stage: StageConfig, brought: bool
  ) -> ModelConfig:
    """Returns the model after a stage that trains all leaves but the frozen ones."""
    if cfg.lora is not None and stage.adapter_use != "merge":
      whose = f"config.model.init_from {self.experiment.model.init_from!r} brings"
      raise UserError(
        f"{whose if brought else 'the stage before brings'} adapters, but the stage "
        f"{stage.name!r} trains every leaf: a stage with adaptation 'full' cannot "
        f"follow adapters; set config.stages.{stage.name}.adapter_use (or that of "
        "config.model) to 'merge'"
      )
    if "lm_head" in stage.freeze and cfg.tie_embeddings:
      raise UserError(
        f"config.stages.{stage.name}.freeze has 'lm_head', but the model's embeddings "
        "are tied: its output layer is 'embed'; name that"
      )
    return dataclasses.replace(cfg, lora=None)

  def merges(self, path: Path, seed: int) -> bool:
    """Returns whether the last stage of `path` adds adapters to the base first."""
    if self.experiment.stages[path[-1]].adapter_use != "merge":
      return False
    return self.cfg(path[:-1], seed).lora is not None

  def num_merges(self, path: Path, seed: int) -> int:
    """Returns how often adapters were added to the base along `path`."""
    return sum(self.merges(path[:n], seed) for n in range(1, len(path) + 1))

  def weights(self, path: Path, seed: int, step: int | None = None) -> Weights:
    """Returns the model at the end of a trained path, or at `step` of its last
    stage.
    """
    cfg = self.cfg(path, seed)
    if not path:
      return dataclasses.replace(self.start(seed).weights(), cfg=cfg)
    if self.experiment.stages[path[-1]].adaptation == "full":
      return Weights(cfg, self._base(path, seed, step), {})
    base = self._base(path, seed)
    return Weights(cfg, base, self._adapter(path, seed, step))

  def trained_leaves(self, path: Path, seed: int) -> Params:
    """Returns shapes and dtypes of what the last stage of `path` trains."""
    dtype = self.experiment.model.base_dtype
    leaves = transformer.abstract_params(self.cfg(path, seed))
    adapter, base = lora.split(leaves)
    base = jax.eval_shape(functools.partial(quantised.hold, dtype=dtype), base)
    return self.experiment.stages[path[-1]].split(lora.join(base, adapter))[0]

  def _base(self, path: Path, seed: int, step: int | None = None) -> Params:
    """Returns the base leaves at the end of a path; adapters are read only to merge."""
    if not path:
      return self.start(seed).weights().base
    stage = self.experiment.stages[path[-1]]
    if stage.adaptation == "lora":
      return self.base_before(path, seed)
    trained = self._restore(path, seed, self.trained_leaves(path, seed), step)
    if not stage.freeze:  # every leaf comes from there
      return trained
    return lora.join(trained, stage.split(self.base_before(path, seed))[1])

  def base_before(self, path: Path, seed: int) -> Params:
    """Returns the base leaves that the last stage of `path` begins with."""
    if not self.merges(path, seed):
      return self._base(path[:-1], seed)
    weights = self.weights(path[:-1], seed)
    return merged(weights, self.experiment.model.base_dtype, self.mesh)

  def begin(self, path: Path, seed: int) -> Weights:
    """Returns the model that the last stage of `path` begins with."""
    base, adapter = self.base_before(path, seed), self.adapter_before(path, seed)
    return Weights(self.cfg(path, seed), base, adapter)

  def adapter_before(self, path: Path, seed: int) -> Params:
    """Returns the adapters that the last stage of `path` begins with, maybe none."""
    cfg, merges = self.cfg(path, seed), self.merges(path, seed)
    if cfg.lora is None:
      return {}
    if self.cfg(path[:-1], seed).lora is not None and not merges:
      return self._adapter(path[:-1], seed)
    draw = self.num_merges(path, seed)  # another adapter after every merge
    return fresh(cfg, seed, self.mesh, adapter_only=True, draw=draw)

  def _adapter(self, path: Path, seed: int, step: int | None = None) -> Params:
    """Returns the adapters at the end of a path of which the last stage trains them,
    or of none.
    """
    if not path:
      return self.start(seed).weights().adapter
    return self._restore(path, seed, self.trained_leaves(path, seed), step)

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
      experiment = experiment_lib.parse(workdir_lib.normalised(records.read_json(path)))
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
    weights = self._with_weights.weights(self.run.path, self.run.seed, self.run.step)
    self._with_weights.forget()
    return weights

  def meta(self) -> dict[str, Any]:
    """Returns what its checkpoint says about itself, the step included."""
    return self._with_weights.saved_meta(self.run.path, self.run.seed, self.run.step)

  @functools.cached_property
  def _with_weights(self) -> Runs:
    if self.run.url is None:
      return self.runs
    return Runs(self.runs.experiment, self.run.with_weights())


def _stage_identity(stage: StageConfig) -> dict[str, Any]:
  """Returns what decides the result of a stage beside its rows.

  What came later counts only where it is not the default: runs from before go on.
  """
  optimizer = json.loads(json.dumps(dict(stage.optimizer)))
  if optimizer.get("moments_dtype") == "float32":
    del optimizer["moments_dtype"]
  return {
    **stage.adapts(),
    "optimizer": optimizer,
    "num_microbatches": stage.num_microbatches,
  }
