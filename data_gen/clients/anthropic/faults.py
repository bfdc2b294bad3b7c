"""What can go wrong with Claude's service, in the words of the one taxonomy."""

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

import anthropic
import httpx2
import pydantic

from data_gen.clients import protocol, settings, waits

_INVALID_BODY = (
  json.JSONDecodeError,
  UnicodeDecodeError,
  pydantic.ValidationError,
  anthropic.APIResponseValidationError,
)
_TRANSPORT = (anthropic.APIConnectionError, httpx2.HTTPError, httpx2.StreamError)
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_PASSING = (408, 409, 425, 499)
_TOO_LONG = ("prompt is too long", "exceed context limit", "too many tokens")
_NO_CREDIT = ("credit balance", "billing")
_UNSUPPORTED = (
  "not supported",
  "unsupported",
  "extra inputs",
  "deprecated",
  "thinking",
  "temperature",
  "output_config",
  "max_tokens",
)
# The errors inside a job's results come without an HTTP status.
_STATUS = {
  "invalid_request_error": 400,
  "authentication_error": 401,
  "billing_error": 402,
  "permission_error": 403,
  "not_found_error": 404,
  "request_too_large": 413,
  "rate_limit_error": 429,
  "timeout_error": 504,
  "overloaded_error": 529,
}


class Service:
  """Knows what the service was called with, to name it in messages."""

  def __init__(self, client: settings.ClientSettings, where: str):
    self._client, self._where = client, where

  @contextlib.contextmanager
  def faults(self) -> Iterator[None]:
    """Turns whatever the SDK raises inside into a `ClientError`."""
    try:
      yield
    except anthropic.APIStatusError as error:
      raise self._of(
        error.status_code, *_said(error.body, error), error.response.headers
      ) from error
    except _INVALID_BODY as error:
      message = f"the body is not valid: {error}"
      raise protocol.Retryable(message, lost=True) from error
    except _TRANSPORT as error:
      cause = error.__cause__ or error
      if isinstance(cause, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        url = f"{self._where}.base_url={self._client.base_url!r}"
        raise protocol.FatalAuth(f"{url} cannot be used: {cause}") from error
      sent = not isinstance(cause, _NEVER_SENT)
      message = f"{type(error).__name__}: {error}"
      raise protocol.Retryable(message, lost=sent) from error
    except anthropic.AnthropicError as error:
      raise protocol.FatalAuth(f"{type(error).__name__}: {error}") from error

  def of_job(self, kind: str, message: str) -> protocol.ClientError:
    """Returns what the error of one request of a job stands for."""
    return self._of(_STATUS.get(kind, 500), message, kind, {})

  def _of(
    self, status: int, message: str, kind: str, headers: Mapping[str, str]
  ) -> protocol.ClientError:
    # What the service says may be long; the way out comes after it.
    text = f"{status} {kind} {message}"[:300]
    said = message.lower()
    if "regain access" in said:
      # The monthly limit that the account has set: the message names its end.
      return protocol.RateLimited(
        text, retry_after=waits.of_message(message), quota="spend"
      )
    if status == 402 or any(mark in said for mark in _NO_CREDIT):
      return protocol.FatalAuth(f"{text} (the account has no credit left)")
    if status == 429:
      return _rate_limited(text, said, headers)
    if status in _PASSING or status >= 500:
      return protocol.Retryable(text, retry_after=waits.of_headers(headers))
    if status in (401, 403):
      name = self._client.api_key_env or "ANTHROPIC_API_KEY"
      return protocol.FatalAuth(f"{text} (is the key in {name} right?)")
    if status in (404, 405) or status < 400:
      return protocol.FatalAuth(
        f"{text} (is {self._where}.model={self._client.model!r} right, and "
        f"{self._where}.base_url={self._client.base_url!r}, without /v1?)"
      )
    return self._refused(text, said)

  def _refused(self, text: str, said: str) -> protocol.ClientError:
    """Returns whether one request was wrong or every request would be."""
    if any(mark in said for mark in _TOO_LONG):
      return protocol.FatalRequest(f"the prompt is too long for the model: {text}")
    if any(mark in said for mark in _UNSUPPORTED):
      client = self._client
      return protocol.FatalAuth(
        f"{text} (sent with {self._where}.thinking={client.thinking!r}, temperature="
        f"{client.temperature:g}, max_output_tokens={client.max_output_tokens})"
      )
    return protocol.FatalRequest(text)


def _rate_limited(
  text: str, said: str, headers: Mapping[str, str]
) -> protocol.RateLimited:
  wait = waits.longest(waits.of_headers(headers), waits.of_message(text))
  if "per day" in said or "daily" in said:
    return protocol.RateLimited(
      f"the daily quota is used up: {text}", retry_after=wait, quota="day"
    )
  quota = "minute" if "per minute" in said else ""
  return protocol.RateLimited(text, retry_after=wait, quota=quota)


def _said(body: Any, error: Exception) -> tuple[str, str]:
  """Returns (message, kind) of an error reply, whatever its body is."""
  inner = body.get("error") if isinstance(body, Mapping) else None
  if not isinstance(inner, Mapping):
    return str(error), ""
  return str(inner.get("message") or inner), str(inner.get("type") or "")
