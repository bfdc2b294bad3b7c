"""One workdir belongs to one config: what it was made with, and by what.

`claim` writes `config.json` and `versions.json` and refuses a workdir in which
something was made with another config, naming the field. A field counts from the
moment that something made with it lies in the workdir; fields that change no result
never count.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.storage import checkpoint_dirs

CONFIG = "config.json"
VERSIONS = "versions.json"

# Dotted prefixes of fields that may differ between two uses of a workdir. Where a study
# begins is compared by content (a fingerprint in every run), so that a model may move.
_FREE = (
  "agreement",
  "allow_missing_controls",
  "analyses",  # made again when they change
  "audit",
  "budget",
  "hardware",
  "mesh",
  "model.adapter_from",
  "model.base_model",
  "model.export_dtype",
  "model.init_from",
  "model.license",
  "num_workers",
  "pilot",
  "report",
  "run",
  "second_judge",
  "seeds",
)
_FREE_OF_CLIENT = (
  "api_key_env",
  "api_version",
  "cache",
  "context_tokens",
  "location",
  "base_url",
  "max_attempts",
  "max_concurrency",
  "prices",
  "project",
  "start_concurrency",
  "tier",
  "timeout_s",
  "token_limit_field",
)
_FREE_OF_STAGE = (  # how a run goes; its identity has none of them (runs.py)
  "attention",
  "checkpoint_at",
  "checkpoint_every_s",
  "checkpoint_every_steps",
  "log_every_steps",
  "loss_chunk_len",
  "remat",
  "scan_layers",
  "steps_per_call",
)
# Fields of a stage that its runs depend on and its rows do not. The adaptation and the
# learning rate stand beside the rows, so they count from there.
_OF_RUNS = ("adapter_use", "freeze", "num_microbatches", "optimizer", "optimizer_state")
# What fields that came later stand for in the stages of configs from before them.
_LATER = {"adapter_use": "continue", "freeze": [], "optimizer_state": "reset"}
_LATER_OF_OPTIMIZER = {"moments_dtype": "float32"}
_PACKAGES = (
  "jax",
  "jaxlib",
  "flax",
  "optax",
  "orbax-checkpoint",
  "grain",
  "array-record",
  "sentencepiece",
  "tokenizers",
  "google-genai",
  "numpy",
)


def claim(workdir: pathlib.Path, config: Mapping[str, Any]) -> None:
  """Makes `workdir` this config's, or refuses.

  Raises:
    UserError: it cannot be written to, or was made with another config.
  """
  config = json.loads(json.dumps(config))
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f"--workdir={workdir} cannot be made ({error.strerror}): choose another"
    ) from None
  if not os.access(workdir, os.W_OK):
    raise UserError(f"--workdir={workdir} is not writable: choose another")
  path = workdir / CONFIG
  if path.exists():
    for name, before, now in differences(
      normalised(records.read_json(path)), normalised(config)
    ):
      if not _is_made(workdir, name.split(".")):
        continue
      raise UserError(
        f"{path}: this workdir was made with config.{name} = {before!r}, now it is "
        f"{now!r}: choose another --workdir or set it back"
      )
  if not path.exists() or records.read_json(path) != config:
    records.write_json(path, config)
  _note_versions(workdir / VERSIONS)


def normalised(config: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a config from a workdir in today's words, if it is one from before them."""
  stages = {}
  for name, stage in config.get("stages", {}).items():
    optimizer = _LATER_OF_OPTIMIZER | stage.get("optimizer", {})
    stages[name] = _LATER | stage | {"optimizer": optimizer}
    if isinstance(stage.get("remat"), bool):
      stages[name]["remat"] = "full" if stage["remat"] else "none"
  return {**config, "stages": stages}


def differences(
  before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
  """Yields (dotted name, value before, value now) of the fields that may matter."""
  for key in sorted(set(before) & set(now)):
    name = f"{prefix}{key}"
    if any(name == free or name.startswith(free + ".") for free in _FREE):
      continue
    if prefix.startswith("stages.") and key in _FREE_OF_STAGE:
      continue
    if prefix in ("teacher.", "judge.") and key in _FREE_OF_CLIENT:
      continue
    if isinstance(before[key], dict) and isinstance(now[key], dict):
      yield from differences(before[key], now[key], name + ".")
    elif before[key] != now[key]:
      yield name, before[key], now[key]


def _is_made(workdir: pathlib.Path, name: Sequence[str]) -> bool:
  """Returns whether something lies in `workdir` that the field `name` had a part in."""
  match name:
    case ["corpora", corpus, *_]:
      return (workdir / "corpus" / corpus).exists()
    case ["specs" | "teacher" | "world", *_]:
      return any((workdir / "corpus").glob("*/manifest.json"))
    case ["judge", *_]:  # scores say themselves who graded them
      made = map(records.read_json, (workdir / "corpus").glob("*/manifest.json"))
      return any("judge" in manifest.get("config", {}) for manifest in made)
    case ["tokenizer", *_]:
      return (workdir / "tokenizer").exists()
    case ["model", *_]:
      return any(checkpoint_dirs.runs_saved(workdir))
    case ["stages", stage, field, *rest] if field in _OF_RUNS and rest != [
      "learning_rate"
    ]:
      runs = checkpoint_dirs.runs_saved(workdir)
      return any(stage in run_dir.parent.name.split("+") for run_dir in runs)
    case ["stages", stage, *_]:
      return (workdir / "rows" / stage).exists()
    case ["arms" | "asked", arm, *_]:
      return any((workdir / "evals").glob(f"*.{arm}.seed*.jsonl"))
    case ["evals", evaluation, *_]:
      return any((workdir / "evals").glob(f"{evaluation}.*.seed*.jsonl"))
  return True


def versions() -> dict[str, Any]:
  """Returns what the code runs on: packages, Python, git revision."""
  packages = {}
  for name in _PACKAGES:
    try:
      packages[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      packages[name] = None
  return {
    "packages": packages,
    "python": platform.python_version(),
    "git_revision": git_revision(),
    "command": " ".join(["python", *sys.argv]),
  }


def git_revision() -> str | None:
  """Returns the revision of this code, with `+changes` if the tree is not clean."""
  here = pathlib.Path(__file__).parent
  try:
    revision = _git(here, "rev-parse", "HEAD")
    return revision + ("+changes" if _git(here, "status", "--porcelain") else "")
  except (OSError, subprocess.CalledProcessError):
    return None


def _git(directory: pathlib.Path, *arguments: str) -> str:
  return subprocess.run(
    ["git", "-C", str(directory), *arguments],
    check=True,
    capture_output=True,
    text=True,
  ).stdout.strip()


def _note_versions(path: pathlib.Path) -> None:
  """Keeps what the workdir was begun with; other versions used later are added."""
  found = versions()
  if not path.exists():
    records.write_json(path, found)
    return
  kept = records.read_json(path)
  same = ("packages", "python", "git_revision")
  known = [kept, *kept.get("later", [])]
  if not any(all(old.get(key) == found[key] for key in same) for old in known):
    kept["later"] = [*kept.get("later", []), found]
    records.write_json(path, kept)
