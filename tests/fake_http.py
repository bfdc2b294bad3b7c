"""The ground of the fake services: a real HTTP server with scripted faults."""

import collections
import http.server
import json
import re
import threading
from collections.abc import Callable, Mapping
from typing import Any

# prompt, attempt at this prompt -> fault ("" for none).
Faults = Callable[[str, int], str]


class FakeServer:
  """Serves on `url`; a context manager.

  Attributes:
    faults: decides what goes wrong.
    attempts: requests per prompt.
    answered: whole answers per prompt that were sent: what is paid for.
    bodies: the requests as they came, for tests that look at them.
    calls: (method, path) of every request.
    headers: the headers of every request, by their names in small letters.
    delay_s: how long an answer takes.
    submit_faults: what befalls the next jobs: 'drop' or a status; with 'taken ' before
      it, the job was taken all the same.
    list_faults, look_faults: what befalls the next looks at all jobs, and at one.
    unreachable: jobs that always fail to be looked at.
    answered_early: requests that are answered in a job that is cancelled or expires.
    damaged: prompts whose line in the results of a job cannot be read.
  """

  handler: type["Handler"]

  def __init__(self, faults: Faults = lambda prompt, attempt: "", delay_s: float = 0.0):
    self.faults, self.delay_s = faults, delay_s
    self.attempts: collections.Counter[str] = collections.Counter()
    self.answered: collections.Counter[str] = collections.Counter()
    self.bodies: list[dict[str, Any]] = []
    self.calls: list[tuple[str, str]] = []
    self.headers: list[Mapping[str, str]] = []
    self.submit_faults: list[str] = []
    self.list_faults: list[str] = []
    self.look_faults: list[str] = []
    self.unreachable: set[str] = set()
    self.answered_early = 0
    self.damaged: set[str] = set()
    self.in_flight = self.most_in_flight = 0
    self.lock = threading.Lock()
    self.closing = threading.Event()
    self._server = _Server(("127.0.0.1", 0), self.handler)
    self._server.fake = self
    self.url = f"http://127.0.0.1:{self._server.server_port}"
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.02,), daemon=True
    )

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, kind, error, trace) -> None:
    self.closing.set()
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()


class _Server(http.server.ThreadingHTTPServer):
  daemon_threads = True
  request_queue_size = 2048
  fake: FakeServer

  def handle_error(self, request, client_address) -> None:
    """Clients that were killed are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
  """Finds the route of a request: the first whose pattern fits `METHOD path`."""

  protocol_version = "HTTP/1.1"
  server: _Server
  routes: list[tuple[str, Callable[..., None]]]

  @property
  def fake(self) -> Any:
    return self.server.fake

  def log_message(self, *args) -> None:
    """Nothing is logged."""

  def handle_call(self) -> None:
    path, _, self.query = self.path.partition("?")
    self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
    with self.fake.lock:
      self.fake.calls.append((self.command, path))
      self.fake.headers.append(
        {name.lower(): value for name, value in self.headers.items()}
      )
    for pattern, answer in self.routes:
      if found := re.fullmatch(pattern, f"{self.command} {path}"):
        answer(self, *found.groups())
        return
    self.send(404, {"error": {"code": 404, "message": f"no {path}", "status": "X"}})

  do_GET = do_POST = do_PATCH = do_DELETE = handle_call

  def transport_fault(self, fault: str) -> bool:
    """Does what befalls the line itself; returns whether it did."""
    if fault == "hang":
      self.fake.closing.wait(30)
      self.close_connection = True
    elif fault == "drop":
      self.close_connection = True
    elif fault == "half":
      self.send(200, b'{"candidates": [{"content"', length=4096)
      self.close_connection = True
    elif fault == "not_json":
      self.send(200, b"<html>something went wrong</html>")
    elif fault == "html":
      self.send(200, b"<html>a web page</html>", kind="text/html")
    elif fault == "html_502":
      self.send(502, b"<html>bad gateway</html>", kind="text/html")
    elif fault == "json_list":
      self.send(200, b"[1, 2]")
    else:
      return False
    return True

  def take_job(self, create: Callable[[], Any]) -> None:
    """Takes a job, or does what befalls it on the way."""
    faults = self.fake.submit_faults
    taken, _, fault = (faults.pop(0) if faults else "").rpartition(" ")
    reply = create() if taken or not fault else None
    if not fault:
      self.send(200, reply)
    elif not self.transport_fault(fault):
      self._status(int(fault))

  def look_fails(self, faults: list[str], job: str = "") -> bool:
    """Answers a look at jobs with an error, if it is to; returns whether it did."""
    if job in self.fake.unreachable:
      self._status(503)
    elif faults:
      self._status(int(faults.pop(0)))
    else:
      return False
    return True

  def _status(self, code: int) -> None:
    error = {"code": code, "message": "scripted", "status": "X", "type": "api_error"}
    headers = {"Retry-After": "1"} if code == 429 else {}
    self.send(code, {"type": "error", "error": error}, headers)

  def send(self, code, data, headers=None, length=None, kind="application/json"):
    if not isinstance(data, bytes):
      data = json.dumps(data).encode()
    self.send_response(code)
    self.send_header("Content-Type", kind)
    self.send_header("Content-Length", str(length or len(data)))
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(data)


def results_file(rows: Mapping[str, Any], damaged: set[str]) -> bytes:
  """Returns the results of a job, a line for each prompt."""
  lines = []
  for prompt, row in rows.items():
    # A line separator of Unicode's is not the end of a line.
    line = json.dumps(row, ensure_ascii=False).encode()
    lines.append(line[: len(line) // 2] if prompt in damaged else line)
  return b"".join(line + b"\n" for line in lines)
