"""The command of a step on one host: a group of processes of which nothing is left."""

import contextlib
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

MARK = "MSM_TPU_HOST"  # in the environment of the command and all that it starts


class Command:
  """Runs one command at a time, its output appended to a log.

  Args:
    argv: the command.
    log: where stdout and stderr go.
    mark: tells its processes from those of others on this machine.
    environment: of the command.
  """

  def __init__(
    self,
    argv: Sequence[str],
    log: pathlib.Path,
    mark: str,
    environment: Mapping[str, str] = os.environ,
  ):
    self._argv, self._log, self._mark = list(argv), log, mark
    self._environment = {**environment, MARK: mark}
    self._process: subprocess.Popen | None = None
    self._began = 0  # bytes in the log before it
    self._ending_at: float | None = None

  def start(self) -> None:
    """Starts it, in a session of its own; what an agent before this left is killed."""
    self.sweep()
    self._ending_at = None
    with self._log.open("ab") as log:
      self._began = log.tell()
      self._process = subprocess.Popen(
        self._argv,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=self._environment,
        start_new_session=True,
      )

  @property
  def is_running(self) -> bool:
    """Returns whether it was started and has not ended."""
    return self._process is not None and self._process.poll() is None

  @property
  def code(self) -> int | None:
    """Returns how the last one ended; minus the signal's number if by one."""
    return None if self._process is None else self._process.poll()

  def signal(self, number: int) -> None:
    """Signals the group, if there is one."""
    if not self.is_running:
      return
    if number == signal.SIGTERM:
      self._ending_at = self._ending_at or time.monotonic()
    with contextlib.suppress(ProcessLookupError):
      os.killpg(self._process.pid, number)

  def end(self, grace_s: float) -> bool:
    """Ends it: SIGTERM at the first call, SIGKILL `grace_s` later.

    Returns:
      Whether all of it is gone. Until then this is to be called again.
    """
    if self.is_running:
      if self._ending_at is None:
        self.signal(signal.SIGTERM)
      if time.monotonic() - self._ending_at < grace_s:
        return False
      self.signal(signal.SIGKILL)
      self._process.wait()
    self.sweep()
    return True

  def sweep(self) -> None:
    """Kills what bears the mark, in whatever group, until there is none."""
    while found := list(marked(self._mark)):
      for pid in found:
        with contextlib.suppress(ProcessLookupError):
          os.kill(pid, signal.SIGKILL)
      time.sleep(0.02)
      if self._process is not None:
        self._process.poll()  # a zombie has no environment any more

  def last_words(self) -> str:
    """Returns the line that says most: the last `error:`, else the last of all."""
    with self._log.open("rb") as log:
      log.seek(max(self._began, log.seek(0, os.SEEK_END) - 65536))
      lines = log.read().decode("utf-8", "replace").splitlines()
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or [""])[-1][-1000:]


def marked(mark: str) -> Iterator[int]:
  """Yields the processes of this user whose environment bears a mark (Linux)."""
  wanted = f"{MARK}={mark}".encode()
  for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    with contextlib.suppress(OSError):  # ended, or of somebody else
      if wanted in path.read_bytes().split(b"\0"):
        yield int(path.parent.name)
