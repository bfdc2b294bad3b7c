"""Sends requests in batch jobs: half the price, answers within a day.

A job's name is in the ledger before the job is sent and its id after, so whatever
happens to the process, a later run finds the job (at worst by its name) and no request
is in two jobs at once. Its answers are appended as they are fetched; requests that
came to nothing in it go into another job, or are sent one by one when they are the last
and few.
"""

import dataclasses
import functools
import hashlib
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator

from data_gen.clients import protocol
from data_gen.engine import attempts, entries, ledger
from data_gen.engine.batch_jobs import Asked, Jobs
from data_gen.engine.limits import Brake, Budget, Limits
from data_gen.engine.tally import Tally
from msm_jax import errors, progress

# Requests are held until their job has ended, so that they can be sent again.
_MAX_HELD_BYTES = 256 << 20


class Batches:
  """Groups the requests of one client into jobs, and takes back those of others."""

  def __init__(
    self,
    client: protocol.Client,
    book: ledger.Ledger,
    budget: Budget,
    limits: Limits,
    scribe: attempts.Scribe,
    brake: Brake,
    name: str,
  ):
    self._client, self._ledger, self._budget = client, book, budget
    self._limits, self._scribe, self._brake = limits, scribe, brake
    self._jobs = Jobs(client, book, budget, limits, scribe, brake, name)
    self._run = secrets.token_hex(4)
    self._num_jobs = 0

  async def ask_all(
    self, requests: Iterable[protocol.Request], tally: Tally
  ) -> list[protocol.Request]:
    """Gets results through jobs; returns the requests to be sent one by one.

    Raises:
      Stopped: stopped, out of budget, or the service does not answer; the jobs go on.
      UserError: the service refuses the job.
    """
    jobs = self._jobs
    singles: list[Asked] = []
    queue = self._fresh(requests, tally)
    try:
      while True:
        self._brake.check()
        async for chunk, is_last in self._chunks(queue, tally):
          if is_last and len(chunk) < self._limits.min_job:
            singles += chunk
          else:
            await self._submit(chunk, tally)
        while jobs.open:
          await jobs.look(tally)
        if not jobs.again:
          return [asked.request for asked in singles]
        queue, jobs.again = iter(jobs.again), []
    except (errors.Stopped, errors.UserError):
      if jobs.open:
        progress.say(
          f"{len(jobs.open)} batch jobs go on at the service: run again to fetch "
          "their answers"
        )
      raise

  async def take_back(
    self, requests: Iterable[protocol.Request], tally: Tally
  ) -> list[protocol.Request]:
    """Ends the jobs of an earlier run; returns the requests to be sent one by one.

    Raises:
      Stopped: stopped, or the service does not answer.
      UserError: the service refuses key or settings.
    """
    jobs = self._jobs
    singles = [asked.request for asked in self._fresh(requests, tally)]
    if jobs.open:
      num_requests = sum(len(out.asked) for out in jobs.open.values())
      progress.say(
        f"{num_requests} requests are in {len(jobs.open)} batch jobs of an earlier "
        "run, and the tier is another one now: the jobs are told to end, their answers "
        "are kept, and what has none is sent one by one"
      )
    jobs.takes_back = True
    while jobs.open:
      await jobs.look(tally)
    singles += [asked.request for asked in jobs.again]
    jobs.again = []
    return singles

  def _fresh(
    self, requests: Iterable[protocol.Request], tally: Tally
  ) -> Iterator[Asked]:
    """Yields the requests that are neither answered nor in a job of an earlier run."""
    in_job = {
      identity: job
      for job in self._ledger.totals.jobs.values()
      for identity in job.open
    }
    seen: set[str] = set()
    for request in requests:
      identity = protocol.identity_of(request, self._client)
      if identity in self._ledger:
        tally.recall(functools.partial(self._ledger.outcome, identity))
        continue
      if identity in seen:
        tally.count(None)
        continue
      seen.add(identity)
      asked = Asked(identity, request)
      job = in_job.get(identity)
      if job is not None and identity in job.open:
        self._jobs.adopt(job, asked)
      else:
        yield asked

  async def _chunks(
    self, queue: Iterator[Asked], tally: Tally
  ) -> AsyncIterator[tuple[list[Asked], bool]]:
    """Yields requests in portions that fit into a job, the budget and the memory.

    And with each, whether it is the last one of its kind.
    """
    service = self._client.jobs
    chunk: list[Asked] = []
    size, dollars = 0, 0.0
    for asked in queue:
      worst = self._scribe.worst_price(asked.request)
      while (
        self._jobs.open
        and len(chunk) < self._limits.min_job
        and dollars + worst > self._budget.left
      ):
        await self._jobs.look(tally)  # the jobs that are out may cost less
      is_last = bool(chunk) and asked.request.params != chunk[0].request.params
      full = (
        is_last
        or len(chunk) >= service.max_requests_per_job
        or size + asked.num_bytes > service.max_bytes_per_job
        or dollars + worst > self._budget.left
      )
      if full:
        if chunk:
          yield chunk, is_last
        chunk, size, dollars = [], 0, 0.0
        await self._make_room(worst, tally)
      chunk.append(asked)
      size, dollars = size + asked.num_bytes, dollars + worst
    if chunk:
      yield chunk, True

  async def _make_room(self, dollars: float, tally: Tally) -> None:
    """Waits for jobs until memory and budget have room for another request."""
    while self._jobs.open and (
      self._jobs.held_bytes > _MAX_HELD_BYTES or dollars > self._budget.left
    ):
      await self._jobs.look(tally)
    await self._budget.reserve(dollars)  # raises if it can never be paid
    await self._budget.settle(dollars, 0.0)

  async def _submit(self, chunk: list[Asked], tally: Tally) -> None:
    """Sends one job as soon as its worst price fits into the budget."""
    for asked in chunk:
      asked.attempts += 1
    planned = self._planned(chunk)
    while self._jobs.open and planned.at_most > self._budget.left:
      await self._jobs.look(tally)
    await self._jobs.send(planned, chunk, tally)

  def _planned(self, chunk: list[Asked]) -> entries.Job:
    identities = "".join(asked.identity for asked in chunk)
    digest = hashlib.sha256(identities.encode()).hexdigest()[:12]
    self._num_jobs += 1
    return entries.Job(
      name=f"msm-{self._run}-{self._num_jobs}-{digest}",
      params=dataclasses.asdict(chunk[0].request.params),
      open={asked.identity: self._waiting(asked) for asked in chunk},
    )

  def _waiting(self, asked: Asked) -> entries.Waiting:
    request = asked.request
    return entries.Waiting(
      stage=request.stage,
      sample_index=request.sample_index,
      prompt_hash=request.prompt_hash,
      attempt=asked.attempts,
      at_most=self._scribe.worst_price(request),
    )
