"""Chat templates to text, each render behind a wall (`template_worker.py`).

One worker process serves a process of ours, for all its threads; it starts with the
first render and ends with us. A template that does not end costs a clear message, never
the run.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError
from msm_jax.text import template_worker

_WALL_SECONDS = 300  # a worker that says nothing for so long is stuck, not slow
_START = (
  "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
  "from msm_jax.text import template_worker; template_worker.main(float(sys.argv[2]))"
)


def render(
  template: str,
  jobs: Sequence[Mapping[str, Any]],
  *,
  where: str,
  date: str | None = None,
) -> list[str]:
  """Returns the text of a template for each set of variables.

  Args:
    template: jinja.
    jobs: variables of each render, plain values as in JSON.
    where: whose template it is, for the message.
    date: YYYY-MM-DD, what `strftime_now` tells.

  Raises:
    UserError: the template refuses, fails, does not end or writes without end.
  """
  request = {"template": template, "date": date, "jobs": list(jobs)}
  try:
    line = json.dumps(request)
  except (TypeError, ValueError) as error:
    raise UserError(
      f"{where}: a message is not plain text and lists ({error})"
    ) from None
  answer = _worker.ask(line)
  if "error" in answer:
    roles = [message.get("role") for message in jobs[0].get("messages", ())]
    raise UserError(
      f"{where}: the chat template refuses a conversation with roles {roles} "
      f"({answer['error']})"
    )
  return answer["texts"]


class _Worker:
  """A worker process; started when needed, started again after its death."""

  def __init__(self, cpu_seconds: float = template_worker.CPU_SECONDS):
    self.cpu_seconds = cpu_seconds
    self.owner = os.getpid()
    self.lock = threading.Lock()
    self.process: subprocess.Popen | None = None
    atexit.register(self.stop)

  def ask(self, line: str) -> dict[str, Any]:
    """Returns the answer to a request; what killed the worker as its error."""
    with self.lock:
      if self.process is None:
        self.process = self._start()
      timer = threading.Timer(_WALL_SECONDS, self.process.kill)
      timer.daemon = True
      timer.start()
      try:
        answer = self._exchange(self.process, line)
      finally:
        timer.cancel()
      if answer:
        return json.loads(answer)
      code, said = self._bury()
    if code in (-signal.SIGPROF, -signal.SIGKILL):
      limit = f"{self.cpu_seconds:g} s of processor time"
      return {"error": f"it did not end within {limit}"}
    return {"error": f"its process ended with code {code} {said}"}

  def _start(self) -> subprocess.Popen:
    return subprocess.Popen(
      [sys.executable, "-c", _START, json.dumps(sys.path), str(self.cpu_seconds)],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      encoding="utf-8",
      start_new_session=True,  # Ctrl-C is for us; the worker ends with its input
    )

  def _exchange(self, process: subprocess.Popen, line: str) -> str:
    try:
      process.stdin.write(line + "\n")
      process.stdin.flush()
      return process.stdout.readline()
    except BrokenPipeError:
      return ""
    except BaseException:  # an interrupt between question and answer
      process.kill()
      self._bury()
      raise

  def _bury(self) -> tuple[int, str]:
    process, self.process = self.process, None
    try:
      _, said = process.communicate(timeout=60)
    except (subprocess.TimeoutExpired, ValueError, OSError):
      process.kill()
      said = ""
      process.wait()
    last = (said or "").strip().splitlines()[-1:]
    return process.returncode, " ".join(last)

  def stop(self) -> None:
    """Ends the worker process, unless it is the one of the process that we came of."""
    if self.process is not None and self.owner == os.getpid():
      self.process.kill()
      self._bury()


_worker = _Worker()
_inherited: list[_Worker] = []  # never touched, never collected


def _after_fork() -> None:
  """Gives a forked process its own worker: pipes and locks cannot be shared."""
  global _worker
  _inherited.append(_worker)
  _worker = _Worker()


os.register_at_fork(after_in_child=_after_fork)
