"""Batch jobs that are out: sent, looked after, fetched, whatever the service says."""

import asyncio
import dataclasses
import json
import time

from data_gen.clients import protocol
from data_gen.engine import attempts, entries, ledger
from data_gen.engine.limits import Brake, Budget, Limits
from data_gen.engine.tally import Tally
from msm_jax import errors, progress

# What a request takes in a job beside its texts and schema.
_OVERHEAD_BYTES = 1000
# Rows that are added to the ledger before it is flushed, while a job is fetched.
_FLUSH_EVERY = 256
_CALL_TIMEOUT_S = 1800.0
# Jobs that failed as a whole, one after the other, until the run stops.
_MAX_FAILED_JOBS = 2
_POLL_GROWTH = 1.5


@dataclasses.dataclass
class Asked:
  """A request on its way: the attempts that were made, and its size in a job."""

  identity: str
  request: protocol.Request
  attempts: int = 0
  num_bytes: int = 0

  def __post_init__(self) -> None:
    texts = [self.request.system, self.request.prompt, self.request.schema]
    self.num_bytes = len(json.dumps(texts)) + _OVERHEAD_BYTES


@dataclasses.dataclass
class Open:
  """A job that is out, with the requests in it that were asked for in this run."""

  job: entries.Job
  asked: dict[str, Asked] = dataclasses.field(default_factory=dict)
  since: float = dataclasses.field(default_factory=time.monotonic)
  failed_looks: int = 0


class Jobs:
  """The jobs of one client.

  Attributes:
    open: name -> job that is out.
    again: requests that came to nothing in a job and may be asked again.
  """

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
    self._service, self._ledger, self._budget = client.jobs, book, budget
    self._limits, self._scribe, self._brake = limits, scribe, brake
    self._name = name
    self.open: dict[str, Open] = {}
    self.again: list[Asked] = []
    self._pause = limits.poll_s
    self._failed_jobs = 0

  @property
  def held_bytes(self) -> int:
    """The size of the requests that are held until their job has ended."""
    waiting = [asked for out in self.open.values() for asked in out.asked.values()]
    return sum(asked.num_bytes for asked in [*waiting, *self.again])

  def adopt(self, job: entries.Job, asked: Asked) -> None:
    """Waits for a request in a job that an earlier run has sent."""
    if job.name not in self.open:
      self._budget.adopt(job.at_most, len(job.open))
      self.open[job.name] = Open(job)
    self.open[job.name].asked[asked.identity] = asked

  async def send(self, planned: entries.Job, chunk: list[Asked], tally: Tally) -> None:
    """Sends a job; it is noted before and after, and its worst price set aside.

    Raises:
      Stopped: stopped, out of budget, or the service does not take it now.
      UserError: the service refuses it.
    """
    await self._budget.reserve(planned.at_most, len(planned.open))
    await self._ledger.note(planned.row(entries.PLANNED, ledger.now()))
    job = self._ledger.totals.jobs[planned.name]
    out = Open(job, {asked.identity: asked for asked in chunk})
    await self._sent(out, await self._send(out, tally))
    self.open[job.name] = out

  async def _sent(self, out: Open, job_id: str) -> None:
    out.job.id = job_id
    await self._ledger.note(out.job.row(entries.SENT, ledger.now()))

  async def _send(self, out: Open, tally: Tally) -> str:
    """Sends a job until the service has taken it; returns its id."""
    pairs = [(identity, asked.request) for identity, asked in out.asked.items()]
    name, failures, began = out.job.name, 0, time.monotonic()
    while True:
      self._brake.check()
      try:
        async with asyncio.timeout(_CALL_TIMEOUT_S):
          return await self._service.submit(name, pairs)
      except (protocol.FatalAuth, protocol.FatalRequest, protocol.Blocked) as error:
        await self._end(out)
        raise errors.UserError(
          f"{self._name} refuses a batch job of {len(pairs)} requests: {error}; "
          "another tier ('flex', 'standard') sends them one by one"
        ) from None
      except (TimeoutError, protocol.ClientError) as caught:
        error = caught
      limited = isinstance(error, protocol.RateLimited)
      failures += not limited
      waited = time.monotonic() - began
      if failures >= self._limits.max_attempts or (
        limited and not self.open and waited > self._limits.max_wait_s
      ):
        raise errors.Stopped(
          f"{self._name} takes no batch job now: {error}; run again later to go on"
        )
      await self._wait_to_send(error, failures, tally)
      # It may have been taken all the same.
      if (found := await self._found(name)) is not None:
        return found

  async def _wait_to_send(self, error: Exception, failures: int, tally: Tally) -> None:
    if self.open:
      return await self.look(tally)  # a place may become free
    pause = self._limits.backoff_s * 2**failures
    pause = max(pause, getattr(error, "retry_after", None) or 0.0)
    return await self._brake.sleep(min(pause, self._limits.max_wait_s))

  async def _found(self, name: str) -> str | None:
    """Asks for a job by its name; twice, as a new job may not be listed at once."""
    for attempt in range(self._limits.max_attempts + 1):
      try:
        async with asyncio.timeout(self._limits.timeout_s):
          found = await self._service.find(name)
      except protocol.FatalAuth as error:
        raise errors.UserError(f"{self._name} refuses: {error}") from None
      except (TimeoutError, protocol.ClientError) as error:
        if attempt == self._limits.max_attempts:
          raise errors.Stopped(
            f"{self._name} does not say whether it has batch job {name}: {error}; run "
            "again to go on"
          ) from None
      else:
        if found is not None or attempt:
          return found
      await self._brake.sleep(self._limits.backoff_s)
    return None

  async def look(self, tally: Tally) -> None:
    """Waits a little and fetches the jobs that are done."""
    oldest = min(out.since for out in self.open.values())
    age = progress.duration(time.monotonic() - oldest)
    tally.show(jobs=f"{len(self.open)} open for {age}")
    await self._brake.sleep(self._pause)
    self._pause = min(self._pause * _POLL_GROWTH, self._limits.max_poll_s)
    for out in list(self.open.values()):
      try:
        async with asyncio.timeout(_CALL_TIMEOUT_S):
          await self._look_at(out, tally)
        out.failed_looks = 0
      except protocol.FatalAuth as error:
        raise errors.UserError(f"{self._name} refuses: {error}") from None
      except protocol.RateLimited:
        continue
      except (TimeoutError, protocol.ClientError) as error:
        out.failed_looks += 1
        if out.failed_looks >= self._limits.max_attempts:
          raise errors.Stopped(
            f"{self._name}: batch job {out.job.name} cannot be fetched: {error}; run "
            "again to go on"
          ) from None

  async def _look_at(self, out: Open, tally: Tally) -> None:
    job = out.job
    if job.id is None:
      found = await self._found(job.name)
      if found is None:  # the process had died before it was sent
        return await self._put_back(out)
      await self._sent(out, found)
    state = await self._service.state(job.id)
    if state.status == protocol.WAITING:
      return None
    self._pause = self._limits.poll_s
    if state.status == protocol.DONE:
      self._failed_jobs = 0
      await self._fetch(out, tally)
      gone = "the batch job has no answer to this request"
    else:
      self._failed_jobs += 1
      gone = f"the batch job failed: {state.message}"
    for identity in list(job.open):
      error = protocol.Retryable(gone, lost=True)
      await self._record(out, identity, error, tally)
    await self._end(out)
    if self._failed_jobs >= _MAX_FAILED_JOBS:
      raise errors.Stopped(
        f"{self._name}: {self._failed_jobs} batch jobs in a row failed, the last with: "
        f"{state.message}; run again to go on, or choose another tier"
      )
    return None

  async def _fetch(self, out: Open, tally: Tally) -> None:
    """Appends the answers of a job as they arrive."""
    added = 0
    async for identity, outcome in self._service.results(out.job.id):
      if identity not in out.job.open:
        continue
      await self._record(out, identity, outcome, tally)
      added += 1
      if added % _FLUSH_EVERY == 0:
        await self._ledger.flushed()
    await self._ledger.flushed()

  async def _record(
    self,
    out: Open,
    identity: str,
    outcome: protocol.Response | protocol.ClientError,
    tally: Tally,
  ) -> None:
    """Writes down one result; what came to nothing is asked again."""
    at_most = out.job.open[identity].at_most
    blank = self._scribe.in_job(identity, out.job)
    if isinstance(outcome, protocol.Response):
      entry = self._scribe.answered(blank, outcome)
    else:
      entry = self._scribe.failed(blank, outcome)
    self._ledger.add(entry)
    await self._budget.settle(at_most, entry.dollars or 0.0, entry.at_most or 0.0)
    asked = out.asked.get(identity)
    if asked is None:  # of a run with other settings; it is paid and kept
      return
    asked.attempts = entry.attempt
    if identity in self._ledger or entry.attempt >= self._limits.max_attempts:
      tally.count(entry)
    else:
      self.again.append(asked)

  async def _put_back(self, out: Open) -> None:
    """Forgets a job that was never sent; its requests go into others."""
    self.again += [out.asked[i] for i in out.job.open if i in out.asked]
    await self._end(out)

  async def _end(self, out: Open) -> None:
    """Lets go of a job; nothing is billed for what has no result."""
    self.open.pop(out.job.name, None)
    for request in out.job.open.values():
      await self._budget.settle(request.at_most, 0.0)
    await self._ledger.note(out.job.row(entries.ENDED, ledger.now()))
