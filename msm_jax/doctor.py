"""What this machine has and what is missing: versions, devices, keys, disk."""

import importlib.util
import os
import pathlib
import shutil
from collections.abc import Iterator

from msm_jax import workdir as workdir_lib

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
  "libtpu": "tpu",
}
_KEYS = (
  "GOOGLE_API_KEY",
  "GEMINI_API_KEY",
  "GOOGLE_GEMINI_BASE_URL",
  "OPENAI_API_KEY",
  "ANTHROPIC_API_KEY",
)


def report(workdir: pathlib.Path | None) -> Iterator[str]:
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
  place = workdir or pathlib.Path()
  while not place.exists():
    place = place.parent
  free = shutil.disk_usage(place).free
  yield f"disk at {place.resolve()}: {free / 2**30:.1f} GiB free"
