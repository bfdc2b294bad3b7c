"""The rows of a ledger: attempts, notes about batch jobs, and what they add up to."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_gen.clients import protocol

OK = "ok"
BLOCKED = protocol.Blocked.kind
FATAL_REQUEST = protocol.FatalRequest.kind
# What is never asked again. A refused request is asked again by another process: it was
# not billed, and what the service took amiss may have been a setting.
OUTCOMES = (OK, BLOCKED)
LOST = "lost"  # the process died while the request was out
KEPT = "kept"  # what keeping a context cache cost; no attempt
JOB = "job"  # a note, no attempt

# The life of a batch job: noted, then sent, then ended. REFUSED: the service answered
# every attempt at sending it with an error; it should not have it, and nothing is lost.
PLANNED, REFUSED, SENT, ENDED = "planned", "refused", "sent", "ended"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """One attempt.

  Attributes:
    status: `ok`, the kind of a `ClientError`, or `lost`.
    sent, time: when it went out and when its result was written down.
    dollars: what was billed; None where the price of the model is not known.
    lost: no answer came, or one that does not say what it cost, and the service may
      have billed it all the same.
    at_most: dollars that a lost answer may have been billed; None: price not known.
    job: name of the batch job that it was part of.
  """

  id: str
  stage: str
  sample_index: int
  prompt_hash: str
  client: dict[str, Any]
  params: dict[str, Any]
  attempt: int
  status: str
  time: str
  sent: str = ""
  text: str = ""
  error: str = ""
  finish_reason: str | None = None
  model_version: str | None = None
  usage: dict[str, Any] = dataclasses.field(default_factory=dict)
  dollars: float | None = None
  lost: bool = False
  at_most: float | None = None
  job: str = ""


def failure_of(entry: Entry) -> str:
  """Returns why a result is not a whole answer, or "" if it is one."""
  if entry.status == BLOCKED:
    return f"blocked: {entry.finish_reason}"
  if entry.status == FATAL_REQUEST:
    return f"refused: {entry.error}"
  if entry.status != OK:
    return f"gave up after {entry.attempt} attempts: {entry.error}"
  if entry.finish_reason == protocol.MAX_TOKENS:
    return "truncated: MAX_TOKENS"
  if not entry.text.strip():
    return "empty"
  return ""


def row_of(entry: Entry) -> dict[str, Any]:
  """Returns an attempt as a row; what few attempts have is left out where it is not."""
  row = {field.name: getattr(entry, field.name) for field in dataclasses.fields(entry)}
  for name, default in (("lost", False), ("at_most", None), ("job", "")):
    if row[name] == default:
      del row[name]
  return row


@dataclasses.dataclass(frozen=True, slots=True)
class Waiting:
  """What the entry of a request in a batch job will say."""

  stage: str
  sample_index: int
  prompt_hash: str
  attempt: int
  at_most: float


@dataclasses.dataclass(kw_only=True)
class Job:
  """A batch job that may still bring answers.

  Attributes:
    name: its display name at the service; written down before the job is sent.
    id: the service's id; None: it never came, or the process died before it did.
    refused: nothing that was sent of it was left without an answer.
    sent: when it was sent.
    params: the sampling parameters of its requests.
    open: identity -> request, of those without a result.
  """

  name: str
  id: str | None = None
  refused: bool = False
  sent: str = ""
  params: dict[str, Any] = dataclasses.field(default_factory=dict)
  open: dict[str, Waiting] = dataclasses.field(default_factory=dict)

  @property
  def at_most(self) -> float:
    """Dollars that the answers to come may cost."""
    return sum(request.at_most for request in self.open.values())

  def row(self, state: str, time: str) -> dict[str, Any]:
    """Returns a note of its state as a row of the ledger."""
    note = {"id": self.name, "stage": "batch", "status": JOB, "time": time}
    note |= {"dollars": None, "state": state, "job_id": self.id}
    if state == PLANNED:
      note["params"] = self.params
      note["open"] = {
        identity: dataclasses.astuple(request)
        for identity, request in self.open.items()
      }
    return note


@dataclasses.dataclass
class Totals:
  """What a ledger adds up to.

  Attributes:
    spent: dollars that answers were billed.
    lost_answers: requests whose answer was lost, to time-outs, dropped connections,
      unreadable bodies, or the death of the process, or did not say what it cost.
    lost_at_most: dollars that these may have been billed.
    jobs: batch jobs that may still bring answers.
    job_ids: the service's ids of all jobs that were sent, also of those that ended.
  """

  spent: float = 0.0
  lost_answers: int = 0
  lost_at_most: float = 0.0
  jobs: dict[str, Job] = dataclasses.field(default_factory=dict)
  job_ids: set[str] = dataclasses.field(default_factory=set)

  @property
  def unknown_at_most(self) -> float:
    """Dollars that may have been billed beside what is known."""
    return self.lost_at_most + sum(job.at_most for job in self.jobs.values())

  def summary(self) -> dict[str, Any]:
    """Returns what manifest and plan say of it."""
    return {
      "spent": round(self.spent, 6),
      "unknown_spend_at_most": round(self.unknown_at_most, 6),
      "lost_answers": self.lost_answers,
    }

  def add(self, row: Mapping[str, Any]) -> None:
    """Counts one row."""
    if row["status"] == JOB:
      return self._add_note(row)
    self.spent += row["dollars"] or 0.0
    if row.get("lost"):
      self.lost_answers += 1
      self.lost_at_most += row.get("at_most") or 0.0
    if (job := self.jobs.get(row.get("job", ""))) is not None:
      job.open.pop(row["id"], None)
    return None

  def _add_note(self, row: Mapping[str, Any]) -> None:
    if row["state"] == PLANNED:
      requests = {identity: Waiting(*rest) for identity, rest in row["open"].items()}
      self.jobs[row["id"]] = Job(
        name=row["id"], sent=row["time"], params=row["params"], open=requests
      )
    elif row["state"] == ENDED:
      self.jobs.pop(row["id"], None)
    elif row["id"] in self.jobs:
      self.jobs[row["id"]].id = row["job_id"]
      self.jobs[row["id"]].refused = row["state"] == REFUSED
      self.job_ids |= {row["job_id"]} - {None}
