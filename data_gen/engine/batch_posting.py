"""Batch jobs on their way to the service: sent until it has them, or found there."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from data_gen.clients import protocol
from data_gen.engine import entries, ledger
from data_gen.engine.limits import Brake, Limits
from msm_jax import errors

# A job is large: its requests go up and its results come down in one call.
CALL_TIMEOUT_S = 1800.0


class Post:
  """Sends the jobs of one client, and notes in the ledger how far they came."""

  def __init__(
    self,
    service: protocol.BatchClient,
    book: ledger.Ledger,
    limits: Limits,
    brake: Brake,
    name: str,
  ):
    self._service, self._ledger, self._limits = service, book, limits
    self._brake, self._name = brake, name

  async def note(self, job: entries.Job, state: str) -> None:
    """Writes down what has become of a job."""
    await self._ledger.note(job.row(state, ledger.now()))

  async def send(
    self,
    job: entries.Job,
    requests: Sequence[tuple[str, protocol.Request]],
    wait: Callable[[float], Awaitable[bool]],
  ) -> str | None:
    """Sends a job until the service has taken it; returns its id.

    Args:
      job: what the ledger says of it.
      requests: (identity, request) of each.
      wait: waits so many seconds, or until the service may take another job; returns
        whether it has other jobs that may make room.

    Returns:
      None: the service may have the job, or not: it has to be looked for.

    Raises:
      Stopped, UserError: and the service does not have the job.
    """
    failures, began = 0, time.monotonic()
    while True:
      self._brake.check()
      try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
          return await self._service.submit(job.name, requests)
      except TimeoutError:
        return None
      except (protocol.FatalAuth, protocol.FatalRequest, protocol.Blocked) as error:
        raise errors.UserError(
          f"{self._name} refuses a batch job of {len(requests)} requests: {error}; "
          "another tier ('flex', 'standard') sends them one by one"
        ) from None
      except protocol.ClientError as caught:
        error = caught
      if error.lost:
        return None
      is_limited = isinstance(error, protocol.RateLimited)
      if not is_limited:
        # What was answered with an error may have been taken all the same.
        failures += 1
        try:
          found = await self.found(job)
        except (TimeoutError, protocol.ClientError, errors.Stopped, errors.UserError):
          await self.note(job, entries.REFUSED)
          return None
        if found is not None:
          return found
      waited = time.monotonic() - began
      if failures >= self._limits.max_attempts or (
        is_limited and waited > self._limits.max_wait_s
      ):
        raise errors.Stopped(
          f"{self._name} takes no batch job now: {error}; run again later to go on"
        )
      pause = max(self._limits.backoff_s * 2**failures, error.retry_after or 0.0)
      if await wait(min(pause, self._limits.max_wait_s)):
        began = time.monotonic()

  async def found(self, job: entries.Job) -> str | None:
    """Returns the id of a job as soon as it is listed, None if it is not in time.

    Raises:
      ClientError: it cannot be told.
      TimeoutError: the service does not answer.
    """
    sought = protocol.Sought(
      name=job.name,
      sent=job.sent,
      identities=job.open.keys(),
      others=self._ledger.totals.job_ids - {job.id},
    )
    began, patience = time.monotonic(), self._limits.listing_s
    while True:
      async with asyncio.timeout(self._limits.timeout_s):
        found = await self._service.find(sought)
      if found is not None or time.monotonic() - began >= patience:
        return found
      await self._brake.sleep(max(self._limits.backoff_s, patience / 10))
