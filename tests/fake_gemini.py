"""A Gemini server on this machine: real HTTP, scripted faults, answers that fit.

It answers the prompts of the generation chains well enough for a corpus to come out,
keeps caches, takes batch jobs and files, and keeps account of every answer that it
sent, as the bill would.
"""

import json
import time
from typing import Any

from fake_answers import answer, stage_of
from fake_http import FakeServer, Faults, Handler, results_file

__all__ = ["MODEL", "FakeGemini", "Faults", "answer", "stage_of"]

MODEL = "gemini-2.5-flash"
# The daily quota as the service reports it.
_PER_DAY = {
  "@type": "type.googleapis.com/google.rpc.QuotaFailure",
  "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel-FreeTier"}],
}
_SAID = {
  "thinking": (400, "Budget 0 is invalid. This model only works in thinking mode."),
  "too_long": (
    400,
    "The input token count (1200000) exceeds the maximum number of tokens allowed",
  ),
  "unknown_field": (400, 'Invalid JSON payload. Unknown name "serviceTier"'),
  "billing": (400, "FAILED_PRECONDITION Please enable billing"),
  "bad_key": (400, "API key not valid."),
}


class _Handler(Handler):
  def generate(self, path: str) -> None:
    fake = self.fake
    body = json.loads(self.body)
    system, prompt = _asked(fake, body)
    with fake.lock:
      fake.bodies.append(body)
      fake.attempts[system + prompt] += 1
      attempt = fake.attempts[system + prompt]
      fake.in_flight += 1
      fake.most_in_flight = max(fake.most_in_flight, fake.in_flight)
    try:
      time.sleep(fake.delay_s)
      self._answer(system, prompt, fake.faults(prompt, attempt), body)
    finally:
      with fake.lock:
        fake.in_flight -= 1

  def _answer(self, system: str, prompt: str, fault: str, body: dict) -> None:
    if self.transport_fault(fault):
      return
    if cached := body.get("cachedContent"):
      if "systemInstruction" in body:
        self._fail(400, "cachedContent excludes systemInstruction")
        return
      if cached not in self.fake.caches:
        self._fail(403, "CachedContent not found (or permission denied)")
        return
    if fault in _SAID:
      self._fail(*_SAID[fault])
    elif fault == "daily":
      self._fail(429, "You exceeded your current quota", [_PER_DAY])
    elif fault.isdigit():
      self._fail(int(fault), "scripted")
    else:
      self.send(200, _body(answer(system, prompt), fault, bool(cached)))
      with self.fake.lock:
        self.fake.answered[system + prompt] += 1

  def _fail(self, code: int, message: str, details: list | None = None) -> None:
    retry = [{"@type": "RetryInfo", "retryDelay": "0.3s"}] if code == 429 else []
    details = (details or []) + retry
    if code == 400:
      reason = "API_KEY_INVALID" if "API key" in message else "INVALID_ARGUMENT"
      details = [{"@type": "ErrorInfo", "reason": reason}]
    error = {"code": code, "message": message, "status": "X", "details": details}
    headers = {"Retry-After": "0.2"} if code == 429 else {}
    self.send(code, {"error": error}, headers)

  def create_cache(self) -> None:
    body = json.loads(self.body)
    text = body["systemInstruction"]["parts"][0]["text"]
    tokens = len(text) // 4
    if tokens < 1024:
      self._fail(
        400, f"Cached content is too small. total_token_count={tokens}, min=1024"
      )
      return
    with self.fake.lock:
      name = f"cachedContents/c{len(self.fake.caches) + len(self.fake.deleted)}"
      self.fake.caches[name] = text
    self.send(200, {"name": name, "usageMetadata": {"totalTokenCount": tokens}})

  def touch_cache(self, name: str) -> None:
    if name not in self.fake.caches:
      self._fail(403, "CachedContent not found")
    elif self.command == "DELETE":
      self.fake.deleted.append(name)
      del self.fake.caches[name]
      self.send(200, {})
    else:
      self.send(200, {"name": name})

  def create_batch(self) -> None:
    self.take_job(self._create_batch)

  def _create_batch(self) -> dict[str, Any]:
    body = json.loads(self.body)["batch"]
    source = body["inputConfig"]
    fake = self.fake
    if "fileName" in source:
      lines = fake.files[source["fileName"]].splitlines()
      rows = [json.loads(line) for line in lines]
    else:
      rows = source["requests"]["requests"]
    with fake.lock:
      name = f"batches/b{len(fake.batches)}"
      fake.batches[name] = {
        "name": body["displayName"],
        "state": "BATCH_STATE_RUNNING",
        "rows": rows,
        "in_file": "fileName" in source,
      }
    return self._job(name)

  def get_batch(self, name: str) -> None:
    if self.look_fails(self.fake.look_faults, name):
      return
    if name not in self.fake.batches:
      self._fail(404, f"{name} is not found")
      return
    self.send(200, self._job(name))

  def list_batches(self) -> None:
    if self.look_fails(self.fake.list_faults):
      return
    names = reversed(self.fake.batches)
    self.send(200, {"operations": [self._job(name) for name in names]})

  def cancel_batch(self, name: str) -> None:
    self.fake.batches[name]["state"] = "BATCH_STATE_CANCELLED"
    self.send(200, {})

  def _job(self, name: str) -> dict[str, Any]:
    batch = self.fake.batches[name]
    metadata = {
      "displayName": batch["name"],
      "model": f"models/{MODEL}",
      "state": batch["state"],
    }
    if batch["state"] == "BATCH_STATE_SUCCEEDED":
      rows = [self._row(row) for row in batch["rows"]]
      if batch["in_file"]:
        prompts = [_asked(self.fake, row["request"])[1] for row in batch["rows"]]
        lines = results_file(dict(zip(prompts, rows, strict=True)), self.fake.damaged)
        self.fake.files[f"files/out-{name[8:]}"] = lines.decode()
        metadata["output"] = {"responsesFile": f"files/out-{name[8:]}"}
      else:
        metadata["output"] = {"inlinedResponses": {"inlinedResponses": rows}}
    return {"name": name, "metadata": metadata}

  def _row(self, row: dict[str, Any]) -> dict[str, Any]:
    system, prompt = _asked(self.fake, row["request"])
    where = {"key": row["key"]} if "key" in row else {"metadata": row["metadata"]}
    fault = self.fake.faults(prompt, 1)
    if fault.isdigit():
      return where | {"error": {"code": int(fault), "message": "scripted"}}
    self.fake.answered[system + prompt] += 1
    return where | {"response": _body(answer(system, prompt) + "\u2028", fault)}

  def start_upload(self) -> None:
    with self.fake.lock:
      name = f"files/f{len(self.fake.files)}"
      self.fake.files[name] = ""
    self.send(200, {}, {"X-Goog-Upload-URL": f"{self.fake.url}/put/{name}"})

  def upload(self, name: str) -> None:
    self.fake.files[name] += self.body.decode()
    self.send(200, {"file": {"name": name}}, {"X-Goog-Upload-Status": "final"})

  def download(self, name: str) -> None:
    if name in self.fake.thrown_away:
      self._fail(403, f"You do not have permission to access {name}, or it is gone")
      return
    self.send(200, self.fake.files[name].encode(), kind="application/jsonl")

  def token(self) -> None:
    """Answers the sign-in of a service account."""
    self.send(200, {"access_token": "fake", "expires_in": 3600, "token_type": "Bearer"})

  routes = (
    (r"POST (/.*):generateContent", generate),
    (r"POST /v1\w*/cachedContents", create_cache),
    (r"(?:PATCH|DELETE) /v1\w*/(cachedContents/\w+)", touch_cache),
    (r"POST /v1\w*/models/[\w.-]+:batchGenerateContent", create_batch),
    (r"GET /v1\w*/batches", list_batches),
    (r"GET /v1\w*/(batches/\w+)", get_batch),
    (r"POST /v1\w*/(batches/\w+):cancel", cancel_batch),
    (r"POST /upload/v1\w*/files", start_upload),
    (r"POST /put/(files/\w+)", upload),
    (r"GET /v1\w*/(files/[\w-]+):download", download),
    (r"POST /token", token),
  )


class FakeGemini(FakeServer):
  """Serves the Gemini API.

  Attributes:
    caches: name -> system text of the caches that live.
    deleted: names of those that were deleted.
    batches: name -> job; `finish_batches` lets them be done.
    files: name -> content.
    thrown_away: names of files that are no longer there.
  """

  handler = _Handler

  def __init__(self, *args, **fields):
    super().__init__(*args, **fields)
    self.caches: dict[str, str] = {}
    self.deleted: list[str] = []
    self.batches: dict[str, dict[str, Any]] = {}
    self.files: dict[str, str] = {}
    self.thrown_away: set[str] = set()

  def finish_batches(self, state: str = "SUCCEEDED") -> None:
    """Lets the jobs that are running end."""
    for batch in self.batches.values():
      if batch["state"] == "BATCH_STATE_RUNNING":
        batch["state"] = f"BATCH_STATE_{state}"


def _asked(fake: FakeGemini, body: dict[str, Any]) -> tuple[str, str]:
  """Returns (system, prompt) of a request."""
  prompt = body["contents"][0]["parts"][0]["text"]
  if "cachedContent" in body:
    return fake.caches.get(body["cachedContent"], ""), prompt
  system = body.get("systemInstruction", {"parts": [{"text": ""}]})
  return system["parts"][0]["text"], prompt


def _body(text: str, fault: str, is_cached: bool = False) -> dict[str, Any]:
  usage = {"promptTokenCount": 100, "candidatesTokenCount": 50, "totalTokenCount": 150}
  if is_cached:
    usage["cachedContentTokenCount"] = 60
  if fault == "thoughts":
    usage["thoughtsTokenCount"] = 7
  body: dict[str, Any] = {
    "usageMetadata": usage,
    "modelVersion": f"{MODEL}-001",
    "aFieldOfTomorrow": {"x": 1},
  }
  if fault == "no_usage":
    del body["usageMetadata"]
  if fault == "surrogate":
    text += "\ud83d"
  if fault == "prompt_block":
    return {**body, "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
  if fault in ("SAFETY", "RECITATION"):
    return {**body, "candidates": [{"finishReason": fault}]}
  text = text[:20] if fault == "MAX_TOKENS" else "" if fault == "empty" else text
  content = {"role": "model", "parts": [{"text": text}]}
  reason = "MAX_TOKENS" if fault == "MAX_TOKENS" else "STOP"
  if fault == "NEW_REASON":
    reason = "STARS_NOT_ALIGNED"
  return {**body, "candidates": [{"content": content, "finishReason": reason}]}
