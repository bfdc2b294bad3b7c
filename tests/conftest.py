"""Eight virtual CPU devices, strict ranks, no network, nothing to say on stderr."""

import errno
import faulthandler
import gc
import os
import socket
import sys
import tempfile
import threading
import traceback

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["MSM_JAX_QUIET"] = "1"
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Nearly all time of these tests is XLA's, compiling programs that run for milliseconds:
# without LLVM's optimisations, and without the emitters that write large kernels, it is
# a fifth. Any value in the environment stands, so XLA_FLAGS= tests as users compile.
_QUICK = (
  "--xla_backend_optimization_level=0",
  "--xla_llvm_disable_expensive_passes=true",
  "--xla_cpu_use_fusion_emitters=false",
)
os.environ.setdefault("XLA_FLAGS", " ".join(_QUICK))

# What one test compiled, another (or a process that it starts) need not.
_CACHE = tempfile.TemporaryDirectory(prefix="msm-jax-xla-")
os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

_LOCAL = ("127.0.0.1", "::1", "localhost")


_STRAYS: list[str] = []  # what other threads tried


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
  """Refuses what would leave this machine, and fails the test that tried.

  The refusal is an OSError, as a network's is: libraries close their socket on those
  alone. Many then go on without the answer, so what was tried is kept, too. What
  another thread tried is told at the end of all: it may be of an earlier test.
  """
  connect, tried = socket.socket.connect, []

  def guarded(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in _LOCAL:
      said = f"{address}\n{''.join(traceback.format_stack())}"
      ours = threading.current_thread() is threading.main_thread()
      (tried if ours else _STRAYS).append(said)
      raise OSError(errno.ENETUNREACH, f"a test must not reach the network: {address}")
    return connect(self, address)

  monkeypatch.setattr(socket.socket, "connect", guarded)
  yield
  assert not tried, "a test must not reach the network: " + "\n".join(tried)


def pytest_collection_finish():
  """What was imported stays: the garbage collector need not look at it each time."""
  gc.collect()
  gc.freeze()


def pytest_unconfigure():
  """Tells of strays; names the thread that keeps the process from ending."""
  for said in _STRAYS:
    print(f"a thread reached for {said}", file=sys.__stderr__)
  faulthandler.dump_traceback_later(60, exit=True)
