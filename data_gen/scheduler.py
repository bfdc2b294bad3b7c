"""Sends requests: bounded concurrency, retries, timeouts, budget, a clean stop.

What the scheduler promises: a request that the ledger has an outcome for is not sent; a
request is not sent when its worst price could break the budget; when the work is
stopped (Ctrl-C, budget, refused key), requests in flight are finished and written down,
and nothing new goes out.
"""

import asyncio
import dataclasses
import datetime
import random
from collections.abc import Iterable, Iterator

from data_gen import ledger, pricing
from data_gen.clients import protocol
from msm_jax import errors, progress

# A service that answers nothing any more: so many requests in a row were given up.
_MAX_FAILURES_IN_ROW = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """How hard to try.

  Attributes:
    max_concurrency: requests in flight.
    timeout_s: limit for one attempt.
    max_attempts: attempts per request before it is given up; being told to wait for a
      rate limit is not an attempt.
    backoff_s, max_backoff_s: the first wait after a failure, doubled up to the second,
      with jitter; a longer wait that the service asks for is honoured.
    max_wait_s: how long one request may wait for rate limits before the run stops.
  """

  max_concurrency: int
  timeout_s: float
  max_attempts: int
  backoff_s: float = 1.0
  max_backoff_s: float = 60.0
  max_wait_s: float = 900.0


class Budget:
  """Dollars that may be spent; None: any number."""

  def __init__(self, max_dollars: float | None, spent: float = 0.0):
    self.max_dollars = max_dollars
    self.spent = spent
    self._reserved = 0.0
    self._settled = asyncio.Condition()

  async def reserve(self, dollars: float) -> None:
    """Sets `dollars` aside, waiting while requests in flight may still cost less.

    Raises:
      Stopped: not even after those would there be enough.
    """
    if self.max_dollars is None:
      return
    async with self._settled:
      while self.spent + self._reserved + dollars > self.max_dollars:
        if self._reserved <= 1e-12:
          raise errors.Stopped(
            f"config.budget.max_dollars={self.max_dollars:g} is reached: "
            f"${self.spent:.4f} is spent and the next request could cost "
            f"${dollars:.4f}; raise the budget and run again to go on"
          )
        await self._settled.wait()
      self._reserved += dollars

  async def settle(self, reserved: float, dollars: float) -> None:
    """Turns a reservation into what was really spent."""
    self.spent += dollars
    if self.max_dollars is not None:
      async with self._settled:
        self._reserved -= reserved
        self._settled.notify_all()


class Scheduler:
  """Asks one client; several schedulers may share a ledger and a budget."""

  def __init__(
    self,
    client: protocol.Client,
    book: ledger.Ledger,
    budget: Budget,
    limits: Limits,
    price: pricing.Price | None,
  ):
    self.client = client
    self.ledger = book
    self._budget = budget
    self._limits = limits
    self._price = price
    self._stop: Exception | None = None
    self._stopped = asyncio.Event()
    self._not_before = 0.0
    self._failures_in_row = 0

  def stop(self, reason: Exception) -> None:
    """Lets requests in flight finish and sends no others; `reason` is raised then."""
    self._stop = self._stop or reason
    self._stopped.set()

  def identity(self, request: protocol.Request) -> str:
    """Returns the identity of a request at this client."""
    return protocol.identity_of(request, self.client)

  def result(self, request: protocol.Request) -> ledger.Entry | None:
    """Returns the outcome of a request, or how it failed; None if it was not asked."""
    identity = self.identity(request)
    return self.ledger.outcome(identity) or self.ledger.failure(identity)

  async def ask_all(
    self,
    requests: Iterable[protocol.Request],
    bar: progress.Progress | None = None,
  ) -> None:
    """Sees to it that every request has a result; texts are left in the ledger.

    Raises:
      Stopped: out of budget, rate limited for too long, or the service is gone.
      UserError: key or model refused, disk full.
    """
    queue = iter(requests)
    workers = [
      asyncio.create_task(self._work(queue, bar))
      for _ in range(self._limits.max_concurrency)
    ]
    try:
      await asyncio.gather(*workers)
    finally:
      for worker in workers:
        worker.cancel()
      await asyncio.gather(*workers, return_exceptions=True)
    if self._stop is not None:
      raise self._stop

  async def _work(
    self, queue: Iterator[protocol.Request], bar: progress.Progress | None
  ) -> None:
    for request in queue:
      if self._stop is not None:
        return
      identity = self.identity(request)
      if identity not in self.ledger:
        try:
          await self._ask(identity, request)
        except (errors.Stopped, errors.UserError) as reason:
          self.stop(reason)
          return
      if bar is not None:
        bar.advance(1, **self._shown())

  def _shown(self) -> dict[str, str]:
    return {"spent": f"${self._budget.spent:.2f}"} if self._budget.spent else {}

  async def _ask(self, identity: str, request: protocol.Request) -> None:
    """Attempts one request until it has an outcome or is given up."""
    attempt, waited = 1, 0.0
    while True:
      waited += await self._wait_for_rate()
      error = await self._attempt(identity, request, attempt)
      if error is None or isinstance(error, protocol.Blocked | protocol.FatalRequest):
        self._failures_in_row = 0
        return
      if isinstance(error, protocol.FatalAuth):
        raise errors.UserError(f"{self._name()} refuses: {error}")
      if isinstance(error, protocol.RateLimited):
        self._slow_down(error, waited)
        continue
      if attempt >= self._limits.max_attempts:
        self._count_failure(error)
        return
      asked = min(error.retry_after or 0.0, self._limits.max_wait_s)
      await self._sleep(max(self._backoff(attempt), asked))
      attempt += 1

  async def _attempt(
    self, identity: str, request: protocol.Request, attempt: int
  ) -> protocol.ClientError | None:
    """Sends a request once and writes down what came of it."""
    reserved = self._worst_price(request)
    await self._budget.reserve(reserved)
    entry, error = None, None
    dollars = 0.0
    try:
      try:
        async with asyncio.timeout(self._limits.timeout_s):
          response = await self.client.generate(request)
        entry = self._entry(identity, request, attempt, response)
      except TimeoutError:
        error = protocol.Retryable(f"no answer within {self._limits.timeout_s:g} s")
      except protocol.ClientError as caught:
        error = caught
      entry = entry or self._error_entry(identity, request, attempt, error)
      dollars = entry.dollars or 0.0
    finally:
      await self._budget.settle(reserved, dollars)
    await self.ledger.append(entry)
    return error

  def _worst_price(self, request: protocol.Request) -> float:
    if self._price is None:
      return 0.0
    # A token has at least two characters in the prompts at hand, four as a rule.
    prompt_tokens = (len(request.system) + len(request.prompt)) // 2 + 1
    usage = protocol.Usage(
      prompt_tokens=prompt_tokens, response_tokens=request.params.max_output_tokens
    )
    return self._price.dollars(usage)

  def _entry(
    self,
    identity: str,
    request: protocol.Request,
    attempt: int,
    response: protocol.Response,
  ) -> ledger.Entry:
    return dataclasses.replace(
      self._blank(identity, request, attempt, response.usage),
      status=ledger.OK,
      text=response.text,
      finish_reason=response.finish_reason,
      model_version=response.model_version,
    )

  def _error_entry(
    self,
    identity: str,
    request: protocol.Request,
    attempt: int,
    error: protocol.ClientError,
  ) -> ledger.Entry:
    return dataclasses.replace(
      self._blank(identity, request, attempt, error.usage),
      status=error.kind,
      error=str(error),
      finish_reason=error.finish_reason,
    )

  def _blank(
    self,
    identity: str,
    request: protocol.Request,
    attempt: int,
    usage: protocol.Usage,
  ) -> ledger.Entry:
    return ledger.Entry(
      id=identity,
      stage=request.stage,
      sample_index=request.sample_index,
      prompt_hash=request.prompt_hash,
      client=dict(self.client.identity),
      params=dataclasses.asdict(request.params),
      attempt=attempt,
      status="",
      time=datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds"),
      usage=dataclasses.asdict(usage),
      dollars=None if self._price is None else self._price.dollars(usage),
    )

  def _slow_down(self, error: protocol.RateLimited, waited: float) -> None:
    """Keeps all requests back for as long as the service asks."""
    wait = error.retry_after
    if wait is None:
      wait = max(self._limits.backoff_s, min(waited, self._limits.max_backoff_s))
    if waited + wait > self._limits.max_wait_s:
      raise errors.Stopped(
        f"{self._name()} limits the rate and asks to wait {wait:.0f} s more ({error}): "
        "run again later to go on"
      )
    now = asyncio.get_running_loop().time()
    self._not_before = max(self._not_before, now + wait)

  async def _wait_for_rate(self) -> float:
    """Waits until requests may go out again; returns how long that took."""
    clock = asyncio.get_running_loop().time
    began = clock()
    while (wait := self._not_before - clock()) > 0:
      # Jitter, so that the held-back requests do not all arrive at once.
      await self._sleep(wait + random.uniform(0, 0.1 * wait))
    return clock() - began

  def _backoff(self, attempt: int) -> float:
    longest = min(
      self._limits.backoff_s * 2 ** (attempt - 1), self._limits.max_backoff_s
    )
    return random.uniform(0.5, 1.0) * longest

  async def _sleep(self, seconds: float) -> None:
    """Sleeps; raises the reason of the stop as soon as there is one."""
    try:
      async with asyncio.timeout(seconds):
        await self._stopped.wait()
    except TimeoutError:
      return
    raise self._stop

  def _count_failure(self, error: protocol.ClientError) -> None:
    self._failures_in_row += 1
    if self._failures_in_row >= _MAX_FAILURES_IN_ROW:
      raise errors.Stopped(
        f"{self._name()} failed {self._failures_in_row} requests in a row, the last "
        f"with: {error}; run again to go on"
      )

  def _name(self) -> str:
    return " ".join(self.client.identity.values())
