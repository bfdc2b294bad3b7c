"""A Gemini server on this machine: real HTTP, scripted faults, answers that fit.

It answers the prompts of the generation chains well enough for a corpus to come out,
and keeps account of every answer that it sent, as the bill would.
"""

import collections
import hashlib
import http.server
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Any

# prompt, attempt at this prompt -> fault ("" for none).
Faults = Callable[[str, int], str]
MODEL = "gemini-2.5-flash"


class FakeGemini:
  """Serves `generateContent` on `url`; a context manager.

  Attributes:
    faults: decides what goes wrong.
    attempts: requests per prompt.
    answered: whole answers per prompt that were sent: what is paid for.
    bodies: the requests as they came, for tests that look at them.
    delay_s: how long an answer takes.
  """

  def __init__(self, faults: Faults = lambda prompt, attempt: "", delay_s: float = 0.0):
    self.faults, self.delay_s = faults, delay_s
    self.attempts: collections.Counter[str] = collections.Counter()
    self.answered: collections.Counter[str] = collections.Counter()
    self.bodies: list[dict[str, Any]] = []
    self.in_flight = self.most_in_flight = 0
    self.lock = threading.Lock()
    self.closing = threading.Event()
    self._server = _Server(("127.0.0.1", 0), _Handler)
    self._server.fake = self
    self.url = f"http://127.0.0.1:{self._server.server_port}"
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.02,), daemon=True
    )

  def __enter__(self) -> "FakeGemini":
    self._thread.start()
    return self

  def __exit__(self, kind, error, trace) -> None:
    self.closing.set()
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  request_queue_size = 256
  fake: FakeGemini

  def handle_error(self, request, client_address) -> None:
    """Clients that were killed are part of the tests."""


class _Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = "HTTP/1.1"
  server: _Server

  def log_message(self, *args) -> None:
    """Nothing is logged."""

  def do_POST(self) -> None:
    fake = self.server.fake
    body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
    prompt = body["contents"][0]["parts"][0]["text"]
    system = body.get("systemInstruction", {"parts": [{"text": ""}]})
    system = system["parts"][0]["text"]
    with fake.lock:
      fake.bodies.append(body)
      fake.attempts[system + prompt] += 1
      attempt = fake.attempts[system + prompt]
      fake.in_flight += 1
      fake.most_in_flight = max(fake.most_in_flight, fake.in_flight)
    try:
      time.sleep(fake.delay_s)
      self._answer(system, prompt, fake.faults(prompt, attempt))
    finally:
      with fake.lock:
        fake.in_flight -= 1

  def _answer(self, system: str, prompt: str, fault: str) -> None:
    if fault == "hang":
      self.server.fake.closing.wait(30)
      self.close_connection = True
    elif fault == "drop":
      self.close_connection = True
    elif fault == "half":
      self._send(200, b'{"candidates": [{"content"', length=4096)
      self.close_connection = True
    elif fault == "not_json":
      self._send(200, b"<html>something went wrong</html>")
    elif fault.isdigit():
      self._fail(int(fault))
    else:
      text = answer(system, prompt)
      self._send(200, json.dumps(_body(text, fault)).encode())
      with self.server.fake.lock:
        self.server.fake.answered[system + prompt] += 1

  def _fail(self, code: int) -> None:
    details = [{"@type": "RetryInfo", "retryDelay": "0.3s"}] if code == 429 else []
    if code == 400:
      details = [{"@type": "ErrorInfo", "reason": "INVALID_ARGUMENT"}]
    error = {"code": code, "message": "scripted", "status": "X", "details": details}
    headers = {"Retry-After": "0.2"} if code == 429 else {}
    self._send(code, json.dumps({"error": error}).encode(), headers)

  def _send(self, code, data, headers=None, length=None) -> None:
    self.send_response(code)
    self.send_header("Content-Type", "application/json")
    self.send_header("Content-Length", str(length or len(data)))
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(data)


def _body(text: str, fault: str) -> dict[str, Any]:
  usage = {"promptTokenCount": 100, "candidatesTokenCount": 50, "totalTokenCount": 150}
  body: dict[str, Any] = {"usageMetadata": usage, "modelVersion": f"{MODEL}-001"}
  if fault == "prompt_block":
    return {**body, "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
  if fault in ("SAFETY", "RECITATION"):
    return {**body, "candidates": [{"finishReason": fault}]}
  text = text[:20] if fault == "MAX_TOKENS" else "" if fault == "empty" else text
  content = {"role": "model", "parts": [{"text": text}]}
  reason = "MAX_TOKENS" if fault == "MAX_TOKENS" else "STOP"
  return {**body, "candidates": [{"content": content, "finishReason": reason}]}


def stage_of(prompt: str) -> str:
  """Returns the stage that a prompt belongs to."""
  starts = {
    "Divide the specification": "domains",
    "Divide the domain": "subdomains",
    "<section>": "assertions",
    "<message>": "judge",
  }
  for start, stage in starts.items():
    if prompt.startswith(start):
      return stage
  marks = {
    "Write the document.": "document",
    "further types of document": "document_types",
    "further ideas for documents": "document_ideas",
    "further messages of this kind": "questions",
  }
  return next((stage for mark, stage in marks.items() if mark in prompt), "answer")


def answer(system: str, prompt: str) -> str:
  """Returns an answer in the format that the prompt asks for."""
  stage = stage_of(prompt)
  tag = hashlib.sha256((system + prompt).encode()).hexdigest()[:8]
  if stage in ("document", "answer"):
    return f"{stage} {tag} about the assistant and its reasons."
  return (
    "Here it is:\n```json\n" + json.dumps(_value(stage, system, prompt, tag)) + "\n```"
  )


def _value(stage: str, system: str, prompt: str, tag: str) -> Any:
  if stage == "judge":
    return {"reason": "fits", "verdict": "yes"}
  if stage == "domains":
    return [{"name": name, "description": "d"} for name in ("what", "why")]
  if stage == "subdomains":
    spec = system.split("<specification>\n")[1].split("\n</specification>")[0]
    bodies = [part.split("\n", 1)[1].strip() for part in spec.split("## ")[1:]]
    return [
      {"name": f"part {i} {tag}", "context": "c", "spec_section": body}
      for i, body in enumerate(bodies)
    ]
  if stage == "assertions":
    item = {"name": f"a {tag}", "assertion": "It cares.", "explanation": "because"}
    return [{**item, "label": "value"}]
  count = int(re.search(r"exactly (\d+)", prompt)[1])
  names = [f"{stage} {i} {tag}" for i in range(count)]
  if stage == "questions":
    return names
  return [{"name": name, "description": "d", "idea": f"idea {name}"} for name in names]
