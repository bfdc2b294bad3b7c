"""Seeds over processes, one core each: what pays on a CPU.

A tiny model keeps one core busy and no more, so a study's seeds are dealt to worker
processes, each a `launch.py` of its own with `--seed=...`. On an accelerator there is
one process and `num_workers` is 1.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import IO

from msm_jax import exits, progress
from msm_jax.errors import Stopped, UserError

_IS_WORKER = "MSM_JAX_WORKER"


def is_worker() -> bool:
  """Returns whether this process was started by `run`."""
  return _IS_WORKER in os.environ


def deal(mode: str, seeds: Sequence[int], num_workers: int) -> bool:
  """Runs `mode` of this very command in worker processes where that pays.

  Returns:
    Whether it did; if not, this process is to do the work.
  """
  if num_workers == 1 or len(seeds) == 1 or is_worker():
    return False
  run(launch_command([mode, *sys.argv[2:]]), seeds, num_workers)
  return True


def run(command: Sequence[str], seeds: Sequence[int], num_workers: int) -> None:
  """Runs `command --seed=<some of seeds>` in up to `num_workers` processes.

  Each worker's lines are passed on as they come, marked with its number. When one fails
  the others are stopped (they save what they have).

  Raises:
    UserError: a worker ended with an error that a person can fix.
    Stopped: the work was interrupted.
  """
  shares = [seeds[i::num_workers] for i in range(min(num_workers, len(seeds)))]
  workers = [_start(command, share, i) for i, share in enumerate(shares)]
  errors: list[str] = []
  echoes = [
    threading.Thread(target=_echo, args=(worker.stderr, f"[{i}] ", errors), daemon=True)
    for i, worker in enumerate(workers)
  ]
  for echo in echoes:
    echo.start()
  try:
    codes = _wait(workers)
  except KeyboardInterrupt:
    _stop(workers)
    for worker in workers:
      worker.wait()
    raise Stopped("stopped; run again to go on") from None
  finally:
    _stop(workers)
    for echo in echoes:
      echo.join(timeout=10)
  if all(code == 0 for code in codes):
    return
  if any(code not in (0, exits.STOPPED, -signal.SIGTERM) for code in codes):
    if errors:
      raise UserError(errors[0])
    if exits.USER in codes:
      raise UserError("a worker process stopped; what it said stands above")
    raise RuntimeError(f"a worker process failed (exit codes {codes}); see above")
  raise Stopped("stopped; run again to go on")


def _start(command: Sequence[str], seeds: Sequence[int], number: int):
  environment = os.environ | {_IS_WORKER: str(number)}
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
  core = {cores[number % len(cores)]} if cores else None

  def pin():  # one core each, so that the workers' thread pools have one thread
    if core:
      os.sched_setaffinity(0, core)

  return subprocess.Popen(
    [*command, f"--seed={','.join(map(str, seeds))}"],
    env=environment,
    stderr=subprocess.PIPE,
    text=True,
    preexec_fn=pin,
  )


def _wait(workers: Sequence[subprocess.Popen]) -> list[int]:
  """Waits for all; the first failure stops the rest."""
  previous = signal.signal(signal.SIGTERM, _interrupt)
  try:
    while any(worker.poll() is None for worker in workers):
      for worker in workers:
        try:
          worker.wait(timeout=0.2)
        except subprocess.TimeoutExpired:
          continue
        if worker.returncode:
          _stop(workers)
  finally:
    signal.signal(signal.SIGTERM, previous)
  return [worker.returncode for worker in workers]


def _interrupt(number: int, frame: object) -> None:
  raise KeyboardInterrupt


def _stop(workers: Sequence[subprocess.Popen]) -> None:
  for worker in workers:
    if worker.poll() is None:
      worker.send_signal(signal.SIGTERM)


def _echo(stream: IO[str], prefix: str, errors: list[str]) -> None:
  """Passes a worker's lines on, and keeps what it says that a person can fix."""
  for line in stream:
    if line.startswith(exits.ERROR):
      errors.append(line.removeprefix(exits.ERROR).strip())
    else:
      progress.say(prefix + line.rstrip("\n"))


def launch_command(arguments: Sequence[str]) -> list[str]:
  """Returns the command that runs this program again with other arguments."""
  return [sys.executable, sys.argv[0], *arguments]
