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
    with protocol.not_billed():
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

  async def find(self, sought: protocol.Sought) -> str | None:
    """Returns the newest job of this name that has not failed, or any."""
    failed: str | None = None
    after: str | None = None
    while True:
      params = {"limit": 100} | ({"after": after} if after else {})
      page = await self._send("GET", "batches", params=params)
      for job in page.get("data") or []:
        after = job["id"]
        if (job.get("metadata") or {}).get("name") != sought.name:
          continue
        if _state(job).status != protocol.FAILED:
          return job["id"]
        failed = failed or job["id"]
      if not page.get("has_more"):
        return failed

  async def state(self, job: str) -> protocol.JobState:
    """Returns what has become of a job."""
    return _state(await self._get(job))

  async def results(self, job: str) -> AsyncIterator[Result]:
    """Yields the answers of a job that is done."""
    made = await self._get(job)
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
          _check_known(reply)
          self._service.json_of(reply)
        async for chunk in reply.aiter_bytes():
          file.write(chunk)
    file.seek(0)

  async def _get(self, job: str) -> dict[str, Any]:
    with self._service.faults():
      reply = await self._http.get(f"batches/{job}")
    _check_known(reply)
    return self._service.json_of(reply)

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
      return row["custom_id"], self._outcome(row)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
      return protocol.damaged(error)

  def _outcome(self, row: dict[str, Any]) -> protocol.Response | protocol.ClientError:
    reply = row.get("response")
    if not reply:
      return self._service.of_error(row["error"])
    if reply["status_code"] != 200:
      return self._service.of_status(reply["status_code"], reply.get("body"))
    try:
      return answers.response_of(reply.get("body") or {}, self._model)
    except protocol.ClientError as error:
      return error


def _check_known(reply: httpx2.Response) -> None:
  """Raises JobGone if a job or a file is not there."""
  if reply.status_code == 404:
    raise protocol.JobGone(f"404 {reply.text}")


def _state(job: dict[str, Any]) -> protocol.JobState:
  """Returns what a job is: of one that ended early, what was answered is billed."""
  status = job.get("status", "")
  failures = ((job.get("errors") or {}).get("data") or [{}])[0].get("message", "")
  message = f"{status} {failures}".strip()
  if status == "completed":
    return protocol.JobState(status=protocol.DONE, message=message)
  if status != "failed" and status not in _ENDED_EARLY:
    return protocol.JobState(status=protocol.WAITING, message=message)
  has_results = status in _ENDED_EARLY and job.get("output_file_id")
  return protocol.JobState(
    status=protocol.DONE if has_results else protocol.FAILED,
    message=message,
    rest_is_free=True,
  )
