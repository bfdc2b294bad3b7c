"""Sends requests: as many at once as the service takes, with retries and a budget.

What the scheduler promises: a request that the ledger has an outcome for is not sent; a
request is not sent when its worst price could break the budget; when the work is
stopped (Ctrl-C, budget, refused key), requests in flight are finished and written down,
and nothing new goes out.
"""

import asyncio
import functools
import random
from collections.abc import Iterable, Iterator

from data_gen.clients import protocol
from data_gen.engine import attempts, batching, entries, ledger, pricing
from data_gen.engine.limits import Brake, Budget, Limits
from data_gen.engine.pace import Pace
from data_gen.engine.tally import Kept, Tally
from msm_jax import errors, progress

__all__ = ["Budget", "Limits", "Scheduler"]

# So many requests refused at the start, and none answered: it is not the requests.
_REFUSED_IN_A_ROW = 20


class Scheduler:
  """Asks one client; several schedulers may share a ledger, a budget and a pace.

  With `in_jobs` requests go out in batch jobs, at `job_price`, but for those that are
  too few for one. Without it, what jobs of an earlier run hold is taken back from them
  before it is asked.
  """

  def __init__(
    self,
    client: protocol.Client,
    book: ledger.Ledger,
    budget: Budget,
    limits: Limits,
    price: pricing.Price | None,
    *,
    in_jobs: bool = False,
    job_price: pricing.Price | None = None,
    pace: Pace | None = None,
  ):
    self.client = client
    self.ledger = book
    self._budget = budget
    self._limits = limits
    self._name = f"{client.identity['client']} {client.identity['model']}"
    self._pace = pace or Pace(limits, self._name)
    self._brake = Brake()
    self._asking: set[str] = set()
    self._refused: int | None = 0  # None: one was answered
    self._in_jobs = in_jobs
    self._scribe = attempts.Scribe(client, price)
    self._batches = None
    if client.jobs is not None:
      scribe = attempts.Scribe(client, job_price)
      self._batches = batching.Batches(
        client, book, budget, limits, scribe, self._brake, self._name
      )

  def stop(self, reason: Exception) -> None:
    """Lets requests in flight finish and sends no others; `reason` is raised then."""
    self._brake.pull(reason)
    self._pace.nudge()

  def identity(self, request: protocol.Request) -> str:
    """Returns the identity of a request at this client."""
    return protocol.identity_of(request, self.client)

  def result(self, request: protocol.Request) -> entries.Entry | None:
    """Returns the outcome of a request, or how it failed; None if it was not asked."""
    identity = self.identity(request)
    return self.ledger.outcome(identity) or self.ledger.failure(identity)

  async def ask_all(
    self,
    requests: Iterable[protocol.Request],
    bar: progress.Progress | None = None,
    kept: Kept | None = None,
  ) -> None:
    """Sees to it that every request has a result; texts are left in the ledger.

    Args:
      requests: read as they are sent, so that they need not all be held.
      bar: shows how far it is.
      kept: which records are kept, for the bar; None: whole answers.

    Raises:
      Stopped: out of budget, rate limited for too long, or the service is gone.
      UserError: key or model refused, disk full.
    """
    tally = Tally(self._budget, bar, kept, lambda: self.ledger.spent)
    if self._in_jobs:
      requests = await self._batches.ask_all(requests, tally)
    elif self.ledger.totals.jobs:
      requests = await self._take_back(list(requests), tally)
    queue = iter(requests)
    workers = [
      asyncio.create_task(self._work(queue, tally))
      for _ in range(self._limits.max_concurrency)
    ]
    try:
      await asyncio.gather(*workers)
    finally:
      for worker in workers:
        worker.cancel()
      await asyncio.gather(*workers, return_exceptions=True)
    await self.ledger.flushed()
    self._brake.check()

  async def _take_back(
    self, requests: list[protocol.Request], tally: Tally
  ) -> list[protocol.Request]:
    """Returns the requests, without those that jobs of an earlier run have answered."""
    if self._batches is not None:
      return await self._batches.take_back(requests, tally)
    for job in self.ledger.totals.jobs.values():
      if any(self.identity(request) in job.open for request in requests):
        raise errors.UserError(
          f"{len(job.open)} requests are in batch job {job.name} of an earlier run, "
          f"and {self._name} as it is set now cannot look at it: set tier, project "
          "and base_url back to fetch its answers"
        )
    return requests

  async def _work(self, queue: Iterator[protocol.Request], tally: Tally) -> None:
    for request in queue:
      if self._brake.reason is not None:
        return
      identity = self.identity(request)
      if identity in self.ledger:
        tally.recall(functools.partial(self.ledger.outcome, identity))
        continue
      result = None
      if identity not in self._asking:
        self._asking.add(identity)
        try:
          result = await self._ask(identity, request)
        except (errors.Stopped, errors.UserError) as reason:
          self.stop(reason)
          return
        finally:
          self._asking.discard(identity)
      tally.count(result)

  async def _ask(
    self, identity: str, request: protocol.Request
  ) -> entries.Entry | None:
    """Attempts one request until it has an outcome or is given up."""
    attempt = 1
    while True:
      async with self._pace.turn(self._brake.check) as turn:
        entry, error = await self._attempt(identity, request, attempt)
        if entry.status in entries.OUTCOMES or error is None:
          self._refused = None
          self._pace.succeeded(turn)
          return entry
        if isinstance(error, protocol.FatalRequest):
          self._pace.succeeded(turn)
          self._count_refused(error)
          return entry
        if isinstance(error, protocol.FatalAuth):
          raise errors.UserError(f"{self._name} refuses: {error}")
        if isinstance(error, protocol.RateLimited):
          self._pace.refused(error, turn)
          continue
        self._pace.failed(error, turn, is_first=attempt == 1)
      if attempt >= self._limits.max_attempts:
        return entry
      asked = min(error.retry_after or 0.0, self._limits.max_wait_s)
      await self._brake.sleep(max(self._backoff(attempt), asked))
      attempt += 1

  def enter_costs(self) -> None:
    """Writes down what the client's context caches have cost, beside any answer."""
    for cost in self.client.take_costs():
      entry = self._scribe.kept(cost)
      self.ledger.add(entry)
      self._budget.spend(entry.dollars or 0.0)

  def _count_refused(self, error: protocol.ClientError) -> None:
    """Raises a UserError when the service has refused all that it was asked."""
    if self._refused is None:
      return
    self._refused += 1
    if self._refused >= _REFUSED_IN_A_ROW:
      raise errors.UserError(
        f"{self._name} refuses every request, the last one with: {error}; mend the "
        "setting that it names and run again"
      )

  async def _attempt(
    self, identity: str, request: protocol.Request, attempt: int
  ) -> tuple[entries.Entry, protocol.ClientError | None]:
    """Sends a request once and writes down what came of it."""
    at_most = self._scribe.worst_price(request)
    await self._budget.reserve(at_most)
    entry = None
    try:
      self._brake.check()
      blank = self._scribe.blank(identity, request, attempt, at_most)
      ticket = None if self._scribe.is_free else self.ledger.going_out(blank)
      try:
        entry, error = await self._send(blank, request)
      except asyncio.CancelledError:
        gone = protocol.Retryable("interrupted before the answer came", lost=True)
        entry = self._scribe.failed(blank, gone)
        raise
      finally:
        if entry is not None:
          self.ledger.add(entry)
          if ticket is not None:
            self.ledger.came_back(ticket)
    finally:
      dollars = (entry.dollars if entry else None) or 0.0
      unknown = (entry.at_most if entry else None) or 0.0
      await self._budget.settle(at_most, dollars, unknown)
      self.enter_costs()
    if self._scribe.is_free:
      await asyncio.sleep(0)  # flushed at the end: what it costs is a moment's work
    else:
      await self.ledger.flushed()
    return entry, error

  async def _send(
    self, blank: entries.Entry, request: protocol.Request
  ) -> tuple[entries.Entry, protocol.ClientError | None]:
    try:
      async with asyncio.timeout(self._limits.timeout_s):
        response = await self.client.generate(request)
      return self._scribe.answered(blank, response), None
    except TimeoutError:
      message = f"no answer within {self._limits.timeout_s:g} s"
      error: protocol.ClientError = protocol.Retryable(message, lost=True)
    except protocol.ClientError as caught:
      error = caught
    return self._scribe.failed(blank, error), error

  def _backoff(self, attempt: int) -> float:
    longest = min(
      self._limits.backoff_s * 2 ** (attempt - 1), self._limits.max_backoff_s
    )
    return random.uniform(0.5, 1.0) * longest
