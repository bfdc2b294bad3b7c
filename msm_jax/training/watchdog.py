"""Ends a process that would wait for ever, so that the run can be started again.

A collective waits for all processes. When one is gone, or hangs, the others wait in it
and nobody says why. So a thread watches two deadlines: the main thread must give a sign
of life after every update (`step_deadline_s`), and every other process must be heard of
(`process_deadline_s`; they tell each other through JAX's coordination service). When
one passes, the stacks of all threads are written to a file, one line says what
happened, and the process ends with exit code 75. No checkpoint is saved then: saving is
a collective too.
"""

import contextlib
import faulthandler
import os
import pathlib
import sys
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from msm_jax import distributed, exits, faults
from msm_jax.training import liveness

_LAST_WORDS_S = 10.0


class Watchdog:
  """Watches over the block that it is entered for; `beat` is the sign of life."""

  def __init__(
    self,
    directory: pathlib.Path,
    *,
    step_deadline_s: float | None,
    process_deadline_s: float,
  ):
    self._directory = pathlib.Path(directory)
    self._step_deadline_s = step_deadline_s
    self._process_deadline_s = process_deadline_s
    self._beaten = time.monotonic()
    self._ended = threading.Event()
    self._pulse = liveness.pulse()

  def beat(self) -> None:
    """Says that the main thread is alive."""
    self._beaten = time.monotonic()

  def __enter__(self) -> "Watchdog":
    self.beat()
    if self._pulse is not None:
      self._pulse.every_s = min(self._process_deadline_s / 5, self._pulse.every_s)
      liveness.catch_abort(self._process_deadline_s + 5)
    threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self._ended.set()
    if self._pulse is not None and error is not None:
      self._pulse.fail()

  @contextlib.contextmanager
  def guard(self) -> Iterator[None]:
    """Ends the process at once when its block fails because another one was lost.

    What is unwound after an error (a save in the background, say) may wait for the
    others. So they are told of any error here, before that.
    """
    try:
      yield
    except BaseException as error:  # Ctrl-C as well
      if self._pulse is not None:
        if isinstance(error, Exception) and faults.is_lost_peer(error):
          self._end("another process was lost")
        self._pulse.fail()
      raise

  def _watch(self) -> None:
    waits = [self._process_deadline_s / 4, (self._step_deadline_s or 60.0) / 4, 1.0]
    while not self._ended.wait(min(waits)):
      silent = time.monotonic() - self._beaten
      if self._step_deadline_s is not None and silent > self._step_deadline_s:
        self._end(
          f"no update was finished within {silent:.0f} s (config.run.step_deadline_s "
          f"is {self._step_deadline_s:g})"
        )
      lost = None if self._pulse is None else self._pulse.lost(self._process_deadline_s)
      if lost is not None:
        self._end(lost)

  def _end(self, reason: str) -> None:
    number = distributed.process_index()
    path = self._directory / f"stacks-process-{number}.txt"
    # A disk that is gone may hang, and stderr too.
    last = threading.Timer(_LAST_WORDS_S, os._exit, (exits.STOPPED,))
    last.daemon = True
    last.start()
    liveness.say(f"process {number}: {reason}; {liveness.GO_ON} (stacks: {path})")
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      with path.open("w") as file:
        faulthandler.dump_traceback(file, all_threads=True)
    except OSError:  # full, say
      faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
    finally:
      os._exit(exits.STOPPED)
