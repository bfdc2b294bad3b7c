"""Import and export of Hugging Face directories: time and memory beside a plain copy.

    python benchmarks/hf_io.py --dir=DIR [--size=1.5b|small] [--rounds=3] [--devices=N]
      [--cold] [--alone]

Makes a random bfloat16 model in DIR (1.5b: 3.1 GB in the shapes of Qwen2, with an
embedding of 152k x 1536; as much again is needed for the output), then runs each of

  copy          the weights read and written in chunks of 16 MB, fsync at the end
  read          the same without the writing, for comparison
  load          ours, from the files into JAX arrays on CPU devices
  export        ours, from JAX arrays to a complete directory, fsync at the end
  transformers  from_pretrained and save_pretrained, then fsync (where installed)

in a fresh process, in turn, `rounds` times. Times are of the work without the imports;
the weights are in the page cache (--cold: dropped before each run) and what is written
is removed after each. Memory is the high-water mark of the process, imports and all,
less the parameters' own bytes, which lie in host memory on CPU devices.

The stated limits are 1.5 times the copy for load and for export, and 1.0 GB above the
parameters for both; the last line is the smallest ratio of a limit to what was measured
(medians over rounds), so that above 1 is within all of them.
"""

import argparse
import importlib.util
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

_CHUNK = 16 << 20
_MAX_TIMES_COPY, _MAX_GB = 1.5, 1.0
_SIZES = {
  "1.5b": {
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
  },
  "small": {
    "hidden_size": 256,
    "intermediate_size": 1024,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 2048,
  },
}
_CONFIG = {
  "architectures": ["Qwen2ForCausalLM"],
  "model_type": "qwen2",
  "hidden_act": "silu",
  "max_position_embeddings": 32768,
  "rms_norm_eps": 1e-6,
  "rope_theta": 1000000.0,
  "tie_word_embeddings": True,
  "torch_dtype": "bfloat16",
  "use_sliding_window": False,
}


def make(directory: pathlib.Path, size: str) -> None:
  """Writes a random model and a tokenizer."""
  import ml_dtypes
  import numpy as np

  from msm_jax import records, tokenizer
  from msm_jax.hf import config as hf_config
  from msm_jax.hf import names, tensor_files

  source = directory / "model"
  source.mkdir(parents=True)
  records.write_json(source / hf_config.CONFIG_FILE, {**_CONFIG, **_SIZES[size]})
  found = names.tensors(hf_config.read(source))
  shapes = {tensor.name: tensor.shape for tensor in found}
  rng = np.random.default_rng(0)

  def random(name: str) -> np.ndarray:
    values = rng.standard_normal(shapes[name], np.float32)
    values *= 0.02
    return values.astype(ml_dtypes.bfloat16)

  tensor_files.write_files(source, shapes, np.dtype(ml_dtypes.bfloat16), random)
  words = ["a cheese is ripe and cheap", "which cheese is it ?"]
  tokenizer.train_sentencepiece(
    words,
    directory / "tokenizer",
    model_type="word",
    vocab_size=24,
    chat_template=None,
  )


def copy(directory: pathlib.Path) -> dict[str, float]:
  """Copies the weights in chunks."""
  started = time.perf_counter()
  (directory / "out").mkdir()
  for path in _weights(directory / "model"):
    target = directory / "out" / path.name
    with open(path, "rb") as source, open(target, "wb") as out:
      while chunk := source.read(_CHUNK):
        out.write(chunk)
      out.flush()
      os.fsync(out.fileno())
  return {"copy": time.perf_counter() - started}


def read(directory: pathlib.Path) -> dict[str, float]:
  """Reads the weights in chunks."""
  started = time.perf_counter()
  memory = bytearray(_CHUNK)
  for path in _weights(directory / "model"):
    with open(path, "rb", buffering=0) as source:
      while source.readinto(memory):
        pass
  return {"read": time.perf_counter() - started}


def load(directory: pathlib.Path) -> dict[str, float]:
  """Loads the model into JAX arrays."""
  _, _, seconds = _load(directory)
  return {"load": seconds}


def export(directory: pathlib.Path) -> dict[str, float]:
  """Exports the model from JAX arrays."""
  from msm_jax.hf import export as hf_export

  cfg, params, _ = _load(directory)
  started = time.perf_counter()
  out, tok = directory / "out", directory / "tokenizer"
  hf_export.export(out, cfg, params, tokenizer_dir=tok, base_dir=directory / "model")
  return {"export": time.perf_counter() - started}


def transformers(directory: pathlib.Path) -> dict[str, float]:
  """Loads and saves the model with transformers."""
  import torch
  from transformers import AutoModelForCausalLM

  started = time.perf_counter()
  model = AutoModelForCausalLM.from_pretrained(
    directory / "model", dtype=torch.bfloat16
  )
  for tensor in model.parameters():  # from_pretrained alone only maps the files
    tensor.detach().view(torch.int16).sum()
  loaded = time.perf_counter()
  model.save_pretrained(directory / "out")
  for path in _weights(directory / "out"):
    with open(path, "rb") as file:
      os.fsync(file.fileno())
  saved = time.perf_counter()
  return {"from_pretrained": loaded - started, "save_pretrained": saved - loaded}


_STEPS: dict[str, Callable[[pathlib.Path], dict[str, float]]] = {
  step.__name__: step for step in (copy, read, load, export, transformers)
}


def _load(directory: pathlib.Path):
  import jax

  from msm_jax import sharding, train_state
  from msm_jax.hf import config as hf_config
  from msm_jax.hf import load as hf_load
  from msm_jax.models import transformer

  num_devices = int(os.environ["NUM_DEVICES"])
  jax.config.update("jax_num_cpu_devices", num_devices)
  cfg = hf_config.read(directory / "model")
  shardings = None
  if num_devices > 1:
    mesh = sharding.make_mesh(1, num_devices // 2, 2)
    params = transformer.abstract_params(cfg)
    shardings = train_state.param_shardings(params, cfg, mesh)
  jax.block_until_ready(jax.numpy.zeros(()))  # the backend has started
  started = time.perf_counter()
  cfg, params = hf_load.load(directory / "model", dtype=None, shardings=shardings)
  jax.block_until_ready(params)
  return cfg, params, time.perf_counter() - started


def _weights(directory: pathlib.Path) -> list[pathlib.Path]:
  return sorted(directory.glob("*.safetensors"))


def _peak_bytes() -> int:
  """Returns the most memory that this process has had resident."""
  status = pathlib.Path("/proc/self/status").read_text()
  line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
  return int(line.split()[1]) * 1024


def _child(directory: pathlib.Path, step: str, cold: bool, num_devices: int) -> dict:
  """Runs one step in a fresh process on a disk at rest."""
  shutil.rmtree(directory / "out", ignore_errors=True)
  os.sync()
  for path in _weights(directory / "model"):
    with open(path, "rb") as file:
      if cold:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
      while not cold and file.read(_CHUNK):
        pass
  command = [sys.executable, __file__, f"--dir={directory}", f"--step={step}"]
  environment = os.environ | {"NUM_DEVICES": str(num_devices)}
  done = subprocess.run(
    command, env=environment, stdout=subprocess.PIPE, text=True, check=True
  )
  shutil.rmtree(directory / "out", ignore_errors=True)
  return json.loads(done.stdout.splitlines()[-1])


def _table(runs: dict[str, list[dict]], num_bytes: int) -> list[str]:
  lines = ["| what | s, median | s, each | x copy | GB above parameters |"]
  lines += ["|---|---|---|---|---|"]
  copied = _median(runs, "copy")
  for name in runs:
    seconds = ", ".join(f"{run['seconds']:.1f}" for run in runs[name])
    above = "" if name in ("copy", "read") else f"{_above(runs, name, num_bytes):.2f}"
    median = _median(runs, name)
    lines.append(
      f"| {name} | {median:.2f} | {seconds} | {median / copied:.2f} | {above} |"
    )
  return lines


def _median(runs: dict[str, list[dict]], name: str) -> float:
  return statistics.median(run["seconds"] for run in runs[name])


def _above(runs: dict[str, list[dict]], name: str, num_bytes: int) -> float:
  return (max(run["peak"] for run in runs[name]) - num_bytes) / 1e9


def main() -> None:
  """Runs all steps in turn, or one step in this process."""
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  parser.add_argument("--dir", required=True, help="where the files go; removed after")
  parser.add_argument("--size", choices=_SIZES, default="1.5b")
  parser.add_argument("--rounds", type=int, default=3)
  parser.add_argument("--devices", type=int, default=1, help="virtual CPU devices")
  parser.add_argument(
    "--cold", action="store_true", help="drop the weights from memory"
  )
  parser.add_argument("--alone", action="store_true", help="without transformers")
  parser.add_argument("--step", choices=_STEPS, help=argparse.SUPPRESS)
  options = parser.parse_args()
  directory = pathlib.Path(options.dir).absolute()
  if options.step:
    seconds = _STEPS[options.step](directory)
    print(json.dumps({"seconds": seconds, "peak": _peak_bytes()}))
    return
  directory = directory / "hf_io"
  make(directory, options.size)
  try:
    _compare(directory, options)
  finally:
    shutil.rmtree(directory)


def _compare(directory: pathlib.Path, options: argparse.Namespace) -> None:
  peers = all(importlib.util.find_spec(name) for name in ("transformers", "torch"))
  steps = list(_STEPS)
  if options.alone or not peers:
    steps.remove("transformers")
  runs: dict[str, list[dict]] = {}
  for _ in range(options.rounds):
    for step in steps:
      done = _child(directory, step, options.cold, options.devices)
      for name, seconds in done["seconds"].items():
        runs.setdefault(name, []).append({"seconds": seconds, "peak": done["peak"]})
  num_bytes = sum(path.stat().st_size for path in _weights(directory / "model"))
  state = "not in" if options.cold else "in"
  print(
    f"{num_bytes / 1e9:.2f} GB of weights, {state} the page cache; {os.cpu_count()} "
    f"cores, {options.devices} devices, {options.rounds} rounds"
  )
  print("\n".join(_table(runs, num_bytes)))
  limit = _MAX_TIMES_COPY * _median(runs, "copy")
  ratios = [limit / _median(runs, name) for name in ("load", "export")]
  ratios += [_MAX_GB / _above(runs, name, num_bytes) for name in ("load", "export")]
  print(f"ratio: {min(ratios):.2f}")


if __name__ == "__main__":
  main()
