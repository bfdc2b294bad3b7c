"""Machines that are a directory and real processes on this one.

A machine is ROOT/NAME with `home/` and `environment.json`, what a TPU host finds out
from its metadata server. All that runs "on" it bears `FAKE_HOST` in its environment, so
that taking the machine away ends all of it, whoever started it; and nothing of another
machine that has its name by then.

What few need is imported where they do: `fake_tools/gcloud` is started a hundred times.
"""

import contextlib
import json
import os
import pathlib
import signal
import sys
import time
from collections.abc import Sequence

MARK = "FAKE_HOST"
ROOT = pathlib.Path(__file__).parent.parent
# The names of machines mean something in their network alone, of which this is all.
_PYTHON = """#!/bin/sh
if [ -n "$JAX_COORDINATOR_ADDRESS" ]; then
  export JAX_COORDINATOR_ADDRESS=127.0.0.1:$FAKE_PORT
fi
if [ "$1" = launch.py ] && [ -n "$FAKE_LAUNCH" ]; then
  exec {python} $FAKE_LAUNCH
fi
exec {python} "$@"
"""


def free_port() -> int:
  """Returns a port that nobody listens to now."""
  import socket

  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    return probe.getsockname()[1]


def make(root: pathlib.Path, names: Sequence[str], first: int = 0) -> None:
  """Makes the machines of a slice: JAX finds its processes as it would there.

  Process 0 is on machine `first`, and the others follow it.
  """
  import uuid

  port = str(free_port())
  for number, name in enumerate(names):
    (root / name / "home").mkdir(parents=True, exist_ok=True)
    found = {
      "FAKE_PORT": port,
      "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
      "JAX_NUM_PROCESSES": str(len(names)),
      "JAX_PROCESS_ID": str((number - first) % len(names)),
      "JAX_NUM_CPU_DEVICES": "1",
      "JAX_PLATFORMS": "cpu",
      MARK: mark_of(root / name) or f"{root / name}/{uuid.uuid4().hex}",
    }
    _write(root / name / "environment.json", found)


def prepare(machine: pathlib.Path) -> None:
  """Puts Python there, as an image with everything installed has it."""
  import hashlib

  venv = machine / "home" / ".msm-jax" / "venv"
  (venv / "bin").mkdir(parents=True, exist_ok=True)
  python = venv / "bin" / "python"
  python.write_text(_PYTHON.format(python=sys.executable))
  python.chmod(0o755)
  known = [
    ROOT / name for name in ("pyproject.toml", "constraints.txt", "tpu/setup.sh")
  ]
  data = b"".join(path.read_bytes() for path in known)
  # What its set-up will be asked for, and the end of a line.
  data += b"gcs\n" if machine.name.endswith("-cpu") else b"tpu,gcs\n"
  (venv / ".set_up").write_text(hashlib.sha256(data).hexdigest())


def exists(machine: pathlib.Path) -> bool:
  """Returns whether a machine was made and not taken away."""
  return (machine / "environment.json").exists()


def mark_of(machine: pathlib.Path) -> str:
  """Returns what processes on a machine bear, "" if there is no such machine."""
  try:
    return json.loads((machine / "environment.json").read_text())[MARK]
  except FileNotFoundError:
    return ""


def _write(path: pathlib.Path, found: dict[str, str]) -> None:
  new = path.with_suffix(f".{os.getpid()}")
  new.write_text(json.dumps(found))
  new.replace(path)


def environment(machine: pathlib.Path) -> dict[str, str]:
  """Returns the environment of a process on a machine."""
  found = json.loads((machine / "environment.json").read_text())
  return {**os.environ, **found, "HOME": str(machine / "home")}


def start(machine: pathlib.Path, argv: Sequence[str], cwd: pathlib.Path) -> None:
  """Starts a process that outlives this one and is nobody's child."""
  import subprocess

  with (machine / "output.log").open("ab") as log:
    subprocess.run(
      ["setsid", "--fork", *argv],
      cwd=cwd,
      env=environment(machine),
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      check=True,
    )


def processes(machine: pathlib.Path | str) -> list[int]:
  """Returns the processes on a machine (or on all of them, given their root)."""
  if not machine:  # of none that is there
    return []
  wanted, found = f"{MARK}={machine}".encode(), []
  for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    with contextlib.suppress(OSError):
      for entry in path.read_bytes().split(b"\0"):
        if entry == wanted or entry.startswith(wanted + b"/"):
          found.append(int(path.parent.name))
  return found


def signal_all(machine: pathlib.Path | str, number: int) -> None:
  """Signals all processes on a machine."""
  for pid in processes(machine):
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, number)


def take_away(machine: pathlib.Path) -> None:
  """Ends a machine at once, and its disk is gone."""
  take_all_away({machine: mark_of(machine)})


def take_all_away(marks: dict[pathlib.Path, str], grace_s: float = 0.0) -> None:
  """Ends machines: SIGTERM, SIGKILL `grace_s` later, and their disks are gone.

  Args:
    marks: each with what `mark_of` said of it. One of the same name that was made since
      is another.
    grace_s: less if nothing runs there any more.
  """
  import shutil

  deadline = time.monotonic() + grace_s
  for mark in marks.values():
    if grace_s:
      signal_all(mark, signal.SIGTERM)
  while any(map(processes, marks.values())):
    if time.monotonic() >= deadline:
      for mark in marks.values():
        signal_all(mark, signal.SIGKILL)
    time.sleep(0.02)
  for machine, mark in marks.items():
    if mark_of(machine) == mark:
      shutil.rmtree(machine, ignore_errors=True)
