"""Several processes, one program: how they find each other and how they agree.

A run on many hosts is the same command on each of them. What starts the processes sets

    JAX_COORDINATOR_ADDRESS  host:port of process 0
    JAX_NUM_PROCESSES        how many there are
    JAX_PROCESS_ID           which this one is, from 0

or, where the cluster is one that JAX knows (Cloud TPU, Slurm, Kubernetes),
MSM_JAX_DISTRIBUTED=1. On a TPU slice of several hosts nothing needs to be set.

Who is first, writes and speaks, is `jax.process_index() == 0`. On a CPU or GPU that is
JAX_PROCESS_ID; a TPU numbers its processes itself, whatever is said here, and from one
start to the next in another order (NovaSky-AI/SkyRL#1252, apple/axlearn#745). So nobody
may take a process for a host of the same number; JAX_PROCESS_ID=0 is where JAX's own
service runs, and no more.

An error on one process would leave the others waiting in the next collective for ever,
so work that all do together ends with `together`: either all go on or all raise.
"""

import atexit
import contextlib
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import NoReturn

import numpy as np

from msm_jax import progress
from msm_jax.errors import Stopped, UserError

ADDRESS, COUNT, NUMBER = (
  "JAX_COORDINATOR_ADDRESS",
  "JAX_NUM_PROCESSES",
  "JAX_PROCESS_ID",
)
DETECT = "MSM_JAX_DISTRIBUTED"
_TPU_HOSTS, _TPU_SLICES = "TPU_WORKER_HOSTNAMES", "MEGASCALE_NUM_SLICES"
_IS_WORKER = "MSM_JAX_WORKER"  # see workers.py
_MAX_BYTES = 4096  # of what a process tells the others
_AFTER: list[Callable[[], None]] = []  # see `after_together`


def initialize(timeout_s: float = 300.0) -> None:
  """Joins the other processes of this run, if there are any; before JAX is used.

  All but process 0 fall silent. Process 0 is waited for `timeout_s` seconds, and then
  the others once more as long.

  Raises:
    UserError: the environment is incomplete, or the others cannot be reached.
  """
  given = arguments(os.environ)
  if given is None:
    return
  if _IS_WORKER in os.environ:
    raise UserError(
      "config.num_workers deals seeds to processes of one host, but this is a run of "
      "several processes: set config.num_workers to 1"
    )
  if given.get("process_id"):
    _wait_for_first(str(given["coordinator_address"]), timeout_s)
  import jax  # only here: most commands of a single process do without for a while

  try:
    jax.distributed.initialize(**given, initialization_timeout=int(timeout_s))
  except (RuntimeError, ValueError) as error:
    where = given.get("coordinator_address", "(detected)")
    reason = str(error).split("\n", 1)[0]
    raise UserError(
      f"{ADDRESS}={where}: the processes do not find each other ({reason}); start the "
      "same command on every host, with the same address"
    ) from None
  _listen_again()
  if jax.process_index() > 0:
    progress.mute()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (open until the process ends)


def _listen_again() -> None:
  """Puts back what listens to SIGTERM: JAX now notes it, for one who never asks.

  What a training loop agrees on is `training/ballot.py`; before it, a process that was
  to stop went on.
  """
  if threading.current_thread() is threading.main_thread():
    signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM) or signal.SIG_DFL)


def shutdown() -> None:
  """Leaves the other processes, once all are here; nothing when there are none."""
  if num_processes() > 1:
    _jax().distributed.shutdown()


def leave(code: int, timeout_s: float = 5.0) -> NoReturn:
  """Ends this process with `code`; one that failed waits for nothing.

  The other processes may not have failed, and then would never come to the barrier at
  the end; and threads of a save that failed wait for minutes for one another.

  The interpreter is never taken down: before Python 3.14 it ends a thread that comes
  back from C++ by then (the pulse does, `training/liveness.py`) in a way that C++ takes
  for an error, and a run that was done ended with SIGSEGV.
  """
  if code:
    farewell = threading.Thread(target=_say_farewell, daemon=True)
    farewell.start()
    farewell.join(timeout_s)
  else:
    threading._shutdown()  # waits for all that are no daemons, as the end does
    atexit._run_exitfuncs()
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError, ValueError):  # a pipe that nobody reads any more
      stream.flush()
  os._exit(code)


def _say_farewell() -> None:
  """Does what the end of a process does, but for waiting for threads."""
  shutdown()
  atexit._run_exitfuncs()


def num_processes() -> int:
  """Returns how many processes run together; does not start a backend for one."""
  return _jax().process_count() if _jax() else 1


def process_index() -> int:
  """Returns which process this is."""
  return _jax().process_index() if _jax() else 0


def _jax() -> ModuleType | None:
  """Returns JAX where there are other processes; else it need not be imported."""
  jax = sys.modules.get("jax")  # `initialize` imports it
  return jax if jax is not None and jax.distributed.is_initialized() else None


def is_first() -> bool:
  """Returns whether this process is the one that writes and speaks."""
  return process_index() == 0


def exchange(text: str) -> list[str]:
  """Returns what every process said, in order; all must call it.

  Raises:
    ValueError: `text` is longer than 4094 bytes.
  """
  if num_processes() == 1:
    return [text]
  from jax.experimental import multihost_utils

  data = text.encode("utf-8")
  if len(data) > _MAX_BYTES - 2:
    raise ValueError(f"{len(data)} bytes are too much for an exchange")
  message = np.zeros(_MAX_BYTES, np.uint8)
  message[:2] = len(data) % 256, len(data) // 256
  message[2 : 2 + len(data)] = np.frombuffer(data, np.uint8)
  said = np.asarray(multihost_utils.process_allgather(message))
  lengths = said[:, 0].astype(int) + 256 * said[:, 1].astype(int)
  return [
    row[2 : 2 + n].tobytes().decode("utf-8")
    for row, n in zip(said, lengths, strict=True)
  ]


def told_by_first(text: str) -> str:
  """Returns what process 0 says, of any length, in ASCII; all must call it."""
  size = _MAX_BYTES - 2
  parts = [text[i : i + size] for i in range(0, len(text), size)]
  count = int(exchange(str(len(parts)))[0])
  parts = parts if is_first() else [""] * count
  return "".join(exchange(part)[0] for part in parts)


def agree(error: Exception | None = None) -> None:
  """Raises on every process when one of them has an error; all must call it.

  Raises:
    Exception: `error` itself where there is one, elsewhere the first one that another
      process has, of the same kind (UserError, Stopped, OSError or RuntimeError).
  """
  if num_processes() == 1:
    if error is not None:
      raise error
    return
  said = exchange(_told(error))
  if error is not None:
    raise _marked(error)
  for number, told in enumerate(said):
    if told:
      raise _marked(_from_told(told, number))


@contextlib.contextmanager
def together() -> Iterator[None]:
  """Lets all processes leave its block, or raises on all of them; all must enter it.

  Within it may be collectives, as long as each follows a call of `agree`: a process
  that leaves early with an error then meets the others there.
  """
  try:
    yield
  except Exception as error:
    if getattr(error, "_agreed", False):  # the others know
      raise
    agree(error)
    raise AssertionError("unreachable") from None
  agree()
  for work in _AFTER:
    work()


@contextlib.contextmanager
def after_together(work: Callable[[], None]) -> Iterator[None]:
  """Within it, all processes do `work` at the end of every block of `together`.

  What process 0 made in the block is on its own disk, and others may have theirs.
  """
  _AFTER.append(work)
  try:
    yield
  finally:
    _AFTER.remove(work)


def _wait_for_first(address: str, timeout_s: float) -> None:
  """Waits until process 0 listens: JAX would end this process without a word to it."""
  host, port = address.rsplit(":", 1)
  deadline = time.monotonic() + timeout_s
  while True:
    try:
      return socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
      if time.monotonic() > deadline:
        raise UserError(
          f"{ADDRESS}={address}: process 0 did not answer within {timeout_s:.0f} s "
          f"({error.strerror or error}); start the same command on every host, with "
          "the address of the host of process 0"
        ) from None
    time.sleep(min(1.0, timeout_s / 10))


def _told(error: Exception | None) -> str:
  """Returns an error as JSON: [kind, text, errno]; nothing for none."""
  if error is None:
    return ""
  if isinstance(error, OSError) and error.errno is not None:
    return json.dumps(["os", _short(error.strerror or str(error)), error.errno])
  for kind, cls in (("user", UserError), ("stopped", Stopped)):
    if isinstance(error, cls):
      return json.dumps([kind, _short(str(error)), None])
  return json.dumps(["bug", _short(f"{type(error).__name__}: {error}"), None])


def _from_told(told: str, number: int) -> Exception:
  kind, text, code = json.loads(told)
  if kind == "os":
    return OSError(code, text)
  if kind == "bug":
    return RuntimeError(f"process {number}: {text}")
  return {"user": UserError, "stopped": Stopped}[kind](text)


def _short(text: str) -> str:
  return " ".join(text.split()).encode("ascii", "replace").decode("ascii")[:1500]


def _marked(error: Exception) -> Exception:
  error._agreed = True
  return error


def arguments(environment: Mapping[str, str]) -> dict[str, object] | None:
  """Returns the arguments for JAX; None when this is the only process."""
  given = [name for name in (ADDRESS, COUNT, NUMBER) if environment.get(name)]
  if len(given) == 3:
    count, number = (_whole(environment, name) for name in (COUNT, NUMBER))
    if not 0 <= number < count:
      raise UserError(
        f"{NUMBER}={number}: it must be from 0 to {count - 1} ({COUNT} is {count})"
      )
    if not re.fullmatch(r".+:\d+", environment[ADDRESS]):
      raise UserError(f"{ADDRESS}={environment[ADDRESS]}: it must be host:port")
    return {
      "coordinator_address": environment[ADDRESS],
      "num_processes": count,
      "process_id": number,
    }
  if environment.get(DETECT) == "1" or _is_tpu_pod(environment):
    return {}
  if given:
    absent = [name for name in (ADDRESS, COUNT, NUMBER) if name not in given]
    raise UserError(
      f"{given[0]} is set but not {', '.join(absent)}: set all three, or {DETECT}=1 "
      "where JAX finds out by itself"
    )
  return None


def _is_tpu_pod(environment: Mapping[str, str]) -> bool:
  hosts = [host for host in environment.get(_TPU_HOSTS, "").split(",") if host]
  platform = environment.get("JAX_PLATFORMS", "").partition(",")[0]  # the first is used
  if environment.get(DETECT) == "0" or platform == "cpu":
    return False
  return len(hosts) > 1 or int(environment.get(_TPU_SLICES) or 1) > 1


def _whole(environment: Mapping[str, str], name: str) -> int:
  try:
    return int(environment[name])
  except ValueError:
    raise UserError(f"{name}={environment[name]!r} is no whole number") from None
