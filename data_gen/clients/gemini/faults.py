"""What can go wrong with Gemini, in the words of the one taxonomy."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

import httpx2
import pydantic
from google.auth import exceptions as auth_errors
from google.genai.errors import APIError, UnknownApiResponseError

from data_gen.clients import protocol, settings, waits

_INVALID_BODY = (
  json.JSONDecodeError,
  UnicodeDecodeError,
  UnknownApiResponseError,
  pydantic.ValidationError,
)
_NEVER_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
_PASSING = (408, 409, 425, 499)
# The codes of google.rpc that the errors inside a job's results carry.
_HTTP_OF_RPC = {1: 499, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 9: 400, 13: 500}
_HTTP_OF_RPC |= {2: 500, 10: 409, 11: 400, 12: 501, 14: 503, 16: 401}
_TOO_LONG = ("exceeds the maximum number of tokens", "input token count")
_UNSUPPORTED = ("unknown name", "not supported", "unsupported", "not enabled")


class Service:
  """Knows what the service was called with, to name it in messages."""

  def __init__(self, client: settings.ClientSettings, where: str):
    self._client, self._where = client, where

  @contextlib.contextmanager
  def faults(self) -> Iterator[None]:
    """Turns whatever the SDK raises inside into a `ClientError`."""
    try:
      yield
    except APIError as error:
      raise self.of_api(error) from error
    except (httpx2.UnsupportedProtocol, httpx2.InvalidURL) as error:
      raise protocol.FatalAuth(f"{self._url_hint()}: {error}") from error
    except _NEVER_SENT as error:
      raise protocol.Retryable(f"{type(error).__name__}: {error}") from error
    except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
      message = f"{type(error).__name__}: {error}"
      raise protocol.Retryable(message, lost=True) from error
    except auth_errors.TransportError as error:
      raise protocol.Retryable(f"Google credentials: {error}") from error
    except auth_errors.GoogleAuthError as error:
      raise protocol.FatalAuth(f"Google credentials: {error}") from error
    except _INVALID_BODY as error:
      message = f"the body is not valid: {error}"
      raise protocol.Retryable(message, lost=True) from error

  def of_api(self, error: APIError) -> protocol.ClientError:
    """Returns what an error answer of the API stands for."""
    details = error.details if isinstance(error.details, dict) else {}
    inner = details.get("error", details)
    return self._of(
      error.code,
      f"{error.status or ''} {error.message or ''}",
      inner.get("details") or [] if isinstance(inner, dict) else [],
      getattr(error.response, "headers", None),
    )

  def of_job(self, error: Mapping[str, Any]) -> protocol.ClientError:
    """Returns what the error of one request of a job stands for."""
    code = error.get("code") or 2
    message = f"{error.get('status') or ''} {error.get('message') or ''}"
    return self._of(_HTTP_OF_RPC.get(code, code), message, error.get("details") or [])

  def _of(
    self, code: int, text: str, details: Any, headers: Any = None
  ) -> protocol.ClientError:
    details = [detail for detail in _list(details) if isinstance(detail, dict)]
    # What the service says may be long; the way out comes after it.
    message = f"{code} {text}"[:300]
    if code == 429 and "credits are depleted" in text.lower():
      return protocol.FatalAuth(f"{message} (the account has no credit left)")
    if code == 429:
      return _rate_limited(message, details, headers)
    if code in _PASSING or code >= 500:
      return protocol.Retryable(message, retry_after=_asked(details, headers))
    said = text.lower()
    if code in (401, 403) or "API_KEY_INVALID" in str(details) or "api key" in said:
      return protocol.FatalAuth(f"{message} ({self._key_hint()})")
    if code == 402 or "FAILED_PRECONDITION" in text:
      return protocol.FatalAuth(f"{message} (billing or region of the key)")
    if code == 404:
      return protocol.FatalAuth(f"{message} ({self._model_hint()})")
    return self._refused(message)

  def _refused(self, message: str) -> protocol.ClientError:
    """Returns whether one request was wrong or every request would be."""
    said = message.lower()
    if any(mark in said for mark in _TOO_LONG):
      return protocol.FatalRequest(f"the prompt is too long for the model: {message}")
    if "think" in said:
      return protocol.FatalAuth(
        f"{message} ({self._where}.thinking={self._client.thinking!r} is not for this "
        "model: try 'minimal', 'low', or a number of tokens such as '128'; thoughts "
        "are billed)"
      )
    if any(mark in said for mark in _UNSUPPORTED):
      return protocol.FatalAuth(f"{message} ({self._settings_hint()})")
    return protocol.FatalRequest(message)

  def _key_hint(self) -> str:
    if self._client.project:
      return (
        f"has the account rights in {self._where}.project={self._client.project!r}?"
      )
    names = settings.key_variables(self._client)
    name = next((name for name in names if os.environ.get(name)), names[0])
    return f"is the key in {name} right?"

  def _url_hint(self) -> str:
    return f"{self._where}.base_url={self._client.base_url!r} cannot be used"

  def _model_hint(self) -> str:
    client, where = self._client, self._where
    if client.project:
      return (
        f"is {where}.model={client.model!r} served in {where}.location="
        f"{client.location or 'global'!r}?"
      )
    return (
      f"is {where}.model={client.model!r} right? {where}.api_version="
      f"{client.api_version!r} is the SDK's v1 when None; previews, aliases and caches "
      "may need 'v1beta'"
    )

  def _settings_hint(self) -> str:
    client = self._client
    return (
      f"sent with {self._where}.tier={client.tier!r}, cache={client.cache!r}, "
      f"safety={client.safety!r}, api_version={client.api_version!r}"
    )


def _rate_limited(message: str, details: list[dict], headers: Any) -> Exception:
  violations = [v for detail in details for v in _list(detail.get("violations"))]
  quotas = " ".join(
    f"{violation.get('quotaId', '')} {violation.get('quotaMetric', '')}"
    for violation in violations
    if isinstance(violation, Mapping)
  ).lower()
  said = f"{quotas} {message.lower()}"
  if "perday" in said or "per_day" in said or "per day" in said:
    wait = waits.until(waits.pacific_midnight())
    text = f"{message} (the daily quota comes back at {waits.clock(wait)})"
    return protocol.RateLimited(text, retry_after=wait, quota="day")
  quota = "minute" if "perminute" in said or "per_minute" in said else ""
  if "spend" in said:
    quota = "spend"
  return protocol.RateLimited(
    message, retry_after=_asked(details, headers), quota=quota
  )


def _list(value: Any) -> list[Any]:
  return value if isinstance(value, list) else []


def _asked(details: list[dict], headers: Any) -> float | None:
  """Returns the longest wait in seconds that header or body ask for."""
  delays = [
    waits.of_duration(str(d["retryDelay"])) for d in details if "retryDelay" in d
  ]
  return waits.longest(waits.of_headers(headers), *delays)
