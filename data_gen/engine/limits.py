"""How hard to try, how much may be spent, and when to stop."""

import asyncio
import dataclasses

from msm_jax import errors


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """How hard to try.

  Attributes:
    max_concurrency: requests in flight, at most.
    timeout_s: limit for one attempt.
    max_attempts: attempts per request before it is given up; being told to wait for a
      rate limit is not an attempt.
    start_concurrency: requests in flight at the start; see `pace.Pace`.
    backoff_s, max_backoff_s: the first wait after a failure, doubled up to the second,
      with jitter; a longer wait that the service asks for is honoured.
    max_wait_s: how long rate limits may keep everything back before the run stops.
    max_probes: requests that try whether a service that failed is back, with growing
      pauses, before the run stops.
    min_job: fewer requests than this are not worth a batch job: they are sent one by
      one, at the standard price.
    poll_s, max_poll_s: the first pause between two looks at a batch job, and the
      longest that it grows to.
    listing_s: how long the service may take to list a batch job that it has taken.
  """

  max_concurrency: int
  timeout_s: float
  max_attempts: int
  start_concurrency: int = 32
  backoff_s: float = 1.0
  max_backoff_s: float = 60.0
  max_wait_s: float = 900.0
  max_probes: int = 8
  min_job: int = 16
  poll_s: float = 5.0
  max_poll_s: float = 120.0
  listing_s: float = 60.0


class Budget:
  """Dollars that may be spent; `max_dollars` None: any number.

  Attributes:
    spent: what answers were billed.
    unknown: what may have been billed, at most, for answers that never came.
  """

  def __init__(
    self, max_dollars: float | None, spent: float = 0.0, unknown: float = 0.0
  ):
    self.max_dollars = max_dollars
    self.spent, self.unknown = spent, unknown
    self._reserved = 0.0
    self._open = 0
    self._settled = asyncio.Condition()

  @property
  def left(self) -> float:
    """Dollars that are neither spent nor set aside."""
    if self.max_dollars is None:
      return float("inf")
    return self.max_dollars - self.spent - self.unknown - self._reserved

  async def reserve(self, dollars: float, requests: int = 1) -> None:
    """Sets `dollars` aside, waiting while requests in flight may still cost less.

    Args:
      dollars: what `requests` requests may cost at most.
      requests: how many times `settle` will be called for them.

    Raises:
      Stopped: not even after those would there be enough.
    """
    if self.max_dollars is None:
      return
    async with self._settled:
      while dollars > self.left:
        if not self._open:
          raise errors.Stopped(self._reached(dollars))
        await self._settled.wait()
      self._reserved += dollars
      self._open += requests

  def adopt(self, dollars: float, requests: int) -> None:
    """Sets aside what was counted as unknown: a job that an earlier run has sent."""
    self.unknown -= dollars
    if self.max_dollars is not None:
      self._reserved += dollars
      self._open += requests

  def spend(self, dollars: float) -> None:
    """Counts what was billed and could not be set aside before."""
    self.spent += dollars

  async def settle(self, reserved: float, dollars: float, unknown: float = 0.0) -> None:
    """Turns a reservation into what was really spent, or may have been."""
    self.spent += dollars
    self.unknown += unknown
    if self.max_dollars is None:
      return
    async with self._settled:
      self._open -= 1
      # Not what rounding has left over: with nothing open, nothing is set aside.
      self._reserved = self._reserved - reserved if self._open else 0.0
      self._settled.notify_all()

  def _reached(self, dollars: float) -> str:
    lost = ""
    if self.unknown:
      lost = f", up to ${self.unknown:.4f} more may be for answers that were lost"
    return (
      f"config.budget.max_dollars={self.max_dollars:g} is reached: "
      f"${self.spent:.4f} is spent{lost} and the next request could cost "
      f"${dollars:.4f}; raise the budget and run again to go on"
    )


class Brake:
  """Ends work cleanly: what is out comes back, nothing else goes out.

  Attributes:
    reason: what is raised then; None: the work goes on.
  """

  def __init__(self) -> None:
    self.reason: Exception | None = None
    self._pulled = asyncio.Event()

  def pull(self, reason: Exception) -> None:
    """Ends the work; the first reason counts."""
    self.reason = self.reason or reason
    self._pulled.set()

  def check(self) -> None:
    """Raises the reason if there is one."""
    if self.reason is not None:
      raise self.reason

  async def sleep(self, seconds: float) -> None:
    """Sleeps; raises the reason as soon as there is one."""
    try:
      async with asyncio.timeout(seconds):
        await self._pulled.wait()
    except TimeoutError:
      return
    self.check()
