"""What this machine has and what is missing: versions, devices, keys, disk."""

import importlib.util
import os
import pathlib
import shutil
import time
from collections.abc import Iterator

from msm_jax import workdir as workdir_lib
from msm_jax.errors import Stopped, UserError
from msm_jax.storage import cache, inputs

_EXTRAS = {
  "transformers": "hf (verify against transformers)",
  "torch": "hf (verify against transformers)",
  "peft": "hf (adapters checked in PEFT)",
  "gguf": "hf (read GGUF files)",
  "pyarrow": "data (Parquet and Arrow files)",
  "anthropic": "anthropic (Claude as teacher or judge)",
  "inspect_ai": "eval (Inspect tasks)",
  "tensorboardX": "tensorboard (config.run.trackers)",
  "wandb": "wandb (config.run.trackers)",
  "trackio": "trackio (config.run.trackers)",
  "gcsfs": "gcs (paths in a bucket, gs://...)",
  "libtpu": "tpu",
}
_KEYS = (
  "GOOGLE_API_KEY",
  "GEMINI_API_KEY",
  "GOOGLE_GEMINI_BASE_URL",
  "OPENAI_API_KEY",
  "ANTHROPIC_API_KEY",
  "GOOGLE_APPLICATION_CREDENTIALS",
)


def report(workdir: str | os.PathLike[str] | None) -> Iterator[str]:
  """Yields lines; never a key itself."""
  import jax

  found = workdir_lib.versions()
  yield f"python {found['python']}, revision {found['git_revision']}"
  for name, version in found["packages"].items():
    yield f"  {name} {version or 'MISSING: make install'}"
  yield f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}"
  yield f"cores: {os.cpu_count()}"
  for module, extra in _EXTRAS.items():
    if importlib.util.find_spec(module) is None:
      yield f"optional {module}: absent; pip install 'msm-jax[{extra.split()[0]}]'"
    else:
      yield f"optional {module}: present ({extra})"
  for key in _KEYS:
    yield f"{key}: {'set' if os.environ.get(key) else 'not set'}"
  if workdir is not None and inputs.is_remote(workdir):
    yield _bucket(os.fspath(workdir))
    yield f"cache of buckets: {_disk(cache.directory())} (MSM_JAX_CACHE)"
  else:
    yield f"disk at {_disk(pathlib.Path(workdir or ''))}"


def _disk(place: pathlib.Path) -> str:
  while not place.exists():
    place = place.parent
  return f"{place.resolve()}: {shutil.disk_usage(place).free / 2**30:.1f} GiB free"


def _bucket(url: str) -> str:
  """Returns whether a bucket answers, and how long that takes."""
  started = time.monotonic()
  try:
    there = inputs.exists(url)
  except (UserError, Stopped) as error:
    return f"bucket: NO: {error}"
  took_s = time.monotonic() - started
  found = "has something there" if there else "has nothing there yet"
  return f"bucket: {url} answers in {1000 * took_s:.0f} ms, {found}"
