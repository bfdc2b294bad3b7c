"""A job on fake machines, looked after in threads or processes, and hurt meanwhile."""

import pathlib
import sys
import threading
import time
from collections.abc import Callable

import fake_hosts
import local_target
from counted import Counted

from msm_jax import topology
from tpu import board as board_lib
from tpu import supervisor
from tpu.job import Job, Step
from tpu.timing import Timing

HERE = pathlib.Path(__file__).parent
QUICK = Timing(
  poll_s=0.05,
  beat_s=0.1,
  gather_s=0.2,
  lost_s=1.0,
  barrier_s=60.0,
  settle_s=0.5,
  grace_s=2.0,
  backoff_s=0.1,
  max_backoff_s=0.4,
  look_s=0.1,
  first_beat_s=5.0,
)
MADE: list["Drive"] = []  # for tests to clean up
SLICES = {1: "v5p:2x2x1", 2: "v5p:2x2x2", 4: "v5p:2x2x4"}


class Drive(Counted):
  """One job whose command counts, on `num_hosts` machines of a `Local` target.

  Attributes:
    said: lines of the supervisor.
    error: what it ended with.
  """

  def __init__(
    self,
    tmp_path: pathlib.Path,
    num_hosts: int = 2,
    num_steps: int = 20,
    step_s: float = 0.02,
    orders: list[dict] | None = None,
    timing: Timing = QUICK,
    **fields,
  ):
    (machines,) = topology.parse(SLICES[num_hosts])
    self.out = self.counts = tmp_path / "out"
    self.out.mkdir(exist_ok=True)
    (tmp_path / "shared").mkdir(exist_ok=True)
    self.order(*(orders or []))
    fields = {"steps": (Step(name="study", mode="run"),)} | fields
    self.job = Job(
      name="drive",
      config="configs/none.py",
      machines=machines,
      workdir=str(self.out),
      code="1",
      **fields,
    )
    self.board = board_lib.open_(str(tmp_path / "shared" / "jobs" / "drive"))
    command = [str(HERE / "counting_process.py"), str(self.out)]
    command = [sys.executable, *command, str(num_steps), str(step_s)]
    self.target = local_target.Local(tmp_path / "cloud", self.board, command)
    self.timing, self.said = timing, []
    self.error: BaseException | None = None
    self._thread: threading.Thread | None = None
    MADE.append(self)

  def look_after(self, **how) -> None:
    """Runs a supervisor to its end, here."""
    supervisor.look_after(
      self.job,
      self.target,
      self.board,
      timing=self.timing,
      say=self.said.append,
      **how,
    )

  def __enter__(self) -> "Drive":
    """Runs a supervisor in a thread."""
    self._thread = threading.Thread(target=self._run)
    self._thread.start()
    return self

  def __exit__(self, kind, error, trace) -> None:
    if error is not None and self._thread.is_alive():
      self.board.ask_to_stop()
    self._thread.join(60)

  def _run(self) -> None:
    try:
      self.look_after()
    except BaseException as error:
      self.error = error

  def end(self) -> None:
    """Ends whatever is left."""
    for machine in self.target.root.glob("*/*"):
      if machine.is_dir():
        fake_hosts.take_away(machine)

  def wait_for(self, what: Callable[[], object], seconds: float = 30.0) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
      assert self._thread is None or self._thread.is_alive(), (self.error, self.said)
      assert time.monotonic() < deadline, (self.said, self.logs())
      time.sleep(0.02)

  def wait_until_idle(self) -> None:
    """Waits until no process is left on any machine."""
    deadline = time.monotonic() + 10
    while self.left():
      assert time.monotonic() < deadline, self.logs()
      time.sleep(0.05)

  def wait_for_step(self, step: int) -> None:
    """Waits until the command counted so far."""
    self.wait_for(lambda: self.has_counted(step))

  def record(self, step: str = "study") -> board_lib.Attempt:
    """Returns how the step stands."""
    return self.board.attempt(step)

  def log(self, host: int, step: str = "study") -> str:
    """Returns the log of a host, as gathered."""
    return (self.board.log(step, host) or b"").decode()

  def logs(self) -> str:
    """Returns all logs."""
    return "\n".join(self.log(k) for k in range(self.job.machines.num_hosts))

  def left(self) -> list[int]:
    """Returns processes that still run on any machine."""
    return fake_hosts.processes(self.target.root)
