"""What host 0 decides: when all begin, begin again, are done, or give up.

An attempt begins when all hosts wait for it, and ends when all commands ended with 0,
when one failed, or when a host was lost. Exit codes are launch.py's: 0 done; 2 a person
must do something, so the step is given up; 75 run again, at once; anything else is
tried again after a while. What failed `max_same_failures` times and never got on in
between is given up. A host that is lost is nobody's failure: machines on the spot
market are taken away.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence

from msm_jax import exits
from tpu.board import Attempt, Failure
from tpu.pulse import Seen
from tpu.timing import Timing

_KEPT = 50  # failures
# Of what launch.py calls a person's to fix, this passes: processes that did not find
# each other, and a workdir that one of an earlier attempt has not let go of yet.
_PASSING = ("JAX_COORDINATOR_ADDRESS=", " is in use by ")


@dataclasses.dataclass(frozen=True)
class Point:
  """How far the command is: `step` of a part called `at`."""

  at: str = ""
  step: int = 0


class Leader:
  """The decisions of one agent of host 0.

  Args:
    names: of all hosts, in order.
    max_same_failures: see `Job`.
    timing: how long to wait for what.
    clock: returns seconds.
  """

  def __init__(
    self,
    names: Sequence[str],
    max_same_failures: int,
    timing: Timing,
    clock: Callable[[], float] = time.monotonic,
  ):
    self.names = list(names)
    self._max_same, self._timing, self._clock = max_same_failures, timing, clock
    self._agents: list[str] = []  # who began this attempt
    self._failed_at: float | None = None  # when the first host of it did
    self._stop_at: float | None = None
    self._restart_at = 0.0

  def take_up(self, record: Attempt | None, point: Point) -> Attempt:
    """Returns how to go on from what an agent before this one left."""
    if record is None:
      return Attempt()
    if record.phase != "running":
      return record
    lost = Failure(
      attempt=record.attempt, host=0, said="its agent began again", counts=False
    )
    return self._next(record, lost, point)

  def decide(
    self, record: Attempt, seen: Sequence[Seen], point: Point, stop: bool
  ) -> Attempt:
    """Returns how the step stands now.

    Args:
      record: how it stood.
      seen: all hosts.
      point: how far the command is.
      stop: a person asked for it.
    """
    if record.is_over:
      return record
    if stop:
      return self._stopped(record, seen)
    if record.phase == "restarting":
      due = self._clock() >= self._restart_at
      return dataclasses.replace(record, phase="waiting") if due else record
    if record.phase == "waiting":
      return self._gathered(record, seen)
    return self._judged(record, seen, point)

  def _stopped(self, record: Attempt, seen: Sequence[Seen]) -> Attempt:
    """All hosts read the marker themselves and end; the last word is host 0's."""
    now = self._clock()
    self._stop_at = now if self._stop_at is None else self._stop_at
    busy = [each for each in seen if self._is_here(each) and _works(each)]
    patience = self._timing.grace_s + self._timing.settle_s
    if busy and now - self._stop_at < patience:
      return record
    return dataclasses.replace(record, phase="stopped", why="somebody asked for it")

  def _gathered(self, record: Attempt, seen: Sequence[Seen]) -> Attempt:
    missing = [each for each in seen if not self._waits(each, record.attempt)]
    if missing:
      why = f"waiting for {self._called(missing)}"
      return record if why == record.why else dataclasses.replace(record, why=why)
    self._agents = [each.beat.agent for each in seen]
    self._failed_at = None
    return dataclasses.replace(record, phase="running", why="")

  def _judged(self, record: Attempt, seen: Sequence[Seen], point: Point) -> Attempt:
    lost = [each for each in seen if self._is_lost(each, record.attempt)]
    codes = {e.host: e.beat.code for e in seen if e not in lost and _ended(e)}
    failed = [each for each in seen if codes.get(each.host)]
    if not lost and not failed:
      done = len(codes) == len(seen)
      return dataclasses.replace(record, phase="finished") if done else record
    now = self._clock()
    self._failed_at = now if self._failed_at is None else self._failed_at
    settled = lost or len(codes) == len(seen)
    if not settled and now - self._failed_at < self._timing.settle_s:
      return record
    return self._next(record, _blamed(record, lost, failed), point)

  def _next(self, record: Attempt, failure: Failure, point: Point) -> Attempt:
    """Returns what comes after an attempt that ended with a failure."""
    got_on = point.step > record.furthest.get(point.at, -1) and bool(point.at)
    furthest = dict(record.furthest) | ({point.at: point.step} if got_on else {})
    counts = failure.counts and not (got_on and failure.code == exits.STOPPED)
    failure = dataclasses.replace(failure, at=point.at, step=point.step, counts=counts)
    same = (0 if got_on else record.same) + counts
    changed = dataclasses.replace(
      record,
      failures=(*record.failures, failure)[-_KEPT:],
      furthest=furthest,
      same=same,
    )
    why = described(failure, self.names)
    if failure.code == exits.USER and failure.counts:
      return dataclasses.replace(changed, phase="gave_up", why=why)
    if same >= self._max_same:
      return dataclasses.replace(changed, phase="gave_up", why=self._tried(changed))
    wait_s = self._timing.backoff(same) if counts else 0.0
    self._restart_at = self._clock() + wait_s
    said = f"{why}; again" + (f" in {wait_s:.0f} s" if wait_s else "")
    return dataclasses.replace(
      changed, attempt=record.attempt + 1, phase="restarting", why=said
    )

  def _tried(self, record: Attempt) -> str:
    last = [each for each in record.failures if each.counts][-record.same :]
    told = "; ".join(
      f"attempt {each.attempt}: {described(each, self.names)}" for each in last
    )
    return f"failed {record.same} times without getting on: {told}"

  def _called(self, hosts: Sequence[Seen]) -> str:
    """Returns hosts by number and name."""
    return ", ".join(called(each.host, self.names) for each in hosts)

  def _is_here(self, seen: Seen) -> bool:
    return seen.beat is not None and seen.age_s <= self._timing.lost_s

  def _waits(self, seen: Seen, attempt: int) -> bool:
    beat = seen.beat
    here = self._is_here(seen)
    return here and beat.phase == "waiting" and beat.attempt == attempt

  def _is_lost(self, seen: Seen, attempt: int) -> bool:
    """Returns whether a host that began an attempt has no part in it any more."""
    beat = seen.beat
    if beat is None or beat.agent != self._agents[seen.host] or beat.phase == "late":
      return True
    return not _ended(seen) and (
      not self._is_here(seen) or beat.attempt != attempt or beat.phase == "left"
    )


def _ended(seen: Seen) -> bool:
  return seen.beat is not None and seen.beat.code is not None


def _works(seen: Seen) -> bool:
  return seen.beat.phase in ("running", "stopping", "leaving") and not _ended(seen)


def _blamed(record: Attempt, lost: Sequence[Seen], failed: Sequence[Seen]) -> Failure:
  """Returns the failure that the others follow from, as far as can be told.

  A host that was lost takes the others with it. Else what a person can fix is told
  first, then what failed by itself; a signal or 75 is how peers of such a one end.
  """

  def rank(seen: Seen) -> tuple[int, bool, int]:
    code = seen.beat.code
    kinds = (code == exits.USER, code > 0 and code != exits.STOPPED, code < 0, True)
    return kinds.index(True), not seen.beat.said, seen.host

  if lost:
    words = "lost: its machine is gone, or cannot reach the board"
    return Failure(attempt=record.attempt, host=lost[0].host, said=words, counts=False)
  first = min(failed, key=rank)
  code, said = first.beat.code, first.beat.said
  passes = code == exits.USER and any(words in said for words in _PASSING)
  leaving = any(each.beat.phase in ("leaving", "left") for each in failed)
  return Failure(
    attempt=record.attempt,
    host=first.host,
    code=1 if passes else code,
    said=said,
    counts=not (leaving and code == exits.STOPPED),
  )


def called(host: int, names: Sequence[str]) -> str:
  """Returns a host by number and, where that is known, name."""
  name = names[host] if host < len(names) else ""
  return f"host {host}" + (f" ({name})" if name else "")


def described(failure: Failure, names: Sequence[str] = ()) -> str:
  """Returns a failure in words."""
  where = f" at {failure.at}, {failure.step}" if failure.at else ""
  ended = "" if failure.code is None else f"ended with {failure.code}: "
  said = failure.said or "it said nothing"
  return f"{called(failure.host, names)}{where}: {ended}{said}"
