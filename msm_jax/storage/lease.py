"""Who may write to a workdir on a bucket: an object that one run keeps alive.

The object is written anew every few seconds under the condition that nobody else wrote
it meanwhile. Who wants it watches whether it changes: no clock of another machine is
believed. A run that does not keep it alive for `lifetime_s()` is taken for dead, and
the next one follows it by itself.
"""

import contextlib
import datetime
import getpass
import json
import os
import pathlib
import socket
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from msm_jax import progress
from msm_jax.errors import Stopped, UserError
from msm_jax.storage import bucket

LIFETIME = "MSM_JAX_LEASE_S"
_BEATS = 6  # in a lifetime
_MACHINE = (  # what tells a machine, or a container on it, from all others
  "/proc/sys/kernel/random/boot_id",
  "/proc/self/ns/pid",
)


def lifetime_s() -> float:
  """Returns for how long a run may be silent before the next one takes its place."""
  given = os.environ.get(LIFETIME, "60")
  try:
    found = float(given)
  except ValueError:
    found = 0.0
  if not found > 0:
    raise UserError(f"{LIFETIME}={given} is not a number of seconds above 0")
  return found


class Lease:
  """The right to write below `url`; `beat` keeps it.

  Args:
    url: of the object.
    what: that which it guards, for people.
  """

  def __init__(self, url: str, what: str):
    self._url, self._what = url, what
    self._run = uuid.uuid4().hex
    self._generation: int | None = None
    self._since = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    self._count = 0

  def take(self, *, waits: bool = True) -> bool:
    """Takes it, from a dead run if need be; returns whether it did.

    Without `waits` that is decided at once: one that may be alive is alive.

    Raises:
      UserError: another run is alive.
    """
    while True:
      with contextlib.suppress(bucket.Changed):
        self._write(0)
        return True
      who, generation = self._read()
      if not generation:
        continue
      if _is_dead(who) or (waits and self._fell_silent(generation, who)):
        with contextlib.suppress(bucket.Changed):  # somebody was quicker
          self._write(generation)
          return True
      elif not waits:
        return False

  def _fell_silent(self, generation: int, who: dict[str, Any]) -> bool:
    """Returns whether the lease stays as it is for a lifetime, or goes.

    Raises:
      UserError: somebody keeps it alive.
    """
    until, said = time.monotonic() + lifetime_s(), False
    while time.monotonic() < until:
      time.sleep(lifetime_s() / _BEATS / 4)
      found = bucket.stat(self._url)
      if found is None:
        return False
      if found.generation != generation:
        raise UserError(
          f"{self._what} is in use by {_told(who)}: wait until it ends, or stop it; "
          f"after one that died, this command goes on {lifetime_s():g} s after its "
          "last sign of life"
        )
      if not said:
        progress.say(
          f"{self._what}: begun by {_told(who)}; waiting for a sign of life "
          f"({lifetime_s():g} s)"
        )
        said = True
    progress.say(f"{self._what}: no sign of life: going on in its place")
    return True

  def beat(self) -> None:
    """Says that this run is alive.

    Raises:
      Changed: another run took its place.
      Unreachable: the bucket does not answer.
    """
    try:
      self._write(self._generation)
    except bucket.Changed:
      # It was deleted by hand, or a beat of ours arrived, but no answer to it for as
      # long as we wait.
      who, generation = self._read()
      if generation and who.get("run") != self._run:
        raise
      self._write(generation)

  def is_ours(self) -> bool:
    """Returns whether this run still has it."""
    return self._read()[0].get("run") == self._run

  def give_back(self) -> None:
    """Lets the next run begin at once."""
    if self._generation is not None:
      with contextlib.suppress(bucket.Changed):
        bucket.delete(self._url, self._generation)
      self._generation = None

  def _write(self, generation: int | None) -> None:
    self._count += 1
    said = {
      "host": socket.gethostname(),
      "pid": os.getpid(),
      "user": _user(),
      "since": self._since,
      "machine": _machine(),
      "run": self._run,
      "count": self._count,
    }
    data = json.dumps(said).encode()
    self._generation = bucket.write_bytes(self._url, data, generation).generation

  def _read(self) -> tuple[dict[str, Any], int]:
    """Returns (what it says, its generation); 0 where there is none."""
    try:
      data, generation = bucket.read(self._url)
    except bucket.NotFound:
      return {}, 0
    try:
      return dict(json.loads(data)), generation
    except (TypeError, ValueError):  # nothing of ours
      return {}, generation


class Heart(threading.Thread):
  """Keeps a lease alive from a thread of its own; `lost` says that it is gone.

  Args:
    lease: that was taken.
    on_lost: called once, when another run has taken it.
  """

  def __init__(self, lease: Lease, on_lost: Callable[[], None]):
    super().__init__(name="lease", daemon=True)
    self.lost = False
    self._lease, self._on_lost = lease, on_lost
    self._ended = threading.Event()
    self.start()

  def run(self) -> None:
    """Beats until `end`."""
    while not self._ended.wait(lifetime_s() / _BEATS):
      try:
        self._lease.beat()
      except bucket.Changed:
        self.lost = True
        self._on_lost()
        return
      except Exception:  # no answer for now: beat again
        continue

  def end(self, *, gives_back: bool = True) -> None:
    """Lets it stop, and gives the lease back if it is still ours; else, and where the
    bucket does not answer, it ends with its lifetime.
    """
    self._ended.set()
    self.join(timeout=lifetime_s() if gives_back else 0.0)
    if gives_back and not self.lost and not self.is_alive():
      with contextlib.suppress(UserError, Stopped):
        self._lease.give_back()


def _machine() -> list[str]:
  found = []
  for path in _MACHINE:
    with contextlib.suppress(OSError):
      is_link = pathlib.Path(path).is_symlink()
      found.append(os.readlink(path) if is_link else pathlib.Path(path).read_text())
  return [each.strip() for each in found]


def _is_dead(who: dict[str, Any]) -> bool:
  """Returns whether a run was of this machine and has ended for certain."""
  machine = _machine()
  if len(machine) < len(_MACHINE) or who.get("machine") != machine:
    return False
  try:
    os.kill(int(who["pid"]), 0)
  except ProcessLookupError:
    return True
  except (OSError, KeyError, ValueError):
    return False
  return int(who["pid"]) == os.getpid()


def _told(who: dict[str, Any]) -> str:
  return (
    f"{who.get('user', '?')} on {who.get('host', '?')} (process "
    f"{who.get('pid', '?')}) since {who.get('since', '?')}"
  )


def _user() -> str:
  try:
    return getpass.getuser()
  except (KeyError, OSError):  # a container without a name for its user
    return str(os.getuid())
