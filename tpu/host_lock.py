"""One agent to a host, however often it is started."""

import contextlib
import fcntl
import json
import os
import pathlib
import signal
import time
from collections.abc import Iterator


@contextlib.contextmanager
def held(path: pathlib.Path, step: str, patience_s: float) -> Iterator[int | None]:
  """Yields None with the lock held, or the process that does this very step already.

  An agent of another step is told to end, and killed `patience_s` later: there is one
  step at a time.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open("a+") as file:
    told: int | None = None
    deadline = time.monotonic() + patience_s
    while not _locked(file.fileno()):
      holder = _read(path)
      if holder and holder["step"] == step:
        yield holder["pid"]
        return
      if holder and holder["pid"] != told:
        told = holder["pid"]
        _kill(told, signal.SIGTERM)
      elif told is not None and time.monotonic() > deadline:
        _kill(told, signal.SIGKILL)
      time.sleep(0.1)
    _write(file.fileno(), {"pid": os.getpid(), "step": step})
    try:
      yield None
    finally:
      _write(file.fileno(), None)  # before the lock goes, with the file


def _locked(descriptor: int) -> bool:
  try:
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except BlockingIOError:
    return False
  return True


def _read(path: pathlib.Path) -> dict | None:
  try:
    return json.loads(path.read_text())
  except ValueError:  # it is being written
    return None


def _write(descriptor: int, holder: dict | None) -> None:
  os.ftruncate(descriptor, 0)
  os.pwrite(descriptor, json.dumps(holder).encode(), 0)


def _kill(pid: int, number: int) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.kill(pid, number)
