"""Batch jobs of OpenAI: requests go up as a file, results come down as one."""

import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from typing import IO, Any

import httpx2

from data_gen.clients import protocol
from data_gen.clients.openai import answers, faults

_ENDPOINT = "/v1/chat/completions"
_ENDED_EARLY = ("expired", "cancelled")

Identified = tuple[str, protocol.Request]
Result = tuple[str, protocol.Response | protocol.ClientError]


class OpenAIJobs:
  """Sends, finds and reads batch jobs; see `protocol.BatchClient`."""

  max_requests_per_job = 10_000
  max_bytes_per_job = 100_000_000

  def __init__(
    self,
    http: httpx2.AsyncClient,
    service: faults.Service,
    body_of: Callable[[protocol.Request], dict[str, Any]],
    model: str,
  ):
    self._http, self._service = http, service
    self._body_of, self._model = body_of, model

  async def submit(self, name: str, requests: Sequence[Identified]) -> str:
    """Sends the requests as one job; returns its id."""
    lines = b"".join(self._line(key, asked) for key, asked in requests)
    file = await self._send(
      "POST",
      "files",
      data={"purpose": "batch"},
      files={"file": (f"{name}.jsonl", lines, "application/jsonl")},
    )
    body = {
      "input_file_id": file["id"],
      "endpoint": _ENDPOINT,
      "completion_window": "24h",
      "metadata": {"name": name},
    }
    return (await self._send("POST", "batches", json=body))["id"]

  async def find(self, name: str) -> str | None:
    """Returns the newest job of this name that has not failed."""
    after: str | None = None
    while True:
      params = {"limit": 100} | ({"after": after} if after else {})
      page = await self._send("GET", "batches", params=params)
      for job in page.get("data") or []:
        mine = (job.get("metadata") or {}).get("name") == name
        if mine and _state(job).status != protocol.FAILED:
          return job["id"]
        after = job["id"]
      if not page.get("has_more"):
        return None

  async def state(self, job: str) -> protocol.JobState:
    """Returns what has become of a job."""
    return _state(await self._send("GET", f"batches/{job}"))

  async def results(self, job: str) -> AsyncIterator[Result]:
    """Yields the answers of a job that is done."""
    made = await self._send("GET", f"batches/{job}")
    for field in ("output_file_id", "error_file_id"):
      if not made.get(field):
        continue
      with tempfile.TemporaryFile() as file:
        await self._download(made[field], file)
        for line in file:
          if line.strip():
            yield self._of_line(line)

  async def cancel(self, job: str) -> None:
    """Ends a job; one that has ended stays as it is."""
    with self._service.faults():
      reply = await self._http.post(f"batches/{job}/cancel")
    if reply.status_code not in (200, 400, 404, 409):
      self._service.json_of(reply)

  async def _download(self, name: str, file: IO[bytes]) -> None:
    with self._service.faults():
      async with self._http.stream("GET", f"files/{name}/content") as reply:
        if reply.status_code != 200:
          await reply.aread()
          self._service.json_of(reply)
        async for chunk in reply.aiter_bytes():
          file.write(chunk)
    file.seek(0)

  async def _send(self, method: str, path: str, **details: Any) -> dict[str, Any]:
    with self._service.faults():
      reply = await self._http.request(method, path, **details)
    return self._service.json_of(reply)

  def _line(self, key: str, request: protocol.Request) -> bytes:
    row = {
      "custom_id": key,
      "method": "POST",
      "url": _ENDPOINT,
      "body": self._body_of(request),
    }
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"

  def _of_line(self, line: bytes) -> Result:
    try:
      row = json.loads(line)
      key = row["custom_id"]
    except (ValueError, LookupError, TypeError) as error:
      raise protocol.Retryable(f"the results of the job are damaged: {error}") from None
    reply = row.get("response") or {}
    if reply.get("status_code") == 200:
      try:
        return key, answers.response_of(reply.get("body") or {}, self._model)
      except protocol.ClientError as error:
        return key, error
    if reply:
      return key, self._service.of_status(reply["status_code"], reply.get("body"))
    return key, self._service.of_error(row.get("error") or {})


def _state(job: dict[str, Any]) -> protocol.JobState:
  status = job.get("status", "")
  failures = ((job.get("errors") or {}).get("data") or [{}])[0].get("message", "")
  message = f"{status} {failures}".strip()
  if status == "completed" or (status in _ENDED_EARLY and job.get("output_file_id")):
    return protocol.JobState(status=protocol.DONE, message=message)
  if status == "failed" or status in _ENDED_EARLY:
    return protocol.JobState(status=protocol.FAILED, message=message)
  return protocol.JobState(status=protocol.WAITING, message=message)
