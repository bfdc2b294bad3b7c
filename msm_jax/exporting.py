"""A trained arm as a Hugging Face directory, with the story of its weights.

The lineage in the model card names everything that the weights depend on: the base
model and its fingerprint, specs and corpora by their hashes, stages with optimizer
steps and tokens, adapters, seed, licence, code revision and versions. A study that
began from a run of another study carries that run's story on.
"""

import os
import pathlib
from typing import Any

from msm_jax import chat, distributed, prepare, quantised, records
from msm_jax import workdir as workdir_lib
from msm_jax.errors import UserError
from msm_jax.hf import adapter, peft_config
from msm_jax.hf import directory as hf_directory
from msm_jax.hf import export as hf_export
from msm_jax.models.config import LoraConfig
from msm_jax.runs import OtherRun, Path, Runs
from msm_jax.start import same_model
from msm_jax.storage import outputs

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


def export(
  runs: Runs,
  arm: str,
  seed: int,
  *,
  step: int | None,
  layout: str,
  out: str | os.PathLike[str],
) -> None:
  """Writes an arm's model as a Hugging Face directory.

  Args:
    runs: the study.
    arm: which one.
    seed: which one.
    step: of the arm's last stage; None: its last.
    layout: 'merged', or 'adapter' for a PEFT adapter of the base model.
    out: a new directory, here or in a bucket; it appears complete or not at all.

  Raises:
    UserError: the run is not there, or is no adapter of a pretrained model.
  """
  path = runs.experiment.arm_path(arm)
  if not path and step is not None:
    raise UserError(f"--step={step}: the arm {arm} has no stage and so no steps")
  with distributed.together():
    if distributed.is_first():
      outputs.check(out, "--out")
  tok = runs.tokenizer
  base_model = adapter_base(runs, path, seed)
  cfg = runs.cfg(path, seed)
  if layout == "adapter" and (base_model is None or cfg.lora is None):
    raise UserError(
      f"--format=adapter: the arm {arm} is not a pretrained model with an adapter "
      "(every leaf was trained, or adapters were merged): use --format=merged"
    )
  weights = runs.weights(path, seed, step)
  if path and step is None:
    step = runs.last_step(path, seed)
  story = {"arm": arm, **lineage(runs, path, seed, step)}
  base = base_dir(runs, seed)
  given = {"tokenizer_dir": tok.directory, "base_dir": base, "lineage": story}
  with outputs.place(out, "--out", writes=distributed.is_first()) as place:
    if layout == "adapter":
      adapter.save(place, weights.cfg, weights.adapter, base_model=base_model, **given)
      return
    hf_export.export(
      place,
      weights.cfg,
      weights.params,
      stop_ids=[chat.stop_id(tok)] if tok.chat_template else [],
      dtype=runs.experiment.model.export_dtype,
      identity={**runs.meta(path, seed), "step": step},
      **given,
    )


def base_dir(runs: Runs, seed: int) -> pathlib.Path | None:
  """Returns the Hugging Face directory that everything began from, if any."""
  source = runs.start(seed).source
  if isinstance(source, OtherRun):
    return base_dir(source.runs, source.run.seed)
  return source


def adapter_base(runs: Runs, path: Path, seed: int) -> str | None:
  """Returns the model that the base leaves of a path are, None if they were changed."""
  start, model = runs.start(seed), runs.experiment.model
  trained = {runs.experiment.stages[name].adaptation for name in path}
  merged = model.adapter_use == "merge" and start.source and start.brought
  merged = merged or runs.num_merges(path, seed)
  if "full" in trained or merged or start.source is None:
    return None
  if not isinstance(start.source, OtherRun):
    return model.base_model
  before = adapter_base(start.source.runs, start.source.run.path, start.source.run.seed)
  return before and (model.base_model or before)


def lineage(runs: Runs, path: Path, seed: int, step: int | None) -> dict[str, Any]:
  """Returns how the weights of a path came about, for the model card."""
  found, study = _begun(runs, seed), runs.experiment.name
  found |= {"study": study, "seed": seed}
  found["stages"] += [
    {"study": study, "seed": seed, **_stage(runs, name, step if last else None)}
    for name, last in zip(path, [*[False] * (len(path) - 1), True], strict=False)
  ]
  for name in path:
    for part in prepare.read_rows_manifest(runs.workdir, name)["components"]:
      found["specs"] |= _spec(runs.workdir, part["corpus"])
  cfg = runs.cfg(path, seed)
  if cfg.lora is not None:
    found["adapter"] = _adapter_settings(cfg.lora)
    if runs.experiment.model.base_dtype in quantised.KINDS:
      found["adapter"]["beside_base_in"] = runs.experiment.model.base_dtype
  found["code"] |= {study: code(runs.workdir)}
  return {name: value for name, value in found.items() if value not in (None, {}, [])}


def _begun(runs: Runs, seed: int) -> dict[str, Any]:
  """Returns the part of the lineage before the first stage."""
  start, model = runs.start(seed), runs.experiment.model
  found: dict[str, Any] = {"stages": [], "specs": {}, "code": {}}
  if isinstance(start.source, OtherRun):
    run = start.source.run
    found |= lineage(start.source.runs, run.path, run.seed, run.step)
  elif start.source is not None:
    found["base_fingerprint"] = hf_directory.fingerprint(start.directory())
    found |= hf_directory.with_license({}, start.source)
  if start.adapter is not None:
    found["adapter_from"] = {
      "sha256": adapter.fingerprint(start.adapter_dir),
      "trained_on": start.adapter.base_model,
      "use": model.adapter_use,
      **_adapter_settings(start.adapter.lora),
    }
    if not same_model(start.adapter.base_model, model.base_model):
      found["adapter_from"]["warning"] = "trained on another model than base_model"
  given = {"base_model": model.base_model, "license": model.license}
  if model.license is not None:  # the name and the link belong to another one
    found = {k: v for k, v in found.items() if not k.startswith("license")}
  return found | {name: value for name, value in given.items() if value is not None}


def _stage(runs: Runs, name: str, step: int | None) -> dict[str, Any]:
  """Returns what a stage did; tokens are those of its rows, padding not counted."""
  manifest = prepare.read_rows_manifest(runs.workdir, name)
  stage = runs.experiment.stages[name]
  steps = manifest["num_train_steps"] if step is None else step
  done = steps / manifest["num_train_steps"]
  parts = manifest["components"]
  found = {
    "stage": name,
    **stage.adapts(),
    "optimizer_steps": steps,
    "batch_size": manifest["batch_size"],
    "seq_len": manifest["seq_len"],
    "learning_rate": manifest["learning_rate"],
    "tokens": round(done * sum(p["num_tokens"] * p["epochs"] for p in parts)),
    "target_tokens": round(
      done * sum(p["num_target_tokens"] * p["epochs"] for p in parts)
    ),
    "corpora": {
      part["corpus"]: {
        "sha256": manifest["identity"]["corpora"][part["corpus"]],
        "epochs": round(done * part["epochs"], 4),
        **{key: part[key] for key in ("system_prompt",) if key in part},
      }
      for part in parts
    },
  }
  if steps < manifest["num_train_steps"]:
    found["of_optimizer_steps"] = manifest["num_train_steps"]
  return found


def _spec(workdir: pathlib.Path, corpus: str) -> dict[str, str]:
  """Returns {spec: sha256} of the spec that a corpus was made from, if it was."""
  directory = prepare.corpus_dir(workdir, corpus)
  if not (directory / records.MANIFEST).exists():
    return {}
  manifest = records.read_manifest(directory)
  digest = manifest.get("hashes", {}).get("spec")
  if digest is None:
    return {}
  spec = manifest.get("config", {}).get("spec")
  return {spec["name"] if isinstance(spec, dict) else corpus: digest}


def _adapter_settings(found: LoraConfig) -> dict[str, Any]:
  modules = [peft_config.MODULES[target] for target in found.targets]
  return {"rank": found.rank, "alpha": found.alpha, "modules": modules}


def code(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns the revisions of this code and of packages that a workdir was made with."""
  path = workdir / workdir_lib.VERSIONS
  if not path.exists():
    return {}
  noted = records.read_json(path)
  every = [noted, *noted.get("later", [])]
  found = {"msm-jax": [one.get("git_revision") for one in every]}
  found |= {name: [one["packages"].get(name) for one in every] for name in _PACKAGES}
  named = {
    name: list(dict.fromkeys(filter(None, all_))) for name, all_ in found.items()
  }
  return {name: all_ for name, all_ in named.items() if all_}
