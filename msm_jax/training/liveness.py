"""Whether the other processes of a run are still there."""

import atexit
import contextlib
import ctypes
import functools
import os
import signal
import socket
import sys
import threading
import time

from msm_jax import distributed, exits

GO_ON = "run again to go on from the last checkpoint"
_PULSE, _FAILED = "msm_jax/pulse", "failed"
_EVERY_S = 2.0
_REST_S = 5.0  # at most so long is waited at the end for an answer
_HANDLERS: list[object] = []  # a C callback must outlive its registration


class Pulse:
  """Signs of life between the processes of a run, through JAX's coordination service.

  A thread tells and listens, so that a process that computes is still heard of. JAX has
  heartbeats too, but aborts on them, without saying which process was lost.
  """

  def __init__(self):
    self.every_s = _EVERY_S
    self._failed = threading.Event()
    self._answered = time.monotonic()  # when the service did
    # Other process -> (what it said last, when that changed on our clock). One that
    # is never heard of is lost, too.
    self._heard = {
      number: ("", self._answered)
      for number in range(distributed.num_processes())
      if number != distributed.process_index()
    }
    self._listening, self._rests = threading.Lock(), False
    atexit.register(self._rest)  # after JAX's own, so it is done before that
    threading.Thread(target=self._beat, name="pulse", daemon=True).start()

  def fail(self) -> None:
    """Says that this process ends with an error, and nothing more."""
    self._failed.set()
    with contextlib.suppress(Exception):
      self._tell(_FAILED)

  def lost(self, deadline_s: float) -> str | None:
    """Returns who has not been heard of for too long, as a phrase; None if nobody."""
    now = time.monotonic()
    limit = f"for {deadline_s:g} s (config.run.process_deadline_s)"
    if now - self._answered > deadline_s:
      return f"JAX's service (in the first process) was not heard of {limit}"
    for number, (said, since) in sorted(self._heard.items()):
      # All may have failed alike: each gets the time to say why.
      if now - since > deadline_s:
        if said == _FAILED:
          return f"process {number} ended with an error (it says which)"
        return f"process {number} was not heard of {limit}"
    return None

  def _beat(self) -> None:
    count = 0
    while not self._failed.wait(self.every_s):
      count += 1
      with contextlib.suppress(Exception):  # the service is gone: `lost` will say so
        self._tell(str(count))
        with self._listening:
          if self._rests:
            continue
          self._listen()
        self._answered = time.monotonic()

  def _rest(self) -> None:
    """Listens no more: JAX's client aborts the process when it is closed while it is
    asked for what the others said. The others still hear of this one.
    """
    is_ours = self._listening.acquire(timeout=_REST_S)
    self._rests = True
    if is_ours:
      self._listening.release()

  def _tell(self, text: str) -> None:
    key = f"{_PULSE}/{distributed.process_index()}"
    _service().key_value_set(key, text, allow_overwrite=True)

  def _listen(self) -> None:
    now = time.monotonic()
    for key, said in _service().key_value_dir_get(f"{_PULSE}/"):
      number = int(key.rsplit("/", 1)[1])
      if number in self._heard and self._heard[number][0] != said:
        self._heard[number] = said, now


def pulse() -> Pulse | None:
  """Returns the pulse of this process, which begins with the first call and ends with
  the process; None where there is no other one.
  """
  return _only_pulse() if distributed.num_processes() > 1 else None


@functools.cache
def _only_pulse() -> Pulse:
  return Pulse()


def _service():
  """Returns the client of JAX's coordination service; Orbax uses it in the same way."""
  return _joined().client


def _joined():
  """Returns what JAX knows of the other processes, for which it has no public name."""
  from jax._src import distributed as jax_distributed

  return jax_distributed.global_state


def catch_abort(patience_s: float) -> None:
  """Lets an abort that follows from the loss of a process end with 75.

  JAX's runtime aborts a process as soon as its connection to JAX's service breaks, and
  the CPU's collectives may when one is lost in the middle of them; neither has a usable
  hook. So an abort waits `patience_s` for the service to be found gone, or for the
  watchdog to find another process lost and end this one. Any other abort remains one.
  """
  if _HANDLERS:
    return
  address = _joined().coordinator_address or ""  # given, or found by JAX
  number = distributed.process_index()
  # Not this number: a TPU numbers its processes itself (`distributed.py`).
  is_service = _joined().process_id == 0

  def on_abort(_: int) -> None:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
      if not is_service and _is_gone(address):
        say(f"process {number}: the one at {address} was lost; {GO_ON}")
        os._exit(exits.STOPPED)
      time.sleep(0.2)

  # A Python handler would only run in the main thread, which waits in a collective.
  handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
  _HANDLERS.append(handler)
  register = ctypes.CDLL(None).signal
  register.argtypes = (ctypes.c_int, ctypes.c_void_p)
  register.restype = ctypes.c_void_p
  register(signal.SIGABRT, ctypes.cast(handler, ctypes.c_void_p))


def say(line: str) -> None:
  """Prints a line on stderr, from whichever process: each host keeps its own."""
  print(line, file=sys.stderr, flush=True)


def _is_gone(address: str) -> bool:
  """Returns whether it is known that nobody listens at host:port."""
  host, _, port = address.rpartition(":")
  try:
    socket.create_connection((host.strip("[]"), int(port)), timeout=2).close()
  except ValueError:  # no address
    return False
  except OSError:
    return True
  return False
