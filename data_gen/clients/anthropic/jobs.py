"""Message batches of Claude."""

import contextlib
import datetime
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import anthropic
from anthropic.types import messages

from data_gen.clients import protocol
from data_gen.clients.anthropic import answers, faults

# How far the clock of this machine may be off.
_SKEW = datetime.timedelta(hours=1)

Identified = tuple[str, protocol.Request]
Result = tuple[str, protocol.Response | protocol.ClientError]


class AnthropicJobs:
  """Sends and reads batch jobs; see `protocol.BatchClient`.

  The service keeps no names: a job whose id was lost is found by its time, its size and
  the identities in its results.
  """

  max_requests_per_job = 10_000
  max_bytes_per_job = 100_000_000

  def __init__(
    self,
    sdk: anthropic.AsyncAnthropic,
    service: faults.Service,
    body_of: Callable[[protocol.Request], dict[str, Any]],
    model: str,
  ):
    self._sdk, self._service = sdk, service
    self._body_of, self._model = body_of, model

  async def submit(self, name: str, requests: Sequence[Identified]) -> str:
    """Sends the requests as one job; returns its id. The name is not kept."""
    rows = [
      {"custom_id": key, "params": self._body_of(asked)} for key, asked in requests
    ]
    with self._service.faults():
      return (await self._sdk.messages.batches.create(requests=rows)).id

  async def find(self, sought: protocol.Sought) -> str | None:
    """Returns the job that has answers to these identities.

    Raises:
      Undecided: jobs of this size still run, and have no answers to look at.
    """
    since = datetime.datetime.fromisoformat(sought.sent) - _SKEW
    running = []
    with self._service.faults():
      async for made in self._sdk.messages.batches.list(limit=100):
        if made.created_at < since:  # the newest come first
          break
        if made.id in sought.others or _size(made) != len(sought.identities):
          continue
        if made.processing_status != "ended":
          running.append(made.id)
        elif made.results_url and await self._holds(made.id, sought):
          return made.id
    if running:
      raise protocol.Undecided(f"{', '.join(running)}: it may be one of these")
    return None

  async def _holds(self, job: str, sought: protocol.Sought) -> bool:
    async with contextlib.aclosing(self.results(job)) as results:
      async for identity, _ in results:
        if identity != protocol.NOBODY:
          return identity in sought.identities
    return False

  async def state(self, job: str) -> protocol.JobState:
    """Returns what has become of a job; its results say what was not billed."""
    made = await self._get(job)
    ended = made.processing_status == "ended"
    return protocol.JobState(
      status=protocol.DONE if ended else protocol.WAITING,
      message=str(made.processing_status),
    )

  async def results(self, job: str) -> AsyncIterator[Result]:
    """Yields the answers of a job that is done."""
    if not (await self._get(job)).results_url:
      raise protocol.JobGone("the service no longer has its results")
    with self._known():
      streamed = self._sdk.messages.batches.with_streaming_response
      async with streamed.results(job) as reply:
        async for line in _lines(reply.iter_bytes()):
          yield self._of_line(line)

  async def cancel(self, job: str) -> None:
    """Ends a job; one that has ended stays as it is."""
    with self._service.faults():
      try:
        await self._sdk.messages.batches.cancel(job)
      except anthropic.APIStatusError as error:
        if error.status_code not in (400, 404, 409):
          raise

  async def _get(self, job: str) -> messages.MessageBatch:
    with self._known():
      return await self._sdk.messages.batches.retrieve(job)

  @contextlib.contextmanager
  def _known(self) -> Iterator[None]:
    """Tells a job that is not there from other errors."""
    with self._service.faults():
      try:
        yield
      except anthropic.NotFoundError as error:
        raise protocol.JobGone(f"404 {error.message}") from error

  def _of_line(self, line: bytes) -> Result:
    try:
      fields = json.loads(line)
      row = messages.MessageBatchIndividualResponse.construct(**fields)
      return row.custom_id, self._outcome(row.result)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
      return protocol.damaged(error)

  def _outcome(self, result: Any) -> protocol.Response | protocol.ClientError:
    if result.type == "succeeded":
      try:
        return answers.response_of(result.message, self._model)
      except protocol.ClientError as error:
        return error
    if result.type == "errored":
      inner = result.error.error
      return self._service.of_job(inner.type, inner.message)
    # Expired or canceled before it came to the model: not billed.
    return protocol.Retryable(f"the request is {result.type}")


def _size(made: messages.MessageBatch) -> int:
  counts = made.request_counts
  return (
    counts.processing
    + counts.succeeded
    + counts.errored
    + counts.canceled
    + counts.expired
  )


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
  """Yields the lines of a file that comes in pieces."""
  rest = b""
  async for chunk in chunks:
    *lines, rest = (rest + chunk).split(b"\n")
    for line in lines:
      if line.strip():
        yield line
  if rest.strip():
    yield rest
