"""A second kind of cloud: machines of `fake_hosts.py`, without command-line tools.

Its state lies in a directory, so that supervisors come and go. `orders` in it make it
misbehave: 'fail create' and the like (once each), 'half create', 'half delete'.
"""

import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence

import fake_hosts

from tpu.board import Board
from tpu.job import Job, State, Step
from tpu.shell import Failed
from tpu.targets import Found

ROOT = pathlib.Path(__file__).parent.parent


class Local:
  """Implements `Target`.

  Args:
    root: where machines are, and what there is.
    board: of the job.
    command: what runs instead of launch.py, if anything.
  """

  name = "local"

  def __init__(
    self, root: pathlib.Path, board: Board, command: Sequence[str] | None = None
  ):
    self.root, self._board, self._command = root, board, command
    root.mkdir(parents=True, exist_ok=True)
    self.calls: list[str] = []
    self.restarts_itself = False
    self.first = 0  # machine that has process 0

  def check(self, job: Job) -> None:
    """Refuses nothing."""

  def create(self, job: Job) -> None:
    """Makes the machines that are missing."""
    self._call("create")
    names = self._names(job)
    self._group(job).mkdir(exist_ok=True)
    if self._ordered("half create"):
      fake_hosts.make(self._group(job), names[:1])
      raise Failed(["create"], 1, "half of it was made")
    if not (self._group(job) / names[-1]).exists():
      fake_hosts.make(self._group(job), names, self.first)
    if self.restarts_itself:
      self.push(job, tuple(names))
      self.start(job, job.steps[0], tuple(names))

  def find(self, job: Job) -> Found:
    """Returns what there is."""
    self._call("find")
    group = self._group(job)
    if not group.exists():
      return Found(state=State.ABSENT)
    names = self._names(job)
    resources = (f"group {job.name}", *(f"machine {p.name}" for p in _within(group)))
    if (group / "waiting").exists():
      return Found(state=State.WAITING, resources=resources)
    if (group / "preempted").exists():
      return Found(state=State.PREEMPTED, says="taken away", resources=resources)
    if not all((group / name / "environment.json").exists() for name in names):
      return Found(state=State.ABSENT, resources=resources)
    if self.restarts_itself and not fake_hosts.processes(group):
      return Found(state=State.READY, says="completed", resources=resources)
    return Found(state=State.READY, hosts=tuple(names), resources=resources)

  def push(self, job: Job, hosts: tuple[str, ...]) -> None:
    """Links the code."""
    self._call("push")
    for host in hosts:
      link = self._group(job) / host / "code"
      if not link.exists():
        link.symlink_to(ROOT)

  def start(self, job: Job, step: Step, hosts: tuple[str, ...]) -> None:
    """Starts agents."""
    self._call("start")
    for number, host in enumerate(hosts):
      agent = [
        *(sys.executable, "-m", "tpu.host", f"--board={self._board.url}"),
        *(f"--step={step.name}", f"--host={number}"),
        f"--num_hosts={job.machines.num_hosts}",
        *("--", *(self._command or [sys.executable, *job.command(step)[1:]])),
      ]
      machine = self._group(job) / host
      fake_hosts.start(machine, agent, machine / "code")

  def logs(self, job: Job, host: int, follow: bool) -> Iterator[str]:
    """Yields what the agent of a host printed."""
    log = self._group(job) / self._names(job)[host] / "output.log"
    yield from log.read_text().splitlines()

  def stop(self, job: Job) -> None:
    """Leaves that to the board."""

  def delete(self, job: Job) -> None:
    """Removes all machines."""
    self._call("delete")
    group = self._group(job)
    half = self._ordered("half delete")
    for machine in _within(group):
      fake_hosts.take_away(machine)
      if half:
        raise Failed(["delete"], 1, "half of it is there still")
    shutil.rmtree(group, ignore_errors=True)

  def preempt(self, job: Job, grace_s: float = 0.0, says: bool = True) -> None:
    """Takes the machines away; the group stays, as in the cloud.

    Unless the cloud `says` so, it is as if they were on their way.
    """
    group = self._group(job)
    marks = {machine: fake_hosts.mark_of(machine) for machine in _within(group)}
    (group / ("preempted" if says else "waiting")).touch()
    fake_hosts.take_all_away(marks, grace_s)

  def machine(self, job: Job, number: int) -> pathlib.Path:
    """Returns where a machine is."""
    return self._group(job) / self._names(job)[number]

  def order(self, what: str) -> None:
    """Lets something go wrong once."""
    (self.root / f"order {what}").touch()

  def _group(self, job: Job) -> pathlib.Path:
    return self.root / job.name

  def _names(self, job: Job) -> list[str]:
    return [f"{job.name}-{k}" for k in range(job.machines.num_hosts)]

  def _call(self, name: str) -> None:
    self.calls.append(name)
    if self._ordered(f"fail {name}"):
      raise Failed([name], 1, "no answer")

  def _ordered(self, what: str) -> bool:
    order = self.root / f"order {what}"
    ordered = order.exists()
    order.unlink(missing_ok=True)
    return ordered


def _within(group: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in group.glob("*") if path.is_dir())
