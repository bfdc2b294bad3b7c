"""Batch jobs that are out: sent, looked after, fetched, whatever the service says."""

import asyncio
import dataclasses
import json
import time

from data_gen.clients import protocol
from data_gen.engine import attempts, batch_posting, entries, ledger
from data_gen.engine.limits import Brake, Budget, Limits
from data_gen.engine.tally import Tally
from msm_jax import errors, progress

# What a request takes in a job beside its texts and schema.
_OVERHEAD_BYTES = 1000
# Rows that are added to the ledger before it is flushed, while a job is fetched.
_FLUSH_EVERY = 256
# Jobs that came to nothing, one after the other, until the run stops.
_MAX_FAILED_JOBS = 2
_POLL_GROWTH = 1.5
# What is not asked again.
_FINAL = (protocol.Response, protocol.Blocked, protocol.FatalRequest)


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
  """A job that is out.

  Attributes:
    job: what the ledger says of it.
    asked: the requests in it that were asked for in this run.
    since: when this run began to wait for it.
    is_new: this run sent it.
    is_cancelled: it was told to end.
    failed_looks, failure: how often in a row it could not be looked at, and why.
  """

  job: entries.Job
  asked: dict[str, Asked] = dataclasses.field(default_factory=dict)
  since: float = dataclasses.field(default_factory=time.monotonic)
  is_new: bool = False
  is_cancelled: bool = False
  failed_looks: int = 0
  failure: str = ""


class Jobs:
  """The jobs of one client.

  Attributes:
    open: name -> job that is out.
    again: requests that came to nothing in a job and may be asked again.
    takes_back: jobs that still run are told to end.
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
    self._post = batch_posting.Post(client.jobs, book, limits, brake, name)
    self.open: dict[str, Open] = {}
    self.again: list[Asked] = []
    self.takes_back = False
    self._pause = limits.poll_s
    self._failed_jobs = 0
    self._refusal: protocol.FatalAuth | None = None

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
    await self._post.note(planned, entries.PLANNED)
    job = self._ledger.totals.jobs[planned.name]
    out = Open(job, {asked.identity: asked for asked in chunk}, is_new=True)
    pairs = [(asked.identity, asked.request) for asked in chunk]
    try:
      job.id = await self._post.send(
        job, pairs, lambda pause: self._wait_to_send(pause, tally)
      )
    except (errors.Stopped, errors.UserError):
      await self._end(out)
      raise
    self.open[job.name] = out
    if job.id is None:
      await self._attend(out, tally)
    else:
      await self._post.note(job, entries.SENT)

  async def _wait_to_send(self, pause: float, tally: Tally) -> bool:
    """Waits until the service may take another job; returns whether others are out."""
    if not self.open:
      await self._brake.sleep(pause)
      return False
    self._pause = max(self._pause, pause)
    await self.look(tally)  # a place may become free
    return True

  async def look(self, tally: Tally) -> None:
    """Waits a little and fetches the jobs that are done.

    Raises:
      Stopped: jobs in a row came to nothing, or no job that is left can be fetched.
      UserError: the service refuses key or settings.
    """
    oldest = min(out.since for out in self.open.values())
    age = progress.duration(time.monotonic() - oldest)
    tally.show(jobs=f"{len(self.open)} open for {age}")
    await self._brake.sleep(self._pause)
    self._pause = min(self._pause * _POLL_GROWTH, self._limits.max_poll_s)
    for out in list(self.open.values()):
      if not await self._attend(out, tally):
        break
    stuck = [
      out for out in self.open.values() if out.failed_looks >= self._limits.max_attempts
    ]
    if stuck and len(stuck) == len(self.open):
      raise errors.Stopped(
        f"{self._name}: {len(stuck)} batch jobs cannot be fetched, the first is "
        f"{stuck[0].job.name}: {stuck[0].failure}; run again to go on"
      )

  async def _attend(self, out: Open, tally: Tally) -> bool:
    """Looks at a job; returns False if the service does not want to be asked now."""
    try:
      async with asyncio.timeout(batch_posting.CALL_TIMEOUT_S):
        await self._look_at(out, tally)
      out.failed_looks = 0
    except protocol.FatalAuth as error:
      raise errors.UserError(f"{self._name} refuses: {error}") from None
    except protocol.RateLimited as error:
      asked = min(error.retry_after or 0.0, self._limits.max_wait_s)
      self._pause = max(self._pause, asked)
      return False
    except (TimeoutError, protocol.ClientError) as error:
      out.failed_looks += 1
      out.failure = str(error)
    return True

  async def _look_at(self, out: Open, tally: Tally) -> None:
    job = out.job
    if job.id is None and not await self._seek(out, tally):
      return None
    try:
      state = await self._service.state(job.id)
    except protocol.JobGone as error:
      return await self._check_gone(out, error, tally)
    if state.status == protocol.WAITING:
      if self.takes_back and not out.is_cancelled:
        await self._service.cancel(job.id)
        out.is_cancelled = True
      return None
    self._pause = self._limits.poll_s
    if state.status == protocol.FAILED:
      what = f"the batch job failed: {state.message}"
      await self._give_up(out, what, not state.rest_is_free, tally)
      return self._failed(what)
    try:
      is_whole, has_outcomes = await self._fetch(out, tally)
    except protocol.JobGone as error:
      return await self._gone(out, error, tally)
    what = "the batch job has no answer to this request"
    await self._give_up(out, what, not (state.rest_is_free and is_whole), tally)
    if self._refusal is not None:
      raise errors.UserError(f"{self._name} refuses: {self._refusal}")
    if not has_outcomes:
      return self._failed("no request in it was answered, only told to wait")
    self._failed_jobs = 0
    return None

  async def _seek(self, out: Open, tally: Tally) -> bool:
    """Looks for a job whose id never came; returns whether it was found."""
    job = out.job
    try:
      job.id = await self._post.found(job)
    except protocol.Undecided:
      return False
    if job.id is not None:
      await self._post.note(job, entries.SENT)
      return True
    if job.refused:
      back = [out.asked[i] for i in job.open if i in out.asked]
      for asked in back:
        asked.attempts -= out.is_new  # it was none
      self.again += back
      await self._end(out)
    else:
      what = "the batch job may have been taken, and the service does not list it"
      self._say_lost(out, what)
      await self._give_up(out, what, True, tally)
    if out.is_new:
      self._failed("the service did not say that it has the job")
    return False

  async def _check_gone(self, out: Open, error: Exception, tally: Tally) -> None:
    """Lets go of a job that the service does not know, if it is the right service."""
    try:
      found = await self._post.found(out.job)
    except protocol.Undecided:
      found = None
    if found == out.job.id:
      raise protocol.Retryable(f"{error} (though it is listed)")
    await self._gone(out, error, tally)

  async def _gone(self, out: Open, error: Exception, tally: Tally) -> None:
    what = f"the batch job is gone: {error}"
    self._say_lost(out, what)
    await self._give_up(out, what, True, tally)

  def _say_lost(self, out: Open, what: str) -> None:
    progress.say(
      f"{self._name}: {what} ({out.job.name}); {len(out.job.open)} requests are asked "
      f"again, up to ${out.job.at_most:.4f} may have been billed for them"
    )

  def _failed(self, what: str) -> None:
    """Counts a job that came to nothing; raises if it was not the first in a row."""
    self._failed_jobs += 1
    if self._failed_jobs >= _MAX_FAILED_JOBS and not self.takes_back:
      raise errors.Stopped(
        f"{self._name}: {self._failed_jobs} batch jobs in a row failed, the last with: "
        f"{what}; run again to go on, or choose another tier"
      )

  async def _fetch(self, out: Open, tally: Tally) -> tuple[bool, bool]:
    """Appends the answers of a job as they arrive.

    Returns:
      (whether all lines could be read, whether any was more than a rate limit)
    """
    added, is_whole, has_outcomes = 0, True, False
    async for identity, outcome in self._service.results(out.job.id):
      is_whole &= identity != protocol.NOBODY
      has_outcomes |= not isinstance(outcome, protocol.RateLimited)
      if identity not in out.job.open:
        continue
      await self._record(out, identity, outcome, tally)
      added += 1
      if added % _FLUSH_EVERY == 0:
        await self._ledger.flushed()
    await self._ledger.flushed()
    return is_whole, has_outcomes

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
    if isinstance(outcome, protocol.FatalAuth):
      self._refusal = self._refusal or outcome
    # Being told to wait is not an attempt.
    asked.attempts = entry.attempt - isinstance(outcome, protocol.RateLimited)
    is_spent = asked.attempts >= self._limits.max_attempts and not out.is_cancelled
    if is_spent or isinstance(outcome, _FINAL):
      tally.count(entry)
    else:
      self.again.append(asked)

  async def _give_up(self, out: Open, what: str, lost: bool, tally: Tally) -> None:
    """Ends a job; what has no result is asked again.

    Args:
      out: the job.
      what: became of it.
      lost: answers may have been billed all the same.
      tally: counts what is not asked again.
    """
    for identity in list(out.job.open):
      error = protocol.Retryable(what, lost=lost)
      await self._record(out, identity, error, tally)
    await self._end(out)

  async def _end(self, out: Open) -> None:
    """Lets go of a job; nothing is billed for what has no result."""
    self.open.pop(out.job.name, None)
    for request in out.job.open.values():
      await self._budget.settle(request.at_most, 0.0)
    await self._post.note(out.job, entries.ENDED)
