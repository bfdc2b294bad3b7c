"""A server that speaks Anthropic's Messages API: scripted faults and batches."""

import datetime
import json
import re
from typing import Any

from fake_answers import answer
from fake_http import FakeServer, Handler, results_file

MODEL = "claude-haiku-4-5"
_SAID = {
  "no_credit": (400, "invalid_request_error", "Your credit balance is too low"),
  "spent": (
    400,
    "invalid_request_error",
    "You have reached your usage limits. You will regain access on 2099-01-01 at "
    "00:00 UTC.",
  ),
  "too_long": (400, "invalid_request_error", "prompt is too long: 300000 tokens"),
  "thinking": (400, "invalid_request_error", "adaptive thinking is not supported"),
  "no_model": (404, "not_found_error", f"model: {MODEL}"),
}


class _Handler(Handler):
  def messages(self) -> None:
    fake = self.fake
    body = json.loads(self.body)
    prompt = body["messages"][-1]["content"]
    with fake.lock:
      fake.bodies.append(body)
      fake.attempts[prompt] += 1
      fault = fake.faults(prompt, fake.attempts[prompt])
    if self.transport_fault(fault):
      return
    if fault in _SAID or fault.isdigit():
      self._fail(fault)
      return
    self.send(200, _message(body, fault))
    with fake.lock:
      fake.answered[prompt] += 1

  def _fail(self, fault: str) -> None:
    status, error = _error(fault)
    headers = {"retry-after": "2"} if fault in ("429", "529") else {}
    self.send(status, {"type": "error", "error": error}, headers)

  def create_batch(self) -> None:
    self.take_job(self._create_batch)

  def _create_batch(self) -> dict[str, Any]:
    with self.fake.lock:
      name = self.fake.add_batch(json.loads(self.body)["requests"])
    return self._job(name)

  def list_batches(self) -> None:
    if self.look_fails(self.fake.list_faults):
      return
    names = list(reversed(self.fake.batches))
    after = re.search(r"after_id=(\w+)", self.query)
    start = names.index(after[1]) + 1 if after else 0
    # Pages of one, to see that all of them are read.
    page = [self._job(name) for name in names[start : start + 1]]
    last = page[-1]["id"] if page else None
    body = {"data": page, "has_more": start + 1 < len(names)}
    self.send(200, body | {"first_id": last, "last_id": last})

  def get_batch(self, name: str) -> None:
    if self.look_fails(self.fake.look_faults, name):
      return
    if name not in self.fake.batches:
      self._fail("404")
      return
    self.send(200, self._job(name))

  def cancel_batch(self, name: str) -> None:
    batch = self.fake.batches[name]
    if batch["status"] == "ended":
      self._fail("400")
      return
    batch |= {"status": "ended", "cancelled": True}
    self.send(200, self._job(name))

  def results(self, name: str) -> None:
    batch = self.fake.batches[name]
    rows = {
      row["params"]["messages"][-1]["content"]: self._row(row)
      if i < self.fake.answered_early or not batch["cancelled"]
      else {"custom_id": row["custom_id"], "result": {"type": "canceled"}}
      for i, row in enumerate(batch["rows"])
    }
    self.send(200, results_file(rows, self.fake.damaged), kind="application/binary")

  def _job(self, name: str) -> dict[str, Any]:
    counts = dict.fromkeys(
      ("canceled", "errored", "expired", "processing", "succeeded"), 0
    )
    batch = self.fake.batches[name]
    status = batch["status"]
    counts["succeeded" if status == "ended" else "processing"] = len(batch["rows"])
    url = f"{self.fake.url}/v1/messages/batches/{name}/results"
    return {
      "id": name,
      "type": "message_batch",
      "processing_status": status,
      "request_counts": counts,
      "created_at": batch["created"],
      "expires_at": "2099-11-22T00:00:00Z",
      "results_url": url if status == "ended" and not batch["archived"] else None,
    }

  def _row(self, row: dict[str, Any]) -> dict[str, Any]:
    fault = self.fake.faults(row["params"]["messages"][-1]["content"], 1)
    result: dict[str, Any] = {"type": "succeeded"}
    if fault == "expired":
      result = {"type": "expired"}
    elif fault in _SAID or fault.isdigit():
      error = {"type": "error", "error": _error(fault)[1]}
      result = {"type": "errored", "error": error}
    else:
      result["message"] = _message(row["params"], fault)
    return {"custom_id": row["custom_id"], "result": result}

  routes = (
    (r"POST /v1/messages", messages),
    (r"POST /v1/messages/batches", create_batch),
    (r"GET /v1/messages/batches", list_batches),
    (r"GET /v1/messages/batches/(\w+)", get_batch),
    (r"GET /v1/messages/batches/(\w+)/results", results),
    (r"POST /v1/messages/batches/(\w+)/cancel", cancel_batch),
  )


class FakeAnthropic(FakeServer):
  """Serves messages and batches."""

  handler = _Handler

  def __init__(self, *args, **fields):
    super().__init__(*args, **fields)
    self.batches: dict[str, dict[str, Any]] = {}

  def add_batch(self, rows: list[dict[str, Any]], **changes: Any) -> str:
    """Takes a job; returns its id."""
    name = f"msgbatch_{len(self.batches)}"
    created = datetime.datetime.now(datetime.UTC).isoformat()
    batch = {"status": "in_progress", "rows": rows, "created": created}
    batch |= {"cancelled": False, "archived": False}
    self.batches[name] = batch | changes
    return name

  def finish_batches(self) -> None:
    """Lets the jobs that are running end."""
    for batch in self.batches.values():
      batch["status"] = "ended"


def _error(fault: str) -> tuple[int, dict[str, str]]:
  kinds = {"401": "authentication_error", "429": "rate_limit_error"}
  kinds |= {"529": "overloaded_error", "500": "api_error", "403": "permission_error"}
  kinds |= {"404": "not_found_error"}
  if fault in _SAID:
    status, kind, message = _SAID[fault]
    return status, {"type": kind, "message": message}
  kind = kinds.get(fault, "invalid_request_error")
  return int(fault), {"type": kind, "message": "scripted"}


def _message(body: dict[str, Any], fault: str) -> dict[str, Any]:
  system = body["system"][0] if "system" in body else {"text": ""}
  text = answer(system["text"], body["messages"][-1]["content"]) + "\u2028"
  content = [
    {"type": "thinking", "thinking": "hm", "signature": "s"},
    {"type": "text", "text": text},
  ]
  if fault == "empty":
    content = []
  reasons = ("max_tokens", "refusal", "pause_turn", "a_new_reason")
  usage = {
    "input_tokens": 40,
    "output_tokens": 50,
    "output_tokens_details": {"thinking_tokens": 7},
  }
  if "cache_control" in system:
    usage |= {"cache_read_input_tokens": 60, "cache_creation_input_tokens": 20}
  return {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": f"{MODEL}-20251001",
    "content": content,
    "stop_reason": fault if fault in reasons else "end_turn",
    "stop_sequence": None,
    "usage": usage,
  }
