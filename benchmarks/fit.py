"""Whether `launch.py fit` answers in time: questions that people have.

    python benchmarks/fit.py [--what=llama,slices,v5e,v6e,v5p]

  llama  full fine-tuning of Llama-3.1-8B, rows of 8192 tokens, on v5e:4x4
  slices the same with twice the rows on two slices of v5e:4x4
  v5e    the smallest v5e slice that holds LoRA of rank 64 on Qwen3-32B, rows of 8192
  v6e    the same for v6e
  v5p    the same for v5p

Only the models' `config.json` are there (written below), no weights and no TPU. Needs
`libtpu`: pip install -c constraints.txt '.[tpu]'. Prints what `fit` prints. The stated
limit for `llama` is 4 minutes on two cores for the compilation that is reported; the
last line is that limit over the time that it took. Beside other work the time is
longer: the cores' seconds are printed, too.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).parent.parent
LIMIT_S = 240.0

_SHARED = {
  "hidden_act": "silu",
  "attention_bias": False,
  "tie_word_embeddings": False,
  "torch_dtype": "bfloat16",
  "num_key_value_heads": 8,
}
LLAMA = _SHARED | {
  "architectures": ["LlamaForCausalLM"],
  "model_type": "llama",
  "hidden_size": 4096,
  "intermediate_size": 14336,
  "num_hidden_layers": 32,
  "num_attention_heads": 32,
  "max_position_embeddings": 131072,
  "rms_norm_eps": 1e-5,
  "rope_theta": 500000.0,
  "rope_scaling": {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
  },
  "vocab_size": 128256,
}
QWEN = _SHARED | {
  "architectures": ["Qwen3ForCausalLM"],
  "model_type": "qwen3",
  "hidden_size": 5120,
  "intermediate_size": 25600,
  "num_hidden_layers": 64,
  "num_attention_heads": 64,
  "head_dim": 128,
  "max_position_embeddings": 40960,
  "rms_norm_eps": 1e-6,
  "rope_theta": 1000000.0,
  "vocab_size": 151936,
}
_ROWS = [
  "--config.stages.msm_aff.seq_len=8192",
  "--config.stages.msm_aff.batch_size=16",
]
_FULL = [
  "--config.stages.msm_aff.adaptation=full",
  "--config.model.base_dtype=float32",
]
QUESTIONS = {
  "llama": (LLAMA, "v5e:4x4", _FULL),
  "slices": (
    LLAMA,
    "v5e:4x4",
    [*_FULL, "--config.stages.msm_aff.batch_size=32", "--num_slices=2"],
  ),
  "v5e": (QWEN, "v5e", ["--config.model.base_model=Qwen/Qwen3-32B"]),
  "v6e": (QWEN, "v6e", ["--config.model.base_model=Qwen/Qwen3-32B"]),
  "v5p": (QWEN, "v5p", ["--config.model.base_model=Qwen/Qwen3-32B"]),
}


def ask(name: str) -> dict | None:
  """Runs `fit` for a question; returns what it keeps of the last slice, if any fits."""
  model, topology, more = QUESTIONS[name]
  with tempfile.TemporaryDirectory() as folder:
    directory = pathlib.Path(folder) / "model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(model), "utf-8")
    command = [
      *(sys.executable, "launch.py", "fit", "--config=configs/msm_cheese.py"),
      *(f"--topology={topology}", "--stage=msm_aff", f"--workdir={folder}/work"),
      *(f"--config.model.init_from={directory}", *_ROWS, *more),
    ]
    print(
      f"{name}: load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", flush=True
    )
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True)
    print(f"{name}: {time.monotonic() - started:.0f} s in all\n", flush=True)
    kept = [json.loads(path.read_text("utf-8")) for path in _results(folder)]
  return next((entry for entry in kept if entry["fits"]), None)


def _results(folder: str) -> list[pathlib.Path]:
  return sorted((pathlib.Path(folder) / "work" / "fit").glob("*.json"))


def main() -> None:
  """Asks what was asked for."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--what", default=",".join(QUESTIONS))
  names = parser.parse_args().what.split(",")
  answers = {name: ask(name) for name in names}
  if answers.get("llama"):
    compiled = answers["llama"]["tried"][-1]
    print(
      f"llama: {compiled['bytes_per_chip'] / 2**30:.2f} GiB per chip, compiled in "
      f"{compiled['seconds']:.0f} s ({compiled['cpu_seconds']:.0f} s of a core)"
    )
    print(f"ratio: {LIMIT_S / compiled['seconds']:.2f}")


if __name__ == "__main__":
  main()
