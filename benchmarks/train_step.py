"""One training step beside the peers: time and memory.

    python benchmarks/train_step.py [--workload=w|llama8b] [--steps=12] [--core=0]
      [--sides=SIDE,SIDE...] [--maxtext=VENV] [--malloc=auto|none|LIBRARY]

Workload w (CPU): a Llama-style decoder of 18,880,896 parameters (D 384, 8 layers, 6
heads, 2 kv heads, mlp 1024, vocabulary 8192, untied), 8 packed rows of 512, AdamW with
clipping. Sides, each a process pinned to one and the same core:

  ours_f32, ours_bf16     this framework, float32 parameters
  hf_f32, hf_bf16         transformers, eager, sdpa, fused AdamW; bf16 by autocast
  maxtext_f32             MaxText's own loop, minimal remat (--maxtext: a virtual
                          environment that has it)

Workload llama8b (one accelerator): the shapes of Llama 3.1 8B, LoRA of rank 64 on all
projections over a frozen bfloat16 base, packed rows of 4096. Sides: ours_lora, hf_lora
(transformers and PEFT, sdpa, gradient checkpointing, bfloat16 by autocast as Trainer's
bf16=True). All are on the device at once and take memory as they need it.

The processes wait for each other: step i is made by one side after the other, so that
what else the machine does hits all alike. All sides see the same rows, segments and
positions, and the same allocator (tcmalloc by LD_PRELOAD where it is found). Two steps
of each come first and do not count. Time is CPU time on a CPU (the median over steps),
wall time on an accelerator; memory is the high-water mark of the process, compilation
included, or of the device. A side that is not installed is left out, and said so; one
that a limit names and that dies is no result (exit code 1).

Stated limits: float32 1.15 x hf and 1.5 x maxtext, bfloat16 1.0 x hf, memory at most
that of hf; llama8b 1.3 x hf and half of the peak FLOP/s. The last line is the smallest
of what was measured over its limit: above 1 is within all of them.
"""

import argparse
import contextlib
import glob
import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
from collections.abc import Iterable

import training_sides

sys.path.insert(0, str(training_sides.ROOT))

from msm_jax import metrics

_WARM_UP = 2


class Side:
  """A process that makes steps when it is told to."""

  def __init__(self, name: str, args: argparse.Namespace, environment: dict[str, str]):
    self.name, self.answers = name, []
    python = sys.executable
    if name.startswith("maxtext"):
      python = str(pathlib.Path(args.maxtext) / "bin" / "python")
    command = [python, training_sides.__file__, name, args.workload]
    if args.workload == "w":
      command = ["taskset", "-c", str(args.core), *command]
    self.process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=None if args.verbose else subprocess.DEVNULL,
      env=environment,
      text=True,
    )

  def step(self, number: int) -> bool:
    """Makes a step; returns whether the side is still there."""
    try:
      self.process.stdin.write(f"{number}\n")
      self.process.stdin.flush()
    except BrokenPipeError:
      return False
    line = self.process.stdout.readline()
    if line and number >= _WARM_UP:
      self.answers.append(json.loads(line))
    return bool(line)

  def close(self) -> None:
    with contextlib.suppress(BrokenPipeError):  # it may be dead
      self.process.stdin.close()
    self.process.wait()

  def peak_mb(self) -> float:
    """Returns the high-water mark of the device, of the process on a CPU."""
    last = self.answers[-1]
    return last["rss_mb"] if last["device_mb"] is None else last["device_mb"]

  def median(self, name: str) -> float:
    return statistics.median(answer[name] for answer in self.answers)


def is_installed(side: str, args: argparse.Namespace) -> bool:
  """Returns whether a side can run; says why if not."""
  if side.startswith("maxtext"):
    missing = None if args.maxtext else "--maxtext=VENV"
  elif side.startswith("hf"):
    needs = ["torch", "transformers", *(["peft"] if side == "hf_lora" else [])]
    missing = next((n for n in needs if importlib.util.find_spec(n) is None), None)
  else:
    missing = None
  if missing:
    print(f"{side}: left out, {missing} is not there")
  return missing is None


def environment(args: argparse.Namespace) -> dict[str, str]:
  """Returns the environment that all sides share."""
  found = {**os.environ, "HF_HUB_OFFLINE": "1", "DECOUPLE_GCLOUD": "TRUE"}
  if args.workload == "w":
    found |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1"}
  else:  # what one process does not use yet, the others may have
    found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
  library = args.malloc
  if library == "auto":
    places = glob.glob("/usr/lib/*/libtcmalloc_minimal.so.4")
    library = places[0] if places else "none"
  if library != "none":
    found["LD_PRELOAD"] = library
    found["TCMALLOC_LARGE_ALLOC_REPORT_THRESHOLD"] = str(1 << 60)
  print(f"allocator of all sides: {library if library != 'none' else 'the default'}")
  return found


def accelerator() -> str | None:
  """Returns the kind of the first accelerator, asked for in another process."""
  code = "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind, sep='|')"
  run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
  platform, _, kind = run.stdout.strip().partition("|")
  return None if platform in ("", "cpu") else kind


def report(workload: str, sides: dict[str, Side], kind: str | None) -> list[float]:
  """Prints the table; returns what was measured over its limit."""
  B, T = training_sides.WORKLOADS[workload]["rows"]
  clock = "cpu" if workload == "w" else "wall"
  print(f"{'side':14}{clock + ' s':>10}{'tokens/s':>10}{'peak MB':>10}{'loss':>8}")
  for side in sides.values():
    seconds, loss = side.median(clock), side.answers[-1]["loss"]
    memory = side.peak_mb()
    print(
      f"{side.name:14}{seconds:10.3f}{B * T / seconds:10.0f}{memory:10.0f}{loss:8.3f}"
    )
  found = []

  def against(what: str, value: float, limit: float) -> None:
    found.append(value / limit)
    print(f"{what}: {value:.3f} (limit {limit})")

  for ours_name, peer, limit in training_sides.WORKLOADS[workload]["limits"]:
    if ours_name in sides and peer in sides:
      ratios = [
        theirs[clock] / mine[clock]
        for mine, theirs in zip(
          sides[ours_name].answers, sides[peer].answers, strict=True
        )
      ]
      value = sides[peer].median(clock) / sides[ours_name].median(clock)
      spread = f"{min(ratios):.2f} to {max(ratios):.2f} step by step"
      against(f"speed, {ours_name} / {peer} ({spread})", value, limit)
  if workload == "w" and {"ours_f32", "hf_f32"} <= set(sides):
    memory = [sides[name].answers[-1]["rss_mb"] for name in ("hf_f32", "ours_f32")]
    against("peak memory, hf_f32 / ours_f32", memory[0] / memory[1], 1.0)
  peak = metrics.peak_flops_of_kind(kind) if kind else None
  if workload == "llama8b" and peak and "ours_lora" in sides:
    against("MFU", _flops(workload) / sides["ours_lora"].median("wall") / peak, 0.5)
  return found


def _flops(workload: str) -> float:
  """Returns the model FLOPs of a step with a frozen base, causal attention halved."""
  V, D, F, L, N, K, H = training_sides.WORKLOADS[workload]["sizes"]
  B, T = training_sides.WORKLOADS[workload]["rows"]
  weights = L * (2 * D * H * (N + K) + 3 * D * F) + V * D
  return B * T * (4 * weights + 12 * L * N * H * T / 2)


def named_by_limits(workload: str, sides: Iterable[str]) -> list[str]:
  """Returns those of `sides` that a limit of the workload names."""
  limits = training_sides.WORKLOADS[workload]["limits"]
  named = {name for mine, theirs, _ in limits for name in (mine, theirs)}
  return sorted(named & set(sides))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
  parser.add_argument(
    "--workload", choices=sorted(training_sides.WORKLOADS), default="w"
  )
  parser.add_argument("--steps", type=int, default=12)
  parser.add_argument("--core", type=int, default=0)
  parser.add_argument("--sides")
  parser.add_argument("--maxtext")
  parser.add_argument("--malloc", default="auto")
  parser.add_argument("--verbose", action="store_true")
  args = parser.parse_args()
  kind = None
  if args.workload != "w":
    kind = accelerator()
    if kind is None:
      return print(f"workload {args.workload} needs an accelerator: none here, skipped")
  names = (
    args.sides.split(",")
    if args.sides
    else training_sides.WORKLOADS[args.workload]["sides"]
  )
  shared = environment(args)
  sides = {n: Side(n, args, shared) for n in names if is_installed(n, args)}
  died = set()
  for number in range(_WARM_UP + args.steps):
    for name in list(sides):
      if not sides[name].step(number):
        print(f"{name}: it ended (see --verbose)")
        died.add(name)
        sides.pop(name).close()
    if number >= _WARM_UP:
      clock = "cpu" if args.workload == "w" else "wall"
      seconds = (f"{name} {s.answers[-1][clock]:.2f}" for name, s in sides.items())
      print(f"step {number - _WARM_UP + 1}:", *seconds, flush=True)
  for side in sides.values():
    side.close()
  found = report(args.workload, sides, kind)
  missing = named_by_limits(args.workload, died)
  if missing:
    sys.exit(f"no ratio: {', '.join(missing)} ended, which the limits name")
  if found:
    print(f"ratio: {min(found):.3f}")


if __name__ == "__main__":
  main()
