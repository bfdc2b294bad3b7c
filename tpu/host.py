"""Runs on every machine: waits for the others, runs the command, again if need be.

    python -m tpu.host --board=URL --step=NAME --host=K --num_hosts=N -- COMMAND...

All hosts run the same. Host 0 decides (`attempts.py`), the others follow what it writes
on the board. An agent that cannot reach the board keeps its command running and tries
again. Ends with 0 when the step is finished, 2 when it was given up, 75 when somebody
asked to stop, the machine is taken away, or the others did not come.
"""

import argparse
import contextlib
import os
import pathlib
import re
import signal
import socket
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import exits, progress
from msm_jax.errors import Stopped, UserError
from tpu import attempts, board, gathering, host_lock, pulse
from tpu.board import Attempt, Beat
from tpu.board_files import Unreachable
from tpu.command import Command
from tpu.timing import Timing

_CODES = {"finished": 0, "gave_up": exits.USER, "stopped": exits.STOPPED}
_STATE = ".msm_tpu"  # in the home directory
# Or here: where nodes share home directories (Slurm), hosts must not share their state.
STATE = "MSM_TPU_STATE"


class Agent:
  """The agent of one step on one host.

  Args:
    on: the board.
    step: its name.
    host: number of this one.
    num_hosts: how many there are.
    argv: the command.
    environment: of the command.
    state: a directory of this host for this job.
  """

  def __init__(
    self,
    on: board.Board,
    step: str,
    host: int,
    num_hosts: int,
    argv: Sequence[str],
    environment: Mapping[str, str],
    state: pathlib.Path,
  ):
    self._board, self._step, self._host = on, step, host
    self._num_hosts = num_hosts
    self._log = gathering.HostLog(state / f"{step}-{host}.log", on, step, host)
    self._told = gathering.Told(state / "progress.json")
    environment = {**environment, progress.FILE: str(self._told.path)}
    self._command = Command(argv, self._log.path, str(state), environment)
    self._timing = Timing()
    self._leader: attempts.Leader | None = None
    self._taken_up = False
    self._agent, self._count = uuid.uuid4().hex, 0
    self._attempt, self._phase = 0, "stopping"
    self._began = -1  # the attempt that the command is of
    self._code: int | None = None
    self._said = ""
    self._waits_since = 0.0
    self._sent: tuple[object, ...] = ()
    self._beaten = self._gathered = float("-inf")
    self._leaving = self._silent = False
    self._echoed = self._log.path.stat().st_size

  def run(self) -> int:
    """Does the step; returns the exit code."""
    signal.signal(signal.SIGTERM, self._leave)
    signal.signal(signal.SIGINT, self._leave)
    self._command.sweep()  # of an agent that was killed
    over = None
    while over is None:
      try:
        over = self._look()
        self._silent = False
      except (Unreachable, UserError) as error:  # credentials may come back, too
        if not self._silent:
          self._log.note(f"the board is away, {self._doing()}: {error}")
        self._silent = True
      self._echo()
      if over is None:
        time.sleep(self._timing.poll_s)
    self._say_goodbye()
    self._echo()
    return over

  def _leave(self, *_: object) -> None:
    """Passes on that this machine is taken away."""
    self._leaving = True
    self._command.signal(signal.SIGTERM)

  def _doing(self) -> str:
    return "the command runs on" if self._command.is_running else "no command runs"

  def _look(self) -> int | None:
    """Does what is to be done now; returns the exit code when all is."""
    self._notice_end()
    if self._leaving and not self._is_asked_to_stop():
      return self._left()
    if self._leader is None:
      self._read_submission()
    stop = self._board.is_to_stop()
    if stop:
      self._end_command()
    record = self._board.attempt(self._step)
    if self._host == 0:
      record = self._lead(record, stop)
    record = record or Attempt()
    over = self._stopped(record) if stop else self._follow(record)
    self._tell()
    return over

  def _notice_end(self) -> None:
    if self._phase != "running" or self._command.is_running:
      return
    self._command.sweep()
    self._code = self._command.code
    self._said = self._command.last_words() if self._code else ""
    self._phase = "ended"
    self._log.note(f"attempt {self._attempt}: the command ended with {self._code}")

  def _is_asked_to_stop(self) -> bool:
    """Returns whether SIGTERM came because all hosts are to stop."""
    with contextlib.suppress(Unreachable, UserError):
      return self._board.is_to_stop()
    return False

  def _left(self) -> int | None:
    """Ends with the machine."""
    gone = self._end_command()
    self._phase = "leaving"
    with contextlib.suppress(Unreachable, UserError):
      self._tell()
    return exits.STOPPED if gone else None

  def _stopped(self, record: Attempt) -> int | None:
    """Ends as somebody asked; host 0 when all have, and it wrote so."""
    if self._command.is_running or (self._host == 0 and not record.is_over):
      return None
    return _CODES[record.phase] if record.is_over else exits.STOPPED

  def _end_command(self) -> bool:
    """Lets the command save; returns whether it is gone."""
    began = self._phase in ("running", "leaving") and self._began == self._attempt
    gone = self._command.end(self._timing.grace_s)
    if gone and began:
      self._code, self._phase = self._command.code, "ended"
    return gone

  def _read_submission(self) -> None:
    submission = self._board.submission()
    if submission is None:
      raise Unreachable(f"{self._board.url} has no job.json yet")
    self._timing = submission.timing
    self._names = self._board.names(self._step)
    self._leader = attempts.Leader(
      self._names, submission.job.max_same_failures, self._timing
    )
    self._pulse = pulse.Pulse(self._num_hosts, self._timing.lost_s / 2)

  def _lead(self, record: Attempt | None, stop: bool) -> Attempt:
    """Decides for all; host 0 only."""
    if record is None or not self._taken_up:
      attempt = record.attempt if record is not None else 0
      before = gathering.point_on(self._board, self._step, attempt)
      now = self._leader.take_up(record, before)
    else:
      beats = [self._board.beat(self._step, k) for k in range(1, self._num_hosts)]
      if record.phase == "waiting":
        self._leader.names = self._board.names(self._step)
      seen = self._pulse.look([self._beat(), *beats])
      seen[0] = pulse.Seen(host=0, beat=self._beat(), age_s=0.0)
      now = self._leader.decide(record, seen, self._point(record), stop)
    if now != record:
      if now.is_over:  # machines may be gone as soon as that is read
        self._gather()
      self._board.put_attempt(self._step, now)
      if now.why:
        self._log.note(f"attempt {now.attempt} {now.phase}: {now.why}")
    self._taken_up = True
    return now

  def _point(self, record: Attempt) -> attempts.Point:
    """Returns how far the command is, which any of the hosts may tell."""
    if record.phase != "running":
      return attempts.Point()
    told = self._told_now()
    if told is None:
      return gathering.point_on(self._board, self._step, record.attempt)
    return attempts.Point(told["at"], told["step"])

  def _told_now(self) -> dict[str, Any] | None:
    """Returns what the command of this attempt told here."""
    return self._told.read() if self._began == self._attempt else None

  def _follow(self, record: Attempt) -> int | None:
    """Does what host 0 decided; returns the exit code when that was the end."""
    ends = record.is_over or record.attempt != self._attempt
    if ends and not self._command.end(self._timing.grace_s):
      self._phase = "stopping"
      return None
    if record.is_over:
      return _CODES[record.phase]
    if record.attempt != self._attempt:
      self._attempt, self._code, self._said = record.attempt, None, ""
      self._phase = "late" if record.phase == "running" else "waiting"
    if record.phase != "waiting":
      self._waits_since = 0.0
    elif not self._waits_since:
      self._waits_since = time.monotonic()
    if record.phase == "running" and self._phase == "waiting":
      self._begin()
    elif self._waits_since and self._waited() > self._timing.barrier_s:
      self._log.note(f"gone after {self._waited():.0f} s: {record.why}; start again")
      return exits.STOPPED
    return None

  def _waited(self) -> float:
    return time.monotonic() - self._waits_since

  def _begin(self) -> None:
    self._log.note(f"attempt {self._attempt}: all {self._num_hosts} hosts are here")
    self._told.forget()
    self._phase, self._began = "running", self._attempt
    self._command.start()

  def _beat(self) -> Beat:
    return Beat(
      agent=self._agent,
      count=self._count,
      attempt=self._attempt,
      phase=self._phase,
      code=self._code,
      said=self._said,
      name=socket.gethostname(),
      time=time.time(),
    )

  def _tell(self) -> None:
    """Beats, and copies log and progress, when it is time or something changed."""
    now = time.monotonic()
    state = (self._attempt, self._phase, self._code)
    if state != self._sent and self._code is not None:
      self._gather()  # before anybody hears of the end
    if state != self._sent or now - self._beaten >= self._timing.beat_s:
      self._count += 1
      self._board.put_beat(self._step, self._host, self._beat())
      self._sent, self._beaten = state, now
    if now - self._gathered >= self._timing.gather_s:
      self._gather()
      self._gathered = now

  def _gather(self) -> None:
    self._log.gather()
    told = self._told_now()
    if told is not None:
      told = {**told, "attempt": self._attempt, "host": self._host}
      self._board.put_progress(self._step, told)

  def _say_goodbye(self) -> None:
    """Leaves the last of the log and a last beat, if the board is there."""
    self._log.note("the agent ends")
    self._phase = "left"
    self._sent = ()
    try:
      self._tell()
      self._gather()
    except (Unreachable, UserError) as error:
      self._log.note(f"the board is away: {error}")

  def _echo(self) -> None:
    """Passes on what is new in the log: in a pod that is where people look."""
    with self._log.path.open("rb") as file:
      file.seek(self._echoed)
      data = file.read()
    self._echoed += len(data)
    with contextlib.suppress(OSError, ValueError):  # whoever started this is gone
      sys.stdout.buffer.write(data)
      sys.stdout.flush()


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
  parser = argparse.ArgumentParser(prog="python -m tpu.host", description=__doc__)
  parser.add_argument("--board", required=True)
  parser.add_argument("--step", required=True)
  parser.add_argument("--host", type=int, required=True)
  parser.add_argument("--num_hosts", type=int, required=True)
  parser.add_argument("command", nargs="+")
  return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
  """Does a step on this host; returns the exit code."""
  asked = _parse(arguments)
  if not 0 <= asked.host < asked.num_hosts:
    raise UserError(f"--host={asked.host} must be below --num_hosts={asked.num_hosts}")
  environment = dict(os.environ)  # before the board changes ours
  name = re.sub(r"[^\w.-]+", "_", asked.board)
  state = pathlib.Path(os.environ.get(STATE) or pathlib.Path.home() / _STATE) / name
  patience_s = Timing().grace_s
  with host_lock.held(state / "agent.lock", asked.step, patience_s) as other:
    if other is not None:
      print(f"process {other} does step {asked.step} on this host already")
      return 0
    agent = Agent(
      board.open_(asked.board),
      asked.step,
      asked.host,
      asked.num_hosts,
      asked.command,
      environment,
      state,
    )
    return agent.run()


def _main() -> None:
  code = main(sys.argv[1:])
  if code == exits.STOPPED:
    raise Stopped("stopped; start again to go on")
  if code:
    raise UserError("the step was given up; its log says why")


if __name__ == "__main__":
  sys.exit(exits.code_of(_main, lambda: "the home directory"))
