"""What can go wrong with a chat server, in the words of the one taxonomy."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2

from data_gen.clients import protocol, settings, waits

_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_PASSING = (408, 409, 425, 499)
_TOO_LONG = (
  "context_length",
  "context length",
  "context window",
  "maximum context",
  "too many tokens",
  "prompt is too long",
  "maximum model length",
)
_UNSUPPORTED = (
  "unsupported",
  "not supported",
  "unrecognized",
  "unknown parameter",
  "extra inputs",
  "extra_forbidden",
  "unexpected field",
  "not permitted",
)
_NO_MODEL = (
  "model_not_found",
  "model not found",
  "not a valid model",
  "invalid model",
  "unknown model",
  "pinned to",
)
# One request that is larger than the limit itself: no waiting helps.
_NEVER_FITS = ("request too large", "must be reduced")
_NO_CREDIT = ("insufficient_quota", "billing_hard_limit", "insufficient credits")
_PER_DAY = ("per day", "per-day", "(rpd)", "(tpd)", "daily")


class Service:
  """Knows what the server was called with, to name it in messages."""

  def __init__(self, client: settings.ClientSettings, where: str, base_url: str):
    self._client, self._where, self.url = client, where, base_url

  @contextlib.contextmanager
  def faults(self) -> Iterator[None]:
    """Turns what the transport raises inside into a `ClientError`."""
    try:
      yield
    except httpx2.UnsupportedProtocol as error:
      raise protocol.FatalAuth(f"{self._where}.base_url: {error}") from error
    except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
      raise protocol.Retryable(
        f"{self.url}: {type(error).__name__}: {error}",
        lost=not isinstance(error, _NEVER_SENT),
      ) from error
    except httpx2.InvalidURL as error:
      raise protocol.FatalAuth(f"{self._where}.base_url: {error}") from error

  def json_of(self, reply: httpx2.Response) -> dict[str, Any]:
    """Returns the JSON object of a whole reply.

    Raises:
      ClientError: the reply is an error, or is no JSON object.
    """
    if reply.status_code != 200:
      raise self._of(reply.status_code, *_said(reply), reply.headers)
    try:
      answer = reply.json()
    except ValueError:
      answer = None
    if not isinstance(answer, dict):
      kind = reply.headers.get("content-type", "no content type")
      raise protocol.Retryable(
        f"the body is not a JSON object ({kind}: {reply.text[:80]!r}): is "
        f"{self._where}.base_url={self._client.base_url!r} right?",
        lost=True,
      )
    return answer

  def of_error(self, error: Any) -> protocol.ClientError:
    """Returns what an error inside a body or a job's results stands for."""
    if not isinstance(error, Mapping):
      return protocol.Retryable(str(error))
    code = error.get("code")
    status = code if isinstance(code, int) else 500
    return self._of(status, str(error.get("message") or error), str(code or ""), {})

  def of_status(self, status: int, body: Any) -> protocol.ClientError:
    """Returns what the status and body of one request of a job stand for."""
    return self._of(status, *_said_in(body), {})

  def _of(
    self, status: int, message: str, code: str, headers: Mapping[str, str]
  ) -> protocol.ClientError:
    # What the server says may be long; the way out comes after it.
    text = f"{status} {message}"[:300]
    said = f"{message} {code}".lower()
    if status == 402 or any(mark in said for mark in _NO_CREDIT):
      return protocol.FatalAuth(f"{text} (the account has no credit left)")
    if status == 429 and any(mark in said for mark in _NEVER_FITS):
      return protocol.FatalRequest(f"larger than the rate limit itself: {text}")
    if status == 429:
      return _rate_limited(text, said, headers)
    if status in _PASSING or status >= 500:
      return protocol.Retryable(text, retry_after=waits.of_headers(headers))
    if status in (401, 403):
      return protocol.FatalAuth(f"{text} ({self._key_hint()})")
    lost = status in (404, 405) or status < 400
    if lost or any(mark in said for mark in _NO_MODEL):
      return protocol.FatalAuth(
        f"{text} (is {self._where}.model={self._client.model!r} right, and the server "
        f"{self.url}, which ends in /v1 as a rule?)"
      )
    return self._refused(text, said)

  def _refused(self, text: str, said: str) -> protocol.ClientError:
    """Returns whether one request was wrong or every request would be."""
    if any(mark in said for mark in _TOO_LONG):
      return protocol.FatalRequest(f"the prompt is too long for the model: {text}")
    if "content_policy" in said or "content_filter" in said:
      return protocol.Blocked(text, finish_reason="content_filter")
    where = self._where
    if "response_format" in said or "json_schema" in said:
      return protocol.FatalAuth(
        f"{text} ({where}.structured={self._client.structured!r} is not for this "
        "server: try 'json_object' or 'none')"
      )
    if "max_tokens" in said or "max_completion_tokens" in said:
      return protocol.FatalAuth(
        f"{text} (see {where}.token_limit_field={self._client.token_limit_field!r} and "
        f"max_output_tokens={self._client.max_output_tokens})"
      )
    if any(mark in said for mark in _UNSUPPORTED):
      return protocol.FatalAuth(
        f"{text} (see {where}.extra_body, thinking_field, temperature, tier and "
        f"send_seed={self._client.send_seed})"
      )
    return protocol.FatalRequest(text)

  def _key_hint(self) -> str:
    name = self._client.api_key_env
    if name is None and self._client.base_url is not None:
      return f"does the server want a key? {self._where}.api_key_env names its variable"
    return f"is the key in {name or 'OPENAI_API_KEY'} right?"


def _rate_limited(
  text: str, said: str, headers: Mapping[str, str]
) -> protocol.RateLimited:
  wait = waits.longest(waits.of_headers(headers), waits.of_message(text))
  if any(mark in said for mark in _PER_DAY):
    back = f" (it comes back at {waits.clock(wait)})" if wait is not None else ""
    return protocol.RateLimited(
      f"the daily quota is used up: {text}{back}", retry_after=wait, quota="day"
    )
  quota = "minute" if "per min" in said or "(rpm)" in said or "(tpm)" in said else ""
  return protocol.RateLimited(text, retry_after=wait, quota=quota)


def _said(reply: httpx2.Response) -> tuple[str, str]:
  """Returns (message, code) of an error reply, whatever its body is."""
  try:
    body = reply.json()
  except ValueError:
    return reply.text[:200] or reply.reason_phrase, ""
  return _said_in(body)


def _said_in(body: Any) -> tuple[str, str]:
  if isinstance(body, list) and body:
    body = body[0]
  if not isinstance(body, Mapping):
    return str(body), ""
  error = body.get("error", body.get("detail", body))
  if not isinstance(error, Mapping):
    return str(error), ""
  message = error.get("message") or error
  return str(message), f"{error.get('code') or ''} {error.get('type') or ''}"
