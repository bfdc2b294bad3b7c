"""What a judge said of a record: yes, no, or unparsed, with its reason and origin."""

from typing import Any

from data_gen.clients import protocol
from data_gen.engine.entries import Entry
from data_gen.teacher import Teacher, failure_of, parse_verdict

YES = "yes"


def of(judge: Teacher, request: protocol.Request) -> dict[str, Any]:
  """Returns the verdict of a request that was asked; what failed is unparsed."""
  entry = judge.result(request)
  failure = failure_of(entry)
  if failure:
    verdict = {"verdict": "unparsed", "reason": failure}
  else:
    verdict = parse_verdict(entry.text)
  return {
    **verdict,
    "client": judge.client.client,
    "model": judge.client.model,
    "model_version": entry.model_version,
    "prompt_hash": request.prompt_hash,
  }


def is_yes(entry: Entry) -> bool:
  """Whether an answer of a judge is a yes."""
  return not failure_of(entry) and parse_verdict(entry.text)["verdict"] == YES


def fault(verdict: dict[str, Any]) -> str:
  """Returns why a verdict rejects a record; "" for a yes."""
  if verdict["verdict"] == YES:
    return ""
  return f"judge: {verdict['verdict']}: {verdict['reason']}"
