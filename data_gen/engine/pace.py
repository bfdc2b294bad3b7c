"""How many requests are in flight at one model: as many as the service takes.

The number doubles from round trip to round trip until the service refuses some (slow
start). From then on every answer adds a fixed part of a place, so that it grows by a
step per round trip, and refused requests take places away, at most half of them per
round trip. A stray refusal changes nothing but is waited for: a wait that the service
asks for holds everything back. Requests go out evenly spread, not in bursts. A service
that fails is left alone for a while and then tried with one request at a time.
"""

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Callable

from data_gen.clients import protocol
from data_gen.engine.limits import Limits
from msm_jax import errors

# More refusals than this share, averaged over so many outcomes, are no strays.
_STRAY_SHARE, _MEMORY = 0.05, 50
_PLACES_PER_REFUSAL = 2.0
# A step per round trip, as a share of the number at the last shrinking; in ten seconds
# without one it doubles, in twenty it triples, up to the second share.
_STEP, _LARGEST_STEP, _STEP_GROWTH_S = 0.05, 0.5, 10.0
# Requests are spread over this part of a round trip, so that it limits no throughput.
_SPREAD = 0.8
# A round trip, as long as none was made.
_GUESS_S = 1.0
# First attempts that failed one after the other, or their share among the last ones,
# until the service counts as down. A request that keeps failing alone is no evidence.
_FAILURES_IN_ROW = 10
_WINDOW, _FAILING_SHARE = 100, 0.5


class Pace:
  """Lets requests to one model out; whoever asks the same model shares it.

  Attributes:
    limit: requests that may be in flight now.
    in_flight: requests that are.
  """

  def __init__(self, limits: Limits, name: str):
    self._limits, self._name = limits, name
    self.limit = float(min(limits.start_concurrency, limits.max_concurrency))
    self.in_flight = 0
    self._waiters: collections.deque[asyncio.Future[bool]] = collections.deque()
    self._timer: asyncio.TimerHandle | None = None
    self._not_before = self._next = 0.0
    self._round_trip = 0.0
    # After the slow start: when the limit shrank last, and from what.
    self._shrank: tuple[float, float] | None = None
    self._round, self._floor = 0, 0.0
    self._refused_share = 0.0
    self._refused_since: float | None = None
    self._outage = _Outage(limits, name)

  @contextlib.asynccontextmanager
  async def turn(self, check: Callable[[], None]) -> AsyncIterator["Turn"]:
    """Waits for a place in flight and keeps it.

    Args:
      check: raises when the wait has become pointless.
    """
    await self._enter(check)
    try:
      yield Turn(self._round, asyncio.get_running_loop().time())
    finally:
      self.in_flight -= 1
      self._let_out()

  def nudge(self) -> None:
    """Lets all who wait check whether they still should."""
    while self._waiters:
      waiter = self._waiters.popleft()
      if not waiter.done():
        waiter.set_result(False)

  def succeeded(self, turn: "Turn") -> None:
    """The service answered: there may be more in flight."""
    now = asyncio.get_running_loop().time()
    if not self._outage.succeeded(turn.round):
      return
    self._refused_since = None
    self._refused_share *= 1 - 1 / _MEMORY
    weight = 0.1 if self._round_trip else 1.0
    self._round_trip += weight * (now - turn.began - self._round_trip)
    if self._waiters:  # otherwise it is not the limit that keeps requests back
      self.limit += self._step(now) / self.limit
      self.limit = min(self.limit, float(self._limits.max_concurrency))

  def refused(self, error: protocol.RateLimited, turn: "Turn") -> None:
    """The service has had too many: holds all requests back for as long as it asks.

    Raises:
      Stopped: a quota of the day is used up, or nothing went through for too long.
    """
    now = asyncio.get_running_loop().time()
    since = self._refused_since = self._refused_since or now
    backoff = max(self._limits.backoff_s, min(now - since, self._limits.max_backoff_s))
    wait = backoff if error.retry_after is None else error.retry_after
    if error.quota == "day":
      raise errors.Stopped(
        f"{self._name}: the quota of the day is used up ({error}): run again when it "
        "is renewed; the answers so far are kept"
      )
    if now + wait - since > self._limits.max_wait_s:
      raise errors.Stopped(
        f"{self._name} limits the rate and asks to wait {wait:.0f} s more ({error}): "
        "run again later to go on"
      )
    if self._round_trip:  # the first burst says nothing of what goes in the long run
      self._refused_share += (1 - self._refused_share) / _MEMORY
      if self._refused_share > _STRAY_SHARE:
        self._shrink(turn.round, now)
    self._hold(wait)

  def failed(self, error: protocol.ClientError, turn: "Turn", is_first: bool) -> None:
    """The service failed; `is_first`: it was the request's first attempt.

    Raises:
      Stopped: the service does not come back.
    """
    was_down = self._outage.is_on
    pause = self._outage.failed(error, turn.round, self._round + 1, is_first)
    if self._outage.is_on and not was_down:
      self._round += 1
    if pause:
      self._hold(pause)

  def _step(self, now: float) -> float:
    """Returns what a whole round trip without refusals adds."""
    if self._shrank is None:
      return self.limit
    when, limit = self._shrank
    share = _STEP * (1 + (now - when) / _STEP_GROWTH_S)
    return max(1.0, limit * min(share, _LARGEST_STEP))

  def _shrink(self, began_in: int, now: float) -> None:
    """Takes places away; what was in flight together takes half of them at most."""
    if began_in >= self._round:
      self._round += 1
      self._floor = max(1.0, self.limit / 2)
    self._shrank = (now, self.limit)
    self.limit = max(self._floor, self.limit - _PLACES_PER_REFUSAL)

  def _hold(self, seconds: float) -> None:
    until = asyncio.get_running_loop().time() + seconds
    self._not_before = max(self._not_before, until)

  async def _enter(self, check: Callable[[], None]) -> None:
    """Takes a place in flight."""
    while True:
      check()
      waiter = asyncio.get_running_loop().create_future()
      self._waiters.append(waiter)
      self._let_out()
      try:
        if await waiter:
          break
      except asyncio.CancelledError:
        if waiter.done() and not waiter.cancelled() and waiter.result():
          self._give_back()
        raise
    try:
      check()
    except BaseException:
      self._give_back()
      raise

  def _give_back(self) -> None:
    self.in_flight -= 1
    self._let_out()

  def _let_out(self) -> None:
    """Gives places to those who wait, as many and as soon as there may be."""
    now = asyncio.get_running_loop().time()
    places = 1 if self._outage.is_on else int(self.limit)
    while self._waiters and self.in_flight < places:
      when = max(self._not_before, self._next)
      if when > now + 0.001:
        self._look_again(when)
        return
      waiter = self._waiters.popleft()
      if waiter.done():
        continue
      self.in_flight += 1
      self._next = max(now, when) + _SPREAD * self._spread_s() / self.limit
      waiter.set_result(True)

  def _spread_s(self) -> float:
    # The first requests go out together; not a second time if they were too many.
    return self._round_trip or (0.0 if self._refused_since is None else _GUESS_S)

  def _look_again(self, when: float) -> None:
    if self._timer is not None:
      if self._timer.when() <= when:
        return
      self._timer.cancel()

    def look() -> None:
      self._timer = None
      self._let_out()

    self._timer = asyncio.get_running_loop().call_at(when, look)


class Turn:
  """A request's place: the round and the time in which it began."""

  def __init__(self, round_: int, began: float):
    self.round, self.began = round_, began


class _Outage:
  """Notices when a service is down, and when it is back.

  Attributes:
    is_on: the service is down: one request at a time tries whether it is back.
  """

  def __init__(self, limits: Limits, name: str):
    self._limits, self._name = limits, name
    self.is_on = False
    self._since = 0  # round
    self._probes = self._in_row = 0
    self._recent: collections.deque[bool] = collections.deque(maxlen=_WINDOW)

  def succeeded(self, began_in: int) -> bool:
    """Returns whether the service is up, after an answer."""
    if self.is_on and began_in < self._since:
      return False  # an answer from before
    self.is_on, self._in_row = False, 0
    self._recent.append(True)
    return True

  def failed(
    self,
    error: protocol.ClientError,
    began_in: int,
    next_round: int,
    is_first: bool,
  ) -> float:
    """Returns for how many seconds the service is to be left alone."""
    if self.is_on:
      # What was in flight when the service went down is no probe.
      return self._probe_failed(error) if began_in >= self._since else 0.0
    if not is_first:
      return 0.0
    self._in_row += 1
    self._recent.append(False)
    is_full = len(self._recent) == _WINDOW
    share = self._recent.count(False) / _WINDOW
    if self._in_row < _FAILURES_IN_ROW and (not is_full or share < _FAILING_SHARE):
      return 0.0
    self._recent.clear()
    self.is_on, self._since, self._probes = True, next_round, 0
    return self._limits.backoff_s

  def _probe_failed(self, error: protocol.ClientError) -> float:
    self._probes += 1
    if self._probes >= self._limits.max_probes:
      raise errors.Stopped(
        f"{self._name} fails: {self._in_row} requests in a row and then "
        f"{self._probes} probes, the last with: {error}; run again to go on"
      )
    pause = self._limits.backoff_s * 2**self._probes
    return min(pause, self._limits.max_backoff_s)
