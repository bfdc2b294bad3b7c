"""One workdir belongs to one config: what it was made with, and by what.

`claim` writes `config.json` and `versions.json` on first use and refuses a workdir that
was made with another config, naming the field. Fields that do not change any result may
differ, and whole entries (an arm, a stage, a seed) may be added.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError

CONFIG = "config.json"
VERSIONS = "versions.json"

# Dotted prefixes of fields that may differ between two uses of a workdir.
_FREE = (
  "allow_missing_controls",
  "budget",
  "judge.max_concurrency",
  "mesh",
  "num_workers",
  "report",
  "seeds",
  "teacher.max_concurrency",
)
_FREE_OF_STAGE = ("checkpoint_every_s", "checkpoint_every_steps", "log_every_steps")
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
    field = first_difference(records.read_json(path), config)
    if field is not None:
      name, before, now = field
      raise UserError(
        f"{path}: this workdir was made with config.{name} = {before!r}, now it is "
        f"{now!r}: choose another --workdir or set it back"
      )
  _write_if_changed(path, config)
  _write_if_changed(workdir / VERSIONS, versions())


def first_difference(
  before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = ""
) -> tuple[str, Any, Any] | None:
  """Returns (dotted name, value before, value now) of the first field that matters."""
  for key in sorted(set(before) & set(now)):
    name = f"{prefix}{key}"
    if any(name == free or name.startswith(free + ".") for free in _FREE):
      continue
    if name.startswith("stages.") and key in _FREE_OF_STAGE:
      continue
    if isinstance(before[key], dict) and isinstance(now[key], dict):
      found = first_difference(before[key], now[key], name + ".")
      if found is not None:
        return found
    elif before[key] != now[key]:
      return name, before[key], now[key]
  return None


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


def _write_if_changed(path: pathlib.Path, value: Any) -> None:
  if not path.exists() or records.read_json(path) != value:
    records.write_json(path, value)
