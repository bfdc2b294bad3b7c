"""Answers of Claude: text, why it ended, what it cost."""

from typing import Any

from anthropic import types

from data_gen.clients import protocol, schemas

_COMPLETE = {
  "end_turn": protocol.STOP,
  "stop_sequence": protocol.STOP,
  "max_tokens": protocol.MAX_TOKENS,
  "model_context_window_exceeded": protocol.MAX_TOKENS,
}


@protocol.reader
def response_of(answer: Any, model: str) -> protocol.Response:
  """Returns the response that a message holds.

  Raises:
    Blocked: the model declined, or stopped for a reason that is not known.
    Retryable: there is no text, or the body is not a message.
  """
  # The SDK checks nothing: a body that is no JSON arrives as text, a field that is
  # missing as None.
  content = getattr(answer, "content", None)
  if not isinstance(answer, types.Message) or not isinstance(content, list):
    raise protocol.Retryable(
      f"the body is not a message: {str(answer)[:80]!r}", lost=True
    )
  usage = _usage(answer.usage)
  reason = answer.stop_reason or "none"
  texts = [getattr(block, "text", "") for block in content if block.type == "text"]
  text = "".join(texts)
  if reason not in _COMPLETE:
    kind = protocol.Retryable if reason == "none" else protocol.Blocked
    raise kind(f"answer: {reason}", usage=usage, finish_reason=reason, text=text)
  if not text.strip() and _COMPLETE[reason] == protocol.STOP:
    raise protocol.Retryable("an empty answer", usage=usage, finish_reason=reason)
  return protocol.Response(
    text=schemas.unwrapped(text),
    finish_reason=_COMPLETE[reason],
    usage=usage,
    model_version=answer.model or model,
  )


def _usage(usage: types.Usage | None) -> protocol.Usage:
  if usage is None:
    return protocol.Usage()
  read = int(usage.cache_read_input_tokens or 0)
  written = int(usage.cache_creation_input_tokens or 0)
  details = usage.output_tokens_details
  thoughts = int(details.thinking_tokens or 0) if details is not None else 0
  return protocol.Usage(
    # The service counts the three apart.
    prompt_tokens=int(usage.input_tokens or 0) + read + written,
    cached_tokens=read,
    cache_write_tokens=written,
    response_tokens=max(0, int(usage.output_tokens or 0) - thoughts),
    thought_tokens=thoughts,
  )
