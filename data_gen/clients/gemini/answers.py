"""Answers of Gemini, live or from a job, as plain maps in the spelling of its API."""

import json
from collections.abc import Mapping
from typing import Any

from google.genai import types

from data_gen.clients import protocol

_COMPLETE = (protocol.STOP, protocol.MAX_TOKENS)
# The service does not know either why it stopped: another attempt may end better.
_PASSING = ("FINISH_REASON_UNSPECIFIED", "OTHER", "MALFORMED_RESPONSE")


def of_body(body: str | None) -> dict[str, Any]:
  """Returns the answer in the body of a reply.

  Raises:
    ValueError, Retryable: it is no JSON object.
  """
  answer = json.loads(body or "{}")
  if not isinstance(answer, dict):
    raise protocol.Retryable(f"the body is not a JSON object: {body[:80]!r}", lost=True)
  return answer


def of_sdk(answer: types.GenerateContentResponse) -> dict[str, Any]:
  """Returns an answer that the SDK has read as the service sent it."""
  return answer.model_dump(
    mode="json",
    by_alias=True,
    exclude_none=True,
    exclude={"sdk_http_response", "parsed"},
  )


@protocol.reader
def response_of(answer: Mapping[str, Any], model: str) -> protocol.Response:
  """Returns the response that an answer holds.

  Raises:
    Blocked: the service declined, or stopped for a reason that is not known.
    Retryable: there is no text or no reason, or the body is not an answer.
  """
  usage = _usage(answer.get("usageMetadata") or {})
  if not answer.get("candidates"):
    reason = (answer.get("promptFeedback") or {}).get("blockReason")
    if not reason:
      raise protocol.Retryable("an answer without candidates", usage=usage)
    raise protocol.Blocked(f"prompt: {reason}", usage=usage, finish_reason=reason)
  candidate = answer["candidates"][0]
  reason = candidate.get("finishReason") or "FINISH_REASON_UNSPECIFIED"
  parts = (candidate.get("content") or {}).get("parts") or []
  text = "".join(part.get("text") or "" for part in parts if not part.get("thought"))
  if reason not in _COMPLETE:
    kind = protocol.Retryable if reason in _PASSING else protocol.Blocked
    raise kind(f"answer: {reason}", usage=usage, finish_reason=reason, text=text)
  if not text.strip() and reason == protocol.STOP:
    raise protocol.Retryable("an empty answer", usage=usage, finish_reason=reason)
  return protocol.Response(
    text=text,
    finish_reason=reason,
    usage=usage,
    model_version=answer.get("modelVersion") or model,
  )


def _usage(metadata: Mapping[str, Any]) -> protocol.Usage:
  return protocol.Usage(
    prompt_tokens=int(metadata.get("promptTokenCount") or 0),
    cached_tokens=int(metadata.get("cachedContentTokenCount") or 0),
    response_tokens=int(metadata.get("candidatesTokenCount") or 0),
    thought_tokens=int(metadata.get("thoughtsTokenCount") or 0),
  )
