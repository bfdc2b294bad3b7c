"""Looks after a job: creates, starts, recreates, gives up.

What is there is asked anew at every look, so that it may be killed anywhere and started
again: nothing is made twice, nothing is forgotten.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from msm_jax.errors import Stopped, UserError
from tpu import ending, pulse, status, submitting
from tpu import timing as timing_lib
from tpu.board import Beat, Board, Submission
from tpu.board_files import Unreachable
from tpu.job import Job, State, Step
from tpu.presence import Presence
from tpu.shell import Failed
from tpu.targets import Found, Target
from tpu.timing import Timing

_MOST_TRIES = 10  # of one deed that fails
_MOST_REFUSALS = 3  # of one that a person might have to mend
_MOST_STARTS = 3  # of agents that are never heard of, before machines are replaced
_MOST_BROKEN = 2  # times that machines are replaced for that
_SAID_EVERY_S = 30.0
_ASLEEP_S = 30.0  # a look that comes so late follows a sleep of this machine

_AT_FAULT = (Failed, Unreachable, OSError, UserError)  # and not our code


def look_after(
  job: Job,
  target: Target,
  board: Board,
  *,
  settings: Mapping[str, Any] | None = None,
  dollars_per_hour: float | None = None,
  cpu_dollars_per_hour: float | None = None,
  keep: bool = False,
  detach: bool = False,
  timing: Timing | None = None,
  say: Callable[[str], None] = print,
) -> None:
  """Does what is not done yet of a job, and returns when it is finished.

  Whatever was begun before, here or elsewhere, is taken up. Machines are deleted at
  the end, whichever it is, but when a person asked to stop.

  Args:
    job: what is asked. One of its name that is under way must agree with it; its code
      is then the one that was submitted.
    target: where.
    board: where hosts leave word.
    settings: of the target, for job.json.
    dollars_per_hour: of all machines of a pod together, for job.json.
    cpu_dollars_per_hour: of the machine of steps without accelerators, for job.json.
    keep: leave the machines at the end.
    detach: return as soon as all hosts work.
    timing: None: what MSM_TPU_TIMING says.
    say: gets lines for people.

  Raises:
    UserError: the job was given up, or a person must do something; says what is left.
    Stopped: a person asked for that, or this process is to end (the job goes on).
  """
  submission = Submission(
    job=job,
    target=target.name,
    settings=settings or {},
    dollars_per_hour=dollars_per_hour,
    cpu_dollars_per_hour=cpu_dollars_per_hour,
    timing=timing or timing_lib.of_environment(),
  )
  try:
    submission = _submit(submission, target, board, say)
    _Supervisor(submission, target, board, keep, detach, say).run()
  except KeyboardInterrupt:
    raise Stopped(
      f"{job.name} goes on without this process: run the same command again to look "
      f"after it, or end it with `python -m tpu stop` or `delete`"
    ) from None


def _submit(
  submission: Submission, target: Target, board: Board, say: Callable[[str], None]
) -> Submission:
  for tries in range(1, _MOST_TRIES + 1):
    try:
      board.files.make()
      return submitting.submit(submission, target, board, say)
    except (Failed, Unreachable, OSError) as error:
      wait_s, last = submission.timing.backoff(tries), error
      say(f"{error}; again in {wait_s:.0f} s")
    time.sleep(wait_s)
  raise UserError(f"{submission.job.name} cannot be submitted: {last}")


class _GivenUp(UserError):
  """The job is over, and what was made is given back."""


class _Over(Exception):
  """There is nothing more to look after."""


class _Supervisor:
  """The state of one process that looks after a job; none of it is needed again."""

  def __init__(
    self,
    submission: Submission,
    target: Target,
    board: Board,
    keep: bool,
    detach: bool,
    say: Callable[[str], None],
  ):
    self._submission, self._job = submission, submission.job
    self._timing = submission.timing
    self._target, self._board = target, board
    self._presence = Presence(board)
    self._keep, self._detach, self._say_line = keep, detach, say
    self._said: dict[str, tuple[str, float]] = {}
    self._failed: dict[str, int] = {}  # deed -> times in a row
    self._troubles = self._refusals = self._starts = self._broken = self._taken = 0
    self._some_live = False  # hosts, at this look
    self._there: tuple[str, ...] = ()  # as the cloud said last
    self._create_at = float("-inf")
    self._going_until: float | None = None  # machines that the cloud takes away
    self._begin_step(self._job.steps[0])

  def run(self) -> None:
    """Looks again and again until the job is over."""
    while True:
      wait_s = self._timing.look_s
      try:
        self._look()
        self._troubles = self._refusals = 0
      except _GivenUp:
        raise
      except _AT_FAULT as error:
        self._refused(error)
        self._troubles += 1
        wait_s = self._timing.backoff(self._troubles)
        self._say("trouble", f"{error}; again in {wait_s:.0f} s")
      except _Over:
        return
      time.sleep(wait_s)

  def _look(self) -> None:
    """Does what is to be done now."""
    self._some_live = False
    step = self._first_to_do()
    if step is None:
      return self._finish()
    if step != self._step:
      self._begin_step(step)
    record = self._board.attempt(step.name)
    if record is not None:
      self._tell(step, record.phase, record.attempt, record.why)
      if record.phase == "gave_up":
        self._give_up(f"{step.name}: {record.why}")
      if record.phase == "stopped":
        self._stopped(step)
    found = self._target.find(self._at_step)
    self._there = found.resources
    self._presence.note(step, found)
    if found.state is not State.PREEMPTED:
      self._going_until = None
    if found.says:
      self._say("cloud", f"{found.state.value}: {found.says}")
    if not found.hosts and self._board.is_to_stop():  # and no host to say so
      self._stopped(step)
    match found.state:
      case State.ABSENT if not self._is_over(step):
        self._create()
      case State.READY:
        self._keep_alive(step, found)
      case State.WAITING if self._is_away_for_good(step):  # flex-start's time is over
        self._replace("gone, and did not come back", 1)
      case State.PREEMPTED if not self._may_save_yet():
        self._taken += 1
        self._replace(found.state.value, self._taken)
      case State.FAILED if not self._is_over(step):
        self._give_up(f"{self._target.name}: {found.says or 'the machines failed'}")

  def _is_away_for_good(self, step: Step) -> bool:
    """Returns whether machines went longer ago than agents wait for one another."""
    away_s = 0.0 if self._target.restarts_itself else self._presence.away_s(step)
    return away_s > self._timing.barrier_s

  def _may_save_yet(self) -> bool:
    """Returns whether hosts live on machines that are being taken away, for a while.

    The cloud says that machines go before they are gone; deleted at once, they would
    lose what they save meanwhile.
    """
    now = time.monotonic()
    if self._going_until is None:
      self._going_until = now + self._timing.notice_s
    if now >= self._going_until:
      return False
    return any(self._lives(each) for each in self._pulse.look(self._beats()))

  def _is_over(self, step: Step) -> bool:
    """Returns whether hosts ended the step meanwhile; their word is better."""
    record = self._board.attempt(step.name)
    return record is not None and record.is_over

  def _begin_step(self, step: Step) -> None:
    """Turns to a step; machines of earlier steps that no later one uses go."""
    number = self._job.steps.index(step)
    later = [self._machines_of(each) for each in self._job.steps[number:]]
    for earlier in self._job.steps[:number]:
      if (used := self._machines_of(earlier)) not in later:
        self._deed("delete", lambda used=used: self._target.delete(used))
        self._presence.gone(earlier, "its steps are done")
    self._step, self._at_step = step, self._machines_of(step)
    self._num_hosts = self._job.at(step).machines.num_hosts
    self._pulse = pulse.Pulse(self._num_hosts, self._timing.look_s + _ASLEEP_S)
    self._starts, self._patient_until = 0, float("-inf")

  def _machines_of(self, step: Step) -> Job:
    """Returns the job as the target is asked about a step.

    A cloud that restarts hosts itself has the whole job, and turns to the next step.
    """
    return self._job if self._target.restarts_itself else self._job.at(step)

  def _first_to_do(self) -> Step | None:
    """Returns the first step that is not finished."""
    for step in self._job.steps:
      record = self._board.attempt(step.name)
      if record is None or record.phase != "finished":
        return step
    return None

  def _create(self) -> None:
    if time.monotonic() < self._create_at:
      return
    self._say("deed", f"asking for {self._at_step.machines.name}")
    self._presence.asked(self._step)
    self._pulse.expect_new(self._beats())
    self._deed("create", lambda: self._target.create(self._at_step))
    self._starts, self._patient_until = 0, float("-inf")

  def _keep_alive(self, step: Step, found: Found) -> None:
    """Starts agents where there is none."""
    if list(found.hosts) != self._board.names(step.name):
      self._board.put_names(step.name, found.hosts)
    seen = self._pulse.look(self._beats())
    silent = [each.host for each in seen if not self._lives(each)]
    self._some_live = len(silent) < len(seen)
    if not silent:
      record = self._board.attempt(step.name)
      if record is not None and record.phase == "running":
        self._starts = self._broken = self._taken = 0
        if self._detach:
          self._say("deed", "all hosts work; nobody looks after them from here on")
          raise _Over
      return None
    if self._target.restarts_itself or time.monotonic() < self._patient_until:
      return None
    if self._is_ending(step, silent):
      return None
    if self._starts >= _MOST_STARTS:
      return self._replace_broken(silent)
    self._starts += 1
    named = ", ".join(found.hosts[host] for host in silent if host < len(found.hosts))
    self._say("deed", f"{step.name}: starting {named}")
    job, hosts = self._at_step, found.hosts
    self._deed("push", lambda: self._target.push(job, hosts))
    self._deed("start", lambda: self._target.start(job, step, hosts))
    self._patient_until = time.monotonic() + self._timing.first_beat_s
    return None

  def _is_ending(self, step: Step, silent: list[int]) -> bool:
    """Returns whether hosts are silent because there is nothing more to do."""
    stops = 0 not in silent and self._board.is_to_stop()  # host 0 says when all did
    return stops or self._is_over(step)

  def _replace_broken(self, silent: list[int]) -> None:
    """Gets other machines for some whose agents never say anything."""
    numbers = ", ".join(map(str, silent))
    self._broken += 1
    if self._broken > _MOST_BROKEN:
      self._give_up(
        f"agents of hosts {numbers} were started {_MOST_STARTS} times on each of "
        f"{self._broken} sets of machines and never heard of: see `python -m tpu logs`"
      )
    self._replace(f"silent (hosts {numbers})", self._broken)

  def _replace(self, what: str, times: int) -> None:
    """Deletes machines that are of no use; others are asked for at a later look."""
    self._say("deed", f"deleting machines that are {what}, to ask for others")
    self._deed("delete", lambda: self._target.delete(self._at_step))
    wait_s = self._timing.backoff(times - 1) if times > 1 else 0.0
    self._create_at = time.monotonic() + wait_s
    self._starts = 0

  def _beats(self) -> list[Beat | None]:
    hosts = range(self._num_hosts)
    return [self._board.beat(self._step.name, host) for host in hosts]

  def _lives(self, seen: pulse.Seen) -> bool:
    fresh = seen.beat is not None and seen.age_s <= self._timing.lost_s
    return fresh and seen.beat.phase != "left"

  def _deed(self, name: str, do: Callable[[], None]) -> None:
    """Does something that may fail and then is tried again at another look."""
    try:
      do()
    except Failed as error:
      self._failed[name] = self._failed.get(name, 0) + 1
      if self._failed[name] >= _MOST_TRIES and not self._some_live:
        self._give_up(f"{name} failed {_MOST_TRIES} times: {error}")
      raise
    except UserError as error:
      self._failed[name] = self._failed.get(name, 0) + 1
      often = self._failed[name] >= _MOST_REFUSALS and not self._some_live
      if name == "create" or often:
        self._give_up(str(error))
      raise
    self._failed[name] = 0

  def _refused(self, error: Exception) -> None:
    """Leaves it to a person when the same is refused again; the job goes on."""
    self._refusals = self._refusals + 1 if isinstance(error, UserError) else 0
    if self._refusals >= _MOST_REFUSALS:
      there = f"; still there: {', '.join(self._there)}" if self._there else ""
      raise UserError(f"{error}{there}: mend that, then run the same command again")

  def _finish(self) -> None:
    self._say("phase", f"{self._job.name}: finished")
    left = self._give_back()
    if left:
      raise _GivenUp(f"{self._job.name} is finished, but {left}")
    self._say("money", f"machines {status.machines(self._board, self._submission)}")
    raise _Over

  def _give_up(self, why: str) -> NoReturn:
    self._say("phase", f"{self._job.name}: given up")
    left = self._give_back()
    raise _GivenUp(f"{self._job.name}: {why}" + (f"; and {left}" if left else ""))

  def _stopped(self, step: Step) -> NoReturn:
    raise Stopped(
      f"{self._job.name}: stopped in {step.name}; what there is of its machines stays: "
      "run the same command again to go on, or `python -m tpu delete`"
    )

  def _give_back(self) -> str:
    """Deletes the machines; returns what is left, as a phrase, '' for nothing."""
    if self._keep:
      return ""
    ending.wait(self._target, self._job, self._timing.look_s)
    steps = {self._machines_of(step): step for step in self._job.steps}
    for tries in range(1, _MOST_TRIES + 1):
      left = [name for step in steps.values() for name in self._let_go(step)]
      if not left:
        return ""
      time.sleep(self._timing.backoff(tries))
    return f"could not be deleted: {', '.join(left)}: `python -m tpu delete`"

  def _let_go(self, step: Step) -> tuple[str, ...]:
    """Deletes the machines of a step; returns what of them is left."""
    job = self._machines_of(step)
    try:
      self._target.delete(job)
    except _AT_FAULT as error:
      self._say("trouble", str(error))
    try:
      found = self._target.find(job)
      self._presence.note(step, found)
    except _AT_FAULT as error:
      return (f"whatever there is of {job.name} ({error})",)
    return found.resources

  def _tell(self, step: Step, phase: str, attempt: int, why: str) -> None:
    told = f"{step.name}: {phase}, attempt {attempt}" + (f": {why}" if why else "")
    self._say("phase", told)
    if phase == "running":
      self._say("far", status.how_far(self._board, step.name), _SAID_EVERY_S)

  def _say(self, kind: str, line: str, every_s: float = 0.0) -> None:
    """Says a line of a kind if it is another than the last, and not too soon."""
    before, at = self._said.get(kind, ("", float("-inf")))
    now = time.monotonic()
    if line and line != before and now - at >= every_s:
      self._said[kind] = line, now
      self._say_line(line)
