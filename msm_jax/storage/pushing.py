"""Pushes a mirror while a run goes on, and once more when it ends.

A thread looks for changed files every `MSM_JAX_PUSH_EVERY_S` seconds (default 10), and
at once when it is told that a step is done. While the bucket does not answer the run
goes on and the thread tries again; only at the end is a file that is not there an
error.
"""

import os
import threading

from msm_jax import progress
from msm_jax.errors import Stopped, UserError
from msm_jax.storage.mirror import Mirror

EVERY = "MSM_JAX_PUSH_EVERY_S"
_MAX_WAIT_S = 120.0  # between tries
_PAUSE_S = 1.0  # between pushes: an object may be written so often


def every_s() -> float:
  """Returns how often changed files are looked for."""
  given = os.environ.get(EVERY, "10")
  try:
    found = float(given)
  except ValueError:
    found = 0.0
  if not found > 0:
    raise UserError(f"{EVERY}={given} is not a number of seconds above 0")
  return found


class Pusher(threading.Thread):
  """Pushes a mirror in the background until `close`."""

  def __init__(self, mirror: Mirror):
    super().__init__(name="push", daemon=True)
    self._mirror, self._every_s = mirror, every_s()
    self._lock = threading.Lock()  # of the mirror
    self._woken, self._ended = threading.Event(), threading.Event()
    self.start()

  def run(self) -> None:
    """Pushes now and then."""
    wait_s = self._every_s
    while not self._ended.is_set():
      self._woken.wait(wait_s)
      self._woken.clear()
      if self._ended.is_set():
        return
      try:
        with self._lock:
          if self._ended.is_set():  # `close` had the lock before: its push is the last
            return
          self._mirror.push(spares_large=True)
      except Exception as error:
        if wait_s == self._every_s:
          progress.say(f"WARNING: not pushed for now, the run goes on: {error}")
        wait_s = min(max(2 * wait_s, 1.0), _MAX_WAIT_S)
        continue
      if wait_s > self._every_s:
        progress.say(f"{self._mirror.url}: pushed again")
      wait_s = self._every_s
      self._ended.wait(min(_PAUSE_S, self._every_s))

  def wake(self) -> None:
    """Has changed files looked for at once; does not wait for it."""
    self._woken.set()

  def settle(self) -> int:
    """Pushes all there is; returns the generation of the index that names it.

    Raises:
      UserError, Unreachable: it could not be pushed.
    """
    with self._lock:
      self._mirror.push()
      return self._mirror.generation

  def close(self) -> None:
    """Ends, and pushes what is left.

    Raises:
      UserError, Stopped: files could not be pushed; they are where they were.
    """
    self._ended.set()
    self._woken.set()
    mirror = self._mirror
    try:
      with self._lock:
        late = mirror.push()
    except (UserError, Stopped, OSError) as error:
      told, late = error, mirror.unsent()
    else:
      told = None
    if told is None and not late:
      return
    missing = "the index of its files did not reach the bucket"
    if late:
      missing = f"{len(late)} files did not reach the bucket, the first is {late[0]}"
    kind = UserError if isinstance(told, UserError) else Stopped
    raise kind(
      f"{mirror.url}: {missing} ({told or 'they change all the time'}); they are "
      f"in {mirror.root}: run again on this machine, and they are pushed first"
    )
