"""Message batches of Claude."""

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import anthropic

from data_gen.clients import protocol
from data_gen.clients.anthropic import answers, faults

Identified = tuple[str, protocol.Request]
Result = tuple[str, protocol.Response | protocol.ClientError]


class AnthropicJobs:
  """Sends and reads batch jobs; see `protocol.BatchClient`.

  The service keeps no names: a job whose id was lost cannot be found again.
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

  async def find(self, name: str) -> str | None:
    """Returns None: the service keeps no names."""
    return None

  async def state(self, job: str) -> protocol.JobState:
    """Returns what has become of a job."""
    with self._service.faults():
      made = await self._sdk.messages.batches.retrieve(job)
    ended = made.processing_status == "ended"
    return protocol.JobState(
      status=protocol.DONE if ended else protocol.WAITING,
      message=str(made.processing_status),
    )

  async def results(self, job: str) -> AsyncIterator[Result]:
    """Yields the answers of a job that is done; expired requests are not among them."""
    with self._service.faults():
      rows = await self._sdk.messages.batches.results(job)
      async for row in rows:
        if (result := self._of_row(row.result)) is not None:
          yield row.custom_id, result

  async def cancel(self, job: str) -> None:
    """Ends a job; one that has ended stays as it is."""
    with self._service.faults():
      try:
        await self._sdk.messages.batches.cancel(job)
      except anthropic.APIStatusError as error:
        if error.status_code not in (400, 404, 409):
          raise

  def _of_row(self, result: Any) -> protocol.Response | protocol.ClientError | None:
    if result.type == "succeeded":
      try:
        return answers.response_of(result.message, self._model)
      except protocol.ClientError as error:
        return error
    if result.type == "errored":
      inner = result.error.error
      return self._service.of_job(inner.type, inner.message)
    return None
