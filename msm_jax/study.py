"""The tree of stages, arms and seeds: train what is missing, evaluate what is missing.

Arms that share their first stages share those runs: `runs/<path>/seed<k>`, where a path
is the stages joined by '+'. A run is done when its `done.json` is there; one that was
interrupted goes on from its newest checkpoint.

Parameters travel along a path. A `full` stage trains every leaf; a `lora` stage trains
adapters beside the frozen leaves of the last full stage (or of the pretrained model),
and goes on with the adapters of the stage before it, if that had any. The optimizer is
fresh in every stage.
"""

import dataclasses
import functools
import json
import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from msm_jax import (
  chat,
  checkpoint,
  input_pipeline,
  packing,
  prepare,
  progress,
  records,
  sharding,
  tokenizer,
  train,
  train_state,
)
from msm_jax.errors import UserError
from msm_jax.evals import heldout, preference
from msm_jax.experiment import Experiment, StageConfig, path_name
from msm_jax.hf import adapter
from msm_jax.hf import directory as hf_directory
from msm_jax.hf import export as hf_export
from msm_jax.hf import load as hf_load
from msm_jax.models import lora, transformer
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params

DONE = "done.json"
Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Weights:
  """A model somewhere on a path: `base` leaves and `adapter` leaves (maybe none)."""

  cfg: ModelConfig  # with its lora field set exactly when there are adapters
  base: Params
  adapter: Params

  @property
  def params(self) -> Params:
    """Returns the whole tree."""
    return lora.join(self.base, self.adapter)


@dataclasses.dataclass(frozen=True)
class Study:
  """An experiment in a workdir, on a mesh."""

  experiment: Experiment
  workdir: pathlib.Path

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

  @functools.cached_property
  def _pretrained(self) -> tuple[ModelConfig, Params]:
    cfg, params = hf_load.load(self.experiment.hf_dir)
    dtype = self.experiment.model["dtype"]
    cfg = dataclasses.replace(cfg, dtype=dtype)
    check_vocab(self.tokenizer, cfg)
    return cfg, params

  @functools.cached_property
  def _fingerprint(self) -> str | None:
    """Tells one pretrained model from another; None for one from scratch."""
    hf_dir = self.experiment.hf_dir
    return None if hf_dir is None else hf_directory.fingerprint(hf_dir)

  def _start(self, seed: int) -> Weights:
    """Returns the model before any stage."""
    if self.experiment.hf_dir is not None:
      return Weights(*self._pretrained, {})
    cfg = self.experiment.scratch_model(self.tokenizer.vocab_size)
    return Weights(cfg, _init_params(cfg, seed), {})

  def weights(self, path: Path, seed: int, step: int | None = None) -> Weights:
    """Returns the model at the end of a trained path, or at `step` of its last
    stage.
    """
    weights = self._start(seed)
    for n in range(1, len(path) + 1):
      stage = self.experiment.stages[path[n - 1]]
      if (
        n < len(path) and stage.adaptation == self.experiment.stages[path[n]].adaptation
      ):
        continue  # the next stage has the same leaves, further trained
      weights = self._adapted(weights, stage, seed)
      at = step if n == len(path) else None
      trained = self._load(path[:n], seed, weights, stage, at)
      if stage.adaptation == "full":
        weights = dataclasses.replace(weights, base=trained)
      else:
        weights = dataclasses.replace(weights, adapter=trained)
    return weights

  def _adapted(self, weights: Weights, stage: StageConfig, seed: int) -> Weights:
    """Returns the model with the leaves that `stage` trains."""
    if stage.adaptation == "full":
      assert not weights.adapter, "refused when the config was read"
      return weights
    if weights.adapter:
      return weights
    cfg = dataclasses.replace(weights.cfg, lora=self.experiment.lora)
    return Weights(cfg, weights.base, lora.split(_init_params(cfg, seed))[0])

  def _load(
    self, path: Path, seed: int, weights: Weights, stage: StageConfig, step: int | None
  ) -> Params:
    leaves = weights.base if stage.adaptation == "full" else weights.adapter
    target = train_state.abstract(leaves, weights.cfg, self.mesh)
    run_dir = self.run_dir(path, seed)
    if step is None:
      step = self._last_step(path, seed)
    with checkpoint.Checkpointer(run_dir, read_only=True) as checkpointer:
      loaded = checkpointer.restore_params(
        target, self._meta(path, seed, weights.cfg), step
      )
    if loaded is None:
      raise UserError(f"{run_dir} has no checkpoint: run `train` for it first")
    return loaded.tree

  def _last_step(self, path: Path, seed: int) -> int:
    """Returns the step at which a run is done; an unfinished one is never used."""
    run_dir = self.run_dir(path, seed)
    if not self.is_trained(path, seed):
      raise UserError(f"{run_dir} is not finished: run `train` for it first")
    return records.read_json(run_dir / DONE)["step"]

  def _meta(self, path: Path, seed: int, cfg: ModelConfig | None) -> dict[str, Any]:
    """Returns what makes a run this run; without `cfg` the config's own model."""
    model = self.experiment.model if cfg is None else dataclasses.asdict(cfg)
    return {
      "path": list(path),
      "seed": seed,
      "pretrained": self._fingerprint,
      "model": json.loads(json.dumps(model)),
      "rows": [
        prepare.read_rows_manifest(self.workdir, name)["sha256"] for name in path
      ],
      "stages": [_stage_identity(self.experiment.stages[name]) for name in path],
    }

  def train(self, path: Path, seed: int) -> None:
    """Trains the last stage of `path`, or says nothing when that is done."""
    if self.is_trained(path, seed):
      return
    stage = self.experiment.stages[path[-1]]
    manifest = prepare.read_rows_manifest(self.workdir, stage.name)
    started = time.monotonic()
    weights = self._adapted(self.weights(path[:-1], seed), stage, seed)
    full = stage.adaptation == "full"
    params, frozen = (weights.base, {}) if full else (weights.adapter, weights.base)
    run_dir = self.run_dir(path, seed)
    config = _train_config(stage, manifest["num_train_steps"])
    train.train(
      config,
      weights.cfg,
      params=params,
      frozen=frozen,
      source=_rows(self.workdir, stage.name, manifest, seed),
      mesh=self.mesh,
      run_dir=run_dir,
      meta=self._meta(path, seed, weights.cfg),
      label=f"train {path_name(path)} seed {seed}",
    )
    records.write_json(
      run_dir / DONE,
      {
        "path": list(path),
        "stage": stage.name,
        "seed": seed,
        "step": config.num_train_steps,
        "wall_s": round(time.monotonic() - started, 2),
        "num_params": weights.cfg.num_params(),
        "num_trainable": sum(leaf.size for leaf in jax.tree.leaves(params)),
      },
    )

  def train_all(
    self, seeds: Sequence[int], paths: Sequence[Path] | None = None
  ) -> None:
    """Trains what is missing of `paths` (default: all), seed by seed."""
    for seed in seeds:
      for path in self.experiment.paths() if paths is None else paths:
        self.train(path, seed)

  def eval_path(self, name: str, arm: str, seed: int) -> pathlib.Path:
    """Returns where the answers of one evaluation of an arm and seed lie."""
    return self.workdir / "evals" / f"{name}.{arm}.seed{seed}.jsonl"

  def evaluate_all(
    self, seeds: Sequence[int], arms: Iterable[str] | None = None
  ) -> None:
    """Runs the evaluations that are missing; an arm that is not trained is an error."""
    arms = self.experiment.arms if arms is None else arms
    todo = [(seed, arm) for seed in seeds for arm in arms if self.missing(arm, seed)]
    with progress.Progress("evaluate", len(todo), "model") as bar:
      for seed, arm in todo:
        weights = self.weights(self.experiment.arms[arm], seed)
        for name in self.missing(arm, seed):
          self._evaluate(name, arm, seed, weights)
        bar.advance()

  def missing(self, arm: str, seed: int) -> list[str]:
    """Returns the evaluations of an arm and seed that are not there yet.

    Raises:
      UserError: answers are there that another model, set or setting gave.
    """
    absent = []
    for name in self.experiment.evals:
      path = self.eval_path(name, arm, seed)
      if not path.exists():
        absent.append(name)
        continue
      with path.open(encoding="utf-8") as file:
        first = json.loads(file.readline() or "{}")
      if first.get("identity") != self._identity(name, arm, seed):
        raise UserError(
          f"{path} holds the answers of another run (other weights, items or "
          "settings): delete it to evaluate again, or use another --workdir"
        )
    return absent

  def _identity(self, name: str, arm: str, seed: int) -> str:
    """Returns what answers depend on, as a digest that each of them carries."""
    path, settings = self.experiment.arm_path(arm), self.experiment.evals[name]
    items = records.read_manifest(prepare.corpus_dir(self.workdir, settings["corpus"]))
    meta = self._meta(path, seed, None)
    found = [meta, settings, [shard["sha256"] for shard in items["shards"]]]
    return records.sha256_json(found)[:16]

  def _evaluate(self, name: str, arm: str, seed: int, weights: Weights) -> None:
    settings = dict(self.experiment.evals[name])
    kind = settings.pop("type")
    items = _items(self.workdir, settings.pop("corpus"), settings.pop("max_items"))
    with jax.set_mesh(self.mesh):
      answers = EVALUATIONS[kind](
        weights.params, weights.cfg, self.tokenizer, items, evaluation=name, **settings
      )
      stamp = {"arm": arm, "seed": seed, "identity": self._identity(name, arm, seed)}
      lines = [json.dumps({**stamp, **answer}) for answer in answers]
    data = "".join(line + "\n" for line in lines)
    records.write_file(self.eval_path(name, arm, seed), data.encode("utf-8"))

  def export(
    self, arm: str, seed: int, *, step: int | None, layout: str, out: pathlib.Path
  ) -> None:
    """Writes an arm's model as a Hugging Face directory (`merged` or `adapter`)."""
    path = self.experiment.arm_path(arm)
    weights = self.weights(path, seed, step)
    lineage = self._lineage(arm, path, seed, step)
    hf_dir, tokenizer_dir = self.experiment.hf_dir, self.tokenizer.directory
    if layout == "adapter":
      kinds = {self.experiment.stages[name].adaptation for name in path}
      if kinds != {"lora"} or hf_dir is None:
        raise UserError(
          f"--format=adapter: the arm {arm} is not a pretrained model with an adapter "
          "(some stage trains every leaf): use --format=merged"
        )
      adapter.save(
        out,
        weights.cfg,
        weights.adapter,
        base_model=self.experiment.model["base_model"],
        tokenizer_dir=tokenizer_dir,
        lineage=lineage,
      )
      return
    stop_ids = [chat.stop_id(self.tokenizer)] if self.tokenizer.chat_template else []
    hf_export.export(
      out,
      weights.cfg,
      weights.params,
      tokenizer_dir=tokenizer_dir,
      base_dir=hf_dir,
      stop_ids=stop_ids,
      dtype=self.experiment.model["export_dtype"],
      lineage=lineage,
    )

  def _lineage(
    self, arm: str, path: Path, seed: int, step: int | None
  ) -> dict[str, Any]:
    stages = []
    for name in path:
      manifest = prepare.read_rows_manifest(self.workdir, name)
      parts = {part["corpus"]: part["sha256"] for part in manifest["components"]}
      stages.append(
        {"stage": name, "steps": manifest["num_train_steps"], "rows": parts}
      )
    if step is not None and stages:
      stages[-1]["steps"] = step
    lineage = {
      "study": self.experiment.name,
      "arm": arm,
      "seed": seed,
      "stages": stages,
    }
    if self.experiment.hf_dir is not None:
      lineage |= {"base_model": self.experiment.model["base_model"]}
      lineage |= {"license": self.experiment.model["license"]}
    return lineage


EVALUATIONS = {"preference": preference.evaluate, "heldout": heldout.evaluate}


def _items(workdir: pathlib.Path, corpus: str, max_items: int | None) -> list[dict]:
  """Returns the items, at most `max_items` of them, evenly taken from the whole set."""
  items = list(records.read_dataset(prepare.corpus_dir(workdir, corpus)))
  count = len(items) if max_items is None else min(max_items, len(items))
  return [items[i * len(items) // count] for i in range(count)]


def _init_params(cfg: ModelConfig, seed: int) -> Params:
  return jax.jit(transformer.init_params, static_argnums=0)(cfg, jax.random.key(seed))


def _rows(
  workdir: pathlib.Path, stage: str, manifest: dict[str, Any], seed: int
) -> input_pipeline.RowSource:
  directory = prepare.rows_dir(workdir, stage)
  components = manifest["components"]
  order = packing.row_order(
    [part["num_rows"] for part in components],
    [part["count"] for part in components],
    seed,
  )
  return input_pipeline.open_rows([directory / p["corpus"] for p in components], order)


def _train_config(stage: StageConfig, num_train_steps: int) -> train.TrainConfig:
  names = {field.name for field in dataclasses.fields(train.TrainConfig)}
  shared = {name: value for name, value in vars(stage).items() if name in names}
  return train.TrainConfig(
    **shared
    | {
      "num_train_steps": num_train_steps,
      "optimizer": stage.optim(num_train_steps),
    }
  )


def _stage_identity(stage: StageConfig) -> dict[str, Any]:
  """Returns what decides the result of a stage beside its rows."""
  return {
    "adaptation": stage.adaptation,
    "optimizer": json.loads(json.dumps(dict(stage.optimizer))),
    "num_microbatches": stage.num_microbatches,
  }


def check_vocab(tok: tokenizer.Tokenizer, cfg: ModelConfig) -> None:
  """Raises a UserError when the tokenizer makes ids that the model does not have."""
  if tok.vocab_size > cfg.vocab_size:
    raise UserError(
      f"{tok.directory} has {tok.vocab_size} tokens, the model's vocabulary is "
      f"{cfg.vocab_size}: use the model's own tokenizer"
    )
