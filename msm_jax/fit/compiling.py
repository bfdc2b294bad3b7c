"""One ahead-of-time compilation, in a process of its own.

The compiler is that of `libtpu`, which needs no TPU but takes gigabytes, minutes and
sometimes the process with it. So each step is compiled in a child that may run out of
time or die, and answers with one line of JSON.
"""

import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import io
import json
import os
import pickle
import re
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax

from msm_jax import xla_flags
from msm_jax.errors import UserError
from msm_jax.fit import step
from msm_jax.fit.case import Case
from msm_jax.topology import Topology

GIB = 2**30
FAST = "O0"
# Without these a machine that is no TPU host asks the network what it is, and two
# compilations at once stop each other.
ENVIRONMENT = {
  "JAX_PLATFORMS": "cpu",
  "TPU_SKIP_MDS_QUERY": "1",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_LOG_DIR": "disabled",
  "TPU_MIN_LOG_LEVEL": "3",
  "TPU_STDERR_LOG_LEVEL": "3",
}
_CHILD = (
  "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
  "from msm_jax.fit import compiling; compiling.child()"
)
_MARK = "fit-result:"
_SHORTAGE = re.compile(
  r"\(?([\d.]+)([KMGT]?)\)? (?:of|exceeds available HBM) \(?([\d.]+)G"
)
_UNITS = {"": 1 / GIB, "K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}


@dataclasses.dataclass(frozen=True)
class Request:
  """What to compile: `level` None is the compiler's usual effort, `FAST` the least."""

  case: Case
  topology: Topology
  mesh: Mapping[str, int]
  level: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compiled:
  """What came out. Memory is in bytes per device; `needed` is None where unknown.

  Attributes:
    status: 'fits', 'exceeds', 'timeout' or 'failed'.
    needed: at the peak, for `exceeds` at least.
    available: what the compiler has for a program, as far as it says so.
    classes: `needed` by class; None where the compiler gave up before it counted.
    peak: of arguments and all else, as the compiler counts; None likewise.
    host: what waits in the host's memory.
    seconds: of lowering and compiling, wall time.
    cpu_seconds: of the child.
    why: for people, unless it fits.
    flags: XLA's, of training and of LIBTPU_INIT_ARGS; the compiler knows them all.
    notes: what training would say of its settings here.
  """

  status: str
  needed: int | None = None
  available: int | None = None
  classes: Mapping[str, int] | None = None
  peak: int | None = None
  host: int = 0
  seconds: float = 0.0
  cpu_seconds: float = 0.0
  why: str = ""
  flags: Mapping[str, str] = dataclasses.field(default_factory=dict)
  notes: tuple[str, ...] = ()

  @property
  def fits(self) -> bool:
    """Returns whether it was compiled."""
    return self.status == "fits"


def check_installed() -> str:
  """Returns the version of `libtpu`, or raises a UserError that says how to get it."""
  if importlib.util.find_spec("libtpu") is None:
    settings = " ".join(f"{k}={v}" for k, v in list(ENVIRONMENT.items())[:3])
    raise UserError(
      "fit needs the TPU compiler, which is not installed: pip install 'msm-jax[tpu]' "
      "(in a clone: pip install -c constraints.txt '.[tpu]'). It needs no TPU; beside "
      f"it, on a machine without one, run other modes with {settings}"
    )
  return importlib.metadata.version("libtpu")


def compile_step(request: Request, time_limit_s: float) -> Compiled:
  """Compiles a step in a child; what goes wrong there is an answer, too.

  Raises:
    UserError: for what no other settings of the search would mend.
  """
  started = time.monotonic()
  environment = {**os.environ, **ENVIRONMENT}
  environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # not for devices that are absent
  flags = environment.pop("LIBTPU_INIT_ARGS", "")  # the child takes them as options
  environment.pop("XLA_FLAGS", None)
  if request.level:
    environment["JAX_OPTIMIZATION_LEVEL"] = request.level
  try:
    done = subprocess.run(
      [sys.executable, "-c", _CHILD, json.dumps(sys.path)],
      input=pickle.dumps((request, flags)),
      capture_output=True,
      env=environment,
      timeout=time_limit_s,
    )
  except subprocess.TimeoutExpired:
    return Compiled(
      status="timeout",
      seconds=time.monotonic() - started,
      why=f"not compiled within {time_limit_s:g} s",
    )
  lines = done.stdout.decode("utf-8", "replace").splitlines()
  found = [line for line in lines if line.startswith(_MARK)]
  if found:
    answer = json.loads(found[-1].removeprefix(_MARK))
    if "user_error" in answer:
      raise UserError(answer["user_error"])
    answer["notes"] = tuple(answer.get("notes", ()))
    return Compiled(**answer, seconds=round(time.monotonic() - started, 1))
  last = done.stderr.decode("utf-8", "replace").strip().splitlines()[-1:]
  return Compiled(
    status="failed",
    seconds=time.monotonic() - started,
    why=f"the compiler died with code {done.returncode}: {''.join(last)[:300]}",
  )


def child() -> None:
  """Answers one request from stdin."""
  request, flags = pickle.loads(sys.stdin.buffer.read())
  try:
    answer = compile_here(request, xla_flags.parse(flags)[0])
  except UserError as error:
    answer = {"user_error": str(error)}
  print(_MARK + json.dumps(answer), flush=True)


def compile_here(request: Request, more_flags: Mapping[str, str]) -> dict[str, Any]:
  """Compiles a step in this process; returns the fields of `Compiled`."""
  devices = _devices(request.topology)
  num_slices = request.topology.num_slices
  ours = xla_flags.of_kind(devices[0].device_kind, num_slices)
  _check_flags(ours, "msm_jax/xla_flags.py", devices[0])
  _check_flags(more_flags, "LIBTPU_INIT_ARGS", devices[0])
  answer: dict[str, Any] = {"flags": ours | dict(more_flags)}
  said = io.StringIO()
  try:
    with contextlib.redirect_stderr(said):
      lowered, parts = step.lower(request.case, request.mesh, devices)
    answer["notes"] = said.getvalue().splitlines()
    compiled = lowered.compile(compiler_options=dict(more_flags))
  except UserError:
    raise
  except Exception as error:
    return answer | _failure(error) | _cpu_seconds()
  chip = request.topology.chip
  available = round(chip.hbm_gib * GIB / chip.devices_per_chip)
  found = verdict(_memory(compiled.memory_analysis(), parts), available)
  return answer | found | _cpu_seconds()


def verdict(found: Mapping[str, Any], available: int) -> dict[str, Any]:
  """Returns what was counted of a program with its status; all is not the compiler's
  own count, so what it let pass may still exceed.
  """
  answer = {**found, "status": "fits", "available": available}
  if found["needed"] > available:
    answer["status"] = "exceeds"
    answer["why"] = (
      f"compiled, but it needs {found['needed'] / GIB:.2f} of {available / GIB:.2f} GiB"
    )
  return answer


def _devices(topology: Topology) -> list[jax.Device]:
  from jax.experimental import topologies

  more = {"num_slices": topology.num_slices} if topology.num_slices > 1 else {}
  if topology.chip.config_name:
    more["chip_config_name"] = topology.chip.config_name
  if topology.num_chips == topology.num_slices:  # one chip is a host of its own
    more["chips_per_host_bounds"] = (1, 1, 1)
  found = topologies.get_topology_desc(
    platform="tpu", topology_name=topology.slice_name, **more
  )
  assert len(found.devices) == topology.num_devices, (topology, found.devices)
  return list(found.devices)


def _check_flags(flags: Mapping[str, str], where: str, device: jax.Device) -> None:
  """Raises a UserError for flags that the compiler refuses, of next to nothing."""
  layout = jax.sharding.SingleDeviceSharding(device)
  lowered = jax.jit(lambda x: x + 1).lower(
    jax.ShapeDtypeStruct((8, 128), "float32", sharding=layout)
  )
  refused = []
  for name, value in flags.items():
    try:
      lowered.compile(compiler_options={name: value})
    except jax.errors.JaxRuntimeError as error:
      if "compile option" not in str(error) and "into flag" not in str(error):
        raise
      refused.append(f"{name}={value}")
  if refused:
    raise UserError(
      f"libtpu {check_installed()} does not know {', '.join(refused)} (of {where}): "
      "training would end at its first step. Take it out, or install another libtpu"
    )


def _memory(stats: Any, parts: Mapping[str, int]) -> dict[str, Any]:
  """Returns what a program needs: its arguments, and a block for all else.

  Results take the place of the arguments, which are donated, but for the metrics.
  """
  classes = dict(parts)
  gradients = min(classes.pop("gradients"), stats.temp_size_in_bytes)
  classes["padding"] = stats.argument_size_in_bytes - sum(classes.values())
  classes["gradients"] = gradients
  classes["activations"] = stats.temp_size_in_bytes - gradients
  classes["program"] = stats.generated_code_size_in_bytes + (
    stats.output_size_in_bytes - stats.alias_size_in_bytes
  )
  return {
    "needed": sum(classes.values()),
    "classes": classes,
    "peak": stats.peak_memory_in_bytes,
    "host": stats.host_temp_size_in_bytes + stats.host_argument_size_in_bytes,
  }


def _failure(error: Exception) -> dict[str, Any]:
  """Returns what an error of the compiler says; too little memory is an answer."""
  text = " ".join(str(error).split())
  found = read_shortage(text)
  if found is None:
    return {"status": "failed", "why": text[:500]}
  needed, available = found
  return {
    "status": "exceeds",
    "needed": needed,
    "available": available,
    "why": text[:300],
  }


def read_shortage(text: str) -> tuple[int, int] | None:
  """Returns (needed, available) bytes that a message names; None if it is another."""
  match = _SHORTAGE.search(text)
  if match is None:
    return None
  needed = float(match[1]) * _UNITS[match[2]]
  return round(needed * GIB), round(float(match[3]) * GIB)


def _cpu_seconds() -> dict[str, float]:
  usage = resource.getrusage(resource.RUSAGE_SELF)
  return {"cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1)}
