"""Starts `train_process.py` in one or several processes, and reads what they left."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys

from msm_jax import distributed, packing, records

HERE = pathlib.Path(__file__).parent


def write_rows(directory: pathlib.Path, pieces) -> str:
  """Writes packed rows of 32 slots and returns where they lie."""
  rows = map(packing.to_record, packing.pack(pieces, 32))
  records.write_dataset(directory, rows, manifest={})
  return str(directory)


def run(
  out: pathlib.Path,
  job: dict,
  *,
  count: int = 1,
  num_devices: int = 1,
  patience_s: float = 300.0,
) -> list[tuple[int, str]]:
  """Runs a job in `count` processes; returns (exit code, stderr) of each.

  A process that was stopped (SIGSTOP) is killed once all others have ended.
  """
  out.mkdir(parents=True, exist_ok=True)
  (out / "job.json").write_text(json.dumps({"out": str(out), **job}))
  environment = os.environ | {"NUM_DEVICES": str(num_devices), "MSM_JAX_QUIET": "0"}
  if count > 1:
    with socket.socket() as probe:
      probe.bind(("127.0.0.1", 0))
      environment[distributed.ADDRESS] = f"127.0.0.1:{probe.getsockname()[1]}"
    environment[distributed.COUNT] = str(count)
  started = [
    _start(out, i, environment | ({distributed.NUMBER: str(i)} if count > 1 else {}))
    for i in range(count)
  ]
  stopped = job.get("victim") if job.get("signal") == "SIGSTOP" else None
  try:
    for i, process in enumerate(started):
      if i != stopped:
        process.wait(timeout=patience_s)
  finally:
    for process in started:
      process.kill()
  return [
    (process.wait(), (out / f"stderr-{i}").read_text())
    for i, process in enumerate(started)
  ]


def _start(out: pathlib.Path, number: int, environment: dict) -> subprocess.Popen:
  with (out / f"stderr-{number}").open("w") as stderr:
    return subprocess.Popen(
      [sys.executable, HERE / "train_process.py", out / "job.json"],
      env=environment,
      cwd=HERE.parent,
      stderr=stderr,
    )


def seen(out: pathlib.Path, number: int = 0) -> dict:
  """Returns what a process that came to its end wrote."""
  return json.loads((out / f"process-{number}.json").read_text())


def figures(run_dir: pathlib.Path) -> list[dict[str, float]]:
  """Returns the metrics of a run without what a clock had a part in."""
  lines = (run_dir / "metrics.jsonl").read_text().splitlines()
  return [
    {name: value for name, value in json.loads(line).items() if name[:5] != "perf/"}
    for line in lines
  ]


KILLED = -signal.SIGKILL
