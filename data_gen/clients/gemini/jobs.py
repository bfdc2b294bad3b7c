"""Batch jobs of the Developer API: small ones inline, others through a file."""

import contextlib
import json
import pathlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from google import genai
from google.genai import types
from google.genai.errors import APIError

from data_gen.clients import protocol
from data_gen.clients.gemini import answers, faults

# The service takes 20 MB inline; the SDK's own spelling of the request adds a little.
_MAX_INLINE_BYTES = 15_000_000
_DONE = ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED")
_FAILED = "JOB_STATE_FAILED"
_ENDED_EARLY = ("JOB_STATE_CANCELLED", "JOB_STATE_EXPIRED")

Identified = tuple[str, protocol.Request]
Result = tuple[str, protocol.Response | protocol.ClientError]


class GeminiJobs:
  """Sends, finds and reads batch jobs; see `protocol.BatchClient`."""

  max_requests_per_job = 10_000
  max_bytes_per_job = 100_000_000

  def __init__(
    self,
    sdk: genai.Client,
    model: str,
    service: faults.Service,
    config_of: Callable[[protocol.Request], types.GenerateContentConfig],
  ):
    self._sdk, self._model, self._service = sdk, model, service
    self._config_of = config_of

  async def submit(self, name: str, requests: Sequence[Identified]) -> str:
    """Sends the requests as one job; returns its resource name."""
    with protocol.not_billed(), self._service.faults():
      source = await self._source(name, requests)
    with self._service.faults():
      job = await self._sdk.aio.batches.create(
        model=self._model, src=source, config={"display_name": name}
      )
    return job.name

  async def find(self, sought: protocol.Sought) -> str | None:
    """Returns the newest job with this display name that has not failed, or any."""
    found: list[types.BatchJob] = []
    with self._service.faults():
      async for job in await self._sdk.aio.batches.list(config={"page_size": 100}):
        if job.display_name == sought.name:
          found.append(job)
    # The service lists the newest first; where it gives times, they decide.
    found.sort(key=lambda job: str(job.create_time or ""), reverse=True)
    found.sort(key=lambda job: _state(job) in (_FAILED, *_ENDED_EARLY))
    return found[0].name if found else None

  async def state(self, job: str) -> protocol.JobState:
    """Returns what has become of a job.

    Google does not bill what fails, and does not say whether it bills the answers of a
    job that was cancelled or expired; such a job has no results as a rule.
    """
    made = await self._get(job)
    state = _state(made)
    message = f"{state} {(made.error and made.error.message) or ''}".strip()
    if state in _DONE or (state in _ENDED_EARLY and made.dest is not None):
      return protocol.JobState(status=protocol.DONE, message=message)
    ended = state in (_FAILED, *_ENDED_EARLY)
    return protocol.JobState(
      status=protocol.FAILED if ended else protocol.WAITING,
      message=message,
      rest_is_free=state == _FAILED,
    )

  async def results(self, job: str) -> AsyncIterator[Result]:
    """Yields the answers of a job that is done."""
    made = await self._get(job)
    destination = made.dest or types.BatchJobDestination()
    for inlined in destination.inlined_responses or []:
      yield self._of_inlined(inlined)
    if destination.file_name:
      with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "results.jsonl"
        with self._known():
          await self._sdk.aio.files.download(
            file=destination.file_name, destination=path
          )
        with open(path, "rb") as file:
          for line in file:
            if line.strip():
              yield self._of_line(line)

  async def cancel(self, job: str) -> None:
    """Ends a job; one that has ended stays as it is."""
    with self._service.faults():
      try:
        await self._sdk.aio.batches.cancel(name=job)
      except APIError as error:
        if error.code not in (400, 404, 409):
          raise

  async def _get(self, job: str) -> types.BatchJob:
    with self._known():
      return await self._sdk.aio.batches.get(name=job)

  @contextlib.contextmanager
  def _known(self) -> Iterator[None]:
    """Tells a job or file that is not there (or not to be seen) from other errors."""
    with self._service.faults():
      try:
        yield
      except APIError as error:
        if error.code not in (403, 404):
          raise
        raise protocol.JobGone(f"{error.code} {error.message}") from error

  async def _source(self, name: str, requests: Sequence[Identified]) -> Any:
    configs = [(key, asked, self._config_of(asked)) for key, asked in requests]
    lines = [_line(key, asked.prompt, config) for key, asked, config in configs]
    if sum(map(len, lines)) <= _MAX_INLINE_BYTES:
      return [
        types.InlinedRequest(
          contents=asked.prompt, metadata={"key": key}, config=config
        )
        for key, asked, config in configs
      ]
    with tempfile.TemporaryDirectory() as folder:
      path = pathlib.Path(folder) / "requests.jsonl"
      path.write_bytes(b"".join(lines))
      file = await self._sdk.aio.files.upload(
        file=path, config={"display_name": name, "mime_type": "application/jsonl"}
      )
    return file.name

  def _of_inlined(self, inlined: types.InlinedResponse) -> Result:
    key = (inlined.metadata or {}).get("key", protocol.NOBODY)
    if inlined.response is None:
      error = inlined.error.model_dump(exclude_none=True) if inlined.error else {}
      return key, self._service.of_job(error)
    return key, self._answered(answers.of_sdk(inlined.response))

  def _of_line(self, line: bytes) -> Result:
    try:
      row = json.loads(line)
      key = row["key"]
      if "response" in row:
        return key, self._answered(row["response"])
      return key, self._service.of_job(row["error"])
    except (ValueError, LookupError, TypeError, AttributeError) as error:
      return protocol.damaged(error)

  def _answered(self, answer: dict[str, Any]) -> Any:
    try:
      return answers.response_of(answer, self._model)
    except protocol.ClientError as error:
      return error


def _state(job: types.BatchJob) -> str:
  return str(getattr(job.state, "value", job.state) or "")


def _line(key: str, prompt: str, config: types.GenerateContentConfig) -> bytes:
  """Returns one request as the service wants it in a file."""
  fields = config.model_dump(mode="json", by_alias=True, exclude_none=True)
  system = fields.pop("systemInstruction", None)
  safety = fields.pop("safetySettings", None)
  # Of the SDK's own behaviour, not of the request.
  fields.pop("automaticContinuation", None)
  request: dict[str, Any] = {
    "contents": [{"role": "user", "parts": [{"text": prompt}]}],
    "generationConfig": fields,
  }
  if system is not None:
    request["systemInstruction"] = {"parts": [{"text": system}]}
  if safety is not None:
    request["safetySettings"] = safety
  row = {"key": key, "request": request}
  return json.dumps(row, ensure_ascii=False).encode() + b"\n"
