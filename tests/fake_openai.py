"""A chat server that speaks OpenAI's protocol: scripted faults, files, batch jobs."""

import json
import re
from typing import Any

from fake_answers import answer
from fake_http import FakeServer, Handler, results_file

MODEL = "a-model"
_SAID = {
  "no_credit": (429, "You exceeded your quota", "insufficient_quota"),
  "per_day": (
    429,
    "Rate limit reached on requests per day (RPD): try again in 6h3m2.5s",
    "rate_limit_exceeded",
  ),
  "per_minute": (
    429,
    "Rate limit reached on tokens per min (TPM): try again in 350ms",
    "rate_limit_exceeded",
  ),
  "too_long": (400, "the maximum context length is 8192", "context_length_exceeded"),
  "no_schema": (400, "response_format is not known here", "invalid_request_error"),
  "max_tokens": (
    400,
    "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
    "unsupported_parameter",
  ),
  "extra": (422, "Extra inputs are not permitted: chat_template_kwargs", ""),
  "policy": (400, "the request was refused", "content_policy_violation"),
  "no_model": (404, f"The model `{MODEL}` does not exist", "model_not_found"),
}


class _Handler(Handler):
  def chat(self) -> None:
    fake = self.fake
    body = json.loads(self.body)
    prompt = body["messages"][-1]["content"]
    with fake.lock:
      fake.bodies.append(body)
      fake.attempts[prompt] += 1
      fault = fake.faults(prompt, fake.attempts[prompt])
    if self.transport_fault(fault):
      return
    status, reply, headers = _reply(body, fault)
    self.send(status, reply, headers)
    if status == 200:
      with fake.lock:
        fake.answered[prompt] += 1

  def upload(self) -> None:
    # One part with the purpose, one with the file.
    content = re.search(rb"jsonl\r\n\r\n(.*)\n\r\n--", self.body, re.DOTALL)[1]
    with self.fake.lock:
      name = f"file-{len(self.fake.files)}"
      self.fake.files[name] = content
    self.send(200, {"id": name})

  def download(self, name: str) -> None:
    if name not in self.fake.files:
      self.send(404, {"error": {"message": f"No such File object: {name}"}})
      return
    self.send(200, self.fake.files[name])

  def create_batch(self) -> None:
    self.take_job(self._create_batch)

  def _create_batch(self) -> dict[str, Any]:
    body = json.loads(self.body)
    with self.fake.lock:
      name = f"batch_{len(self.fake.batches)}"
      job = {"id": name, "status": "in_progress", "metadata": body["metadata"]}
      job["input_file_id"] = body["input_file_id"]
      self.fake.batches[name] = job
    return job

  def list_batches(self) -> None:
    if self.look_fails(self.fake.list_faults):
      return
    jobs = list(reversed(self.fake.batches.values()))
    names = [job["id"] for job in jobs]
    # Pages of one, to see that all of them are read.
    after = re.search(r"after=([\w-]+)", self.query)
    start = names.index(after[1]) + 1 if after else 0
    page = jobs[start : start + 1]
    self.send(200, {"data": page, "has_more": start + 1 < len(jobs)})

  def get_batch(self, name: str) -> None:
    if self.look_fails(self.fake.look_faults, name):
      return
    if name not in self.fake.batches:
      self.send(404, {"error": {"message": f"No batch found with id '{name}'"}})
      return
    self.send(200, self.fake.batches[name])

  def cancel_batch(self, name: str) -> None:
    job = self.fake.batches[name]
    if job["status"] != "in_progress":
      self.send(409, {"error": {"message": "the job has ended"}})
      return
    self.fake.end_batch(job, "cancelled")
    self.send(200, job)

  routes = (
    (r"POST /v1/chat/completions", chat),
    (r"POST /v1/files", upload),
    (r"GET /v1/files/([\w-]+)/content", download),
    (r"POST /v1/batches", create_batch),
    (r"GET /v1/batches", list_batches),
    (r"GET /v1/batches/(\w+)", get_batch),
    (r"POST /v1/batches/(\w+)/cancel", cancel_batch),
  )


class FakeOpenAI(FakeServer):
  """Serves chat completions, files and batches under `url`, which ends in /v1."""

  handler = _Handler

  def __init__(self, *args, **fields):
    super().__init__(*args, **fields)
    self.url += "/v1"
    self.batches: dict[str, dict[str, Any]] = {}
    self.files: dict[str, bytes] = {}

  def finish_batches(self, status: str = "completed") -> None:
    """Lets the running jobs end."""
    for job in self.batches.values():
      if job["status"] == "in_progress":
        self.end_batch(job, status)

  def end_batch(self, job: dict[str, Any], status: str) -> None:
    """Ends a job, with a file of answers and one of errors as far as there are any."""
    lines = self.files[job["input_file_id"]].splitlines()
    whole = len(lines) if status == "completed" else self.answered_early
    good, bad = {}, {}
    for line in lines[: 0 if status == "failed" else whole]:
      row = json.loads(line)
      prompt = row["body"]["messages"][-1]["content"]
      code, reply, _ = _reply(row["body"], self.faults(prompt, 1))
      response = {"status_code": code, "body": reply}
      result = {"custom_id": row["custom_id"], "response": response, "error": None}
      (good if code == 200 else bad)[prompt] = result
    for field, rows in (("output_file_id", good), ("error_file_id", bad)):
      if rows:
        job[field] = f"{job['id']}-{field}"
        self.files[job[field]] = results_file(rows, self.damaged)
    job["status"] = status


def _reply(body: dict[str, Any], fault: str) -> tuple[int, Any, dict[str, str]]:
  if fault in _SAID:
    status, message, code = _SAID[fault]
    return status, {"error": {"message": message, "code": code}}, {}
  if fault == "detail":
    return 422, {"detail": "the server's own words"}, {}
  if fault.isdigit():
    headers = {"Retry-After": "0.2"} if fault in ("429", "503") else {}
    return int(fault), {"error": {"message": "scripted", "code": None}}, headers
  if fault == "error_in_body":
    return 200, {"error": {"code": 502, "message": "the server behind is gone"}}, {}
  system = body["messages"][0]["content"] if len(body["messages"]) > 1 else ""
  text = answer(system, body["messages"][-1]["content"]) + "\u2028"
  if "response_format" in body and "document" not in text:
    text = text.split("```json\n")[-1].split("\n```")[0]
    value = json.loads(text)
    text = json.dumps({"list_of_items": value} if isinstance(value, list) else value)
  message: dict[str, Any] = {"role": "assistant", "content": text}
  reason: str | None = "stop"
  if fault in ("length", "content_filter", "tool_calls", "error", "a_new_reason"):
    reason = fault
  if fault == "empty":
    message["content"] = None
  if fault == "refusal":
    message["refusal"] = "I would rather not"
  if fault == "no_choices":
    return 200, {"object": "chat.completion"}, {}
  usage = {
    "prompt_tokens": 100,
    "completion_tokens": 50,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 7},
  }
  choice = {"index": 0, "message": message, "finish_reason": reason}
  reply = {"model": f"{MODEL}-v1", "choices": [choice], "usage": usage}
  if fault == "no_usage":
    del reply["usage"]
  return 200, reply, {}
