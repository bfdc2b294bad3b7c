"""Answers of chat servers: text, why it ended, what it cost."""

from collections.abc import Mapping
from typing import Any

from data_gen.clients import protocol, schemas

# What servers call an answer that is whole, and one that was cut off.
_COMPLETE = {
  "stop": protocol.STOP,
  "eos": protocol.STOP,
  "end_turn": protocol.STOP,
  "stop_sequence": protocol.STOP,
  "length": protocol.MAX_TOKENS,
  "max_tokens": protocol.MAX_TOKENS,
  "model_length": protocol.MAX_TOKENS,
}
_PASSING = ("error", "abort", "none")


@protocol.reader
def response_of(answer: Mapping[str, Any], model: str) -> protocol.Response:
  """Returns the response that the body of an answer holds.

  Raises:
    Blocked: the model declined, or stopped for a reason that is not known.
    Retryable: there is no text, or the body is not an answer.
  """
  usage = _usage(answer.get("usage") or {})
  choice = answer["choices"][0]
  message = choice["message"]
  reason = choice.get("finish_reason") or "none"
  text, refusal = message.get("content") or "", message.get("refusal")
  if not isinstance(text, str):
    raise TypeError(f"content is {type(text).__name__}")
  if refusal:
    raise protocol.Blocked(
      f"answer: refusal: {refusal}", usage=usage, finish_reason="refusal", text=text
    )
  if reason not in _COMPLETE:
    kind = protocol.Retryable if reason in _PASSING else protocol.Blocked
    raise kind(f"answer: {reason}", usage=usage, finish_reason=reason, text=text)
  if not text.strip() and reason != "length":
    raise protocol.Retryable("an empty answer", usage=usage, finish_reason=reason)
  return protocol.Response(
    text=schemas.unwrapped(text),
    finish_reason=_COMPLETE[reason],
    usage=usage,
    model_version=str(answer.get("model") or model),
  )


def _usage(usage: Mapping[str, Any]) -> protocol.Usage:
  read = usage.get("prompt_tokens_details") or {}
  written = usage.get("completion_tokens_details") or {}
  # What the model thought is part of what it wrote.
  thoughts = int(written.get("reasoning_tokens") or 0)
  return protocol.Usage(
    prompt_tokens=int(usage.get("prompt_tokens") or 0),
    cached_tokens=int(read.get("cached_tokens") or 0),
    response_tokens=max(0, int(usage.get("completion_tokens") or 0) - thoughts),
    thought_tokens=thoughts,
  )
