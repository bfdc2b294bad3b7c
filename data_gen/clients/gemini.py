"""Gemini through google-genai: the only file that knows the SDK.

The SDK's own retries and its automatic continuation (billed follow-up requests) are
off: retry, timeouts, rate and budget belong to the scheduler.
"""

import datetime
import email.utils
import json
import os
from typing import Any

import httpx2
import pydantic
from google import genai
from google.genai import types
from google.genai.errors import APIError, UnknownApiResponseError

from data_gen import settings
from data_gen.clients import protocol
from msm_jax import errors, records

_KEY_VARIABLES = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
_COMPLETE = (protocol.STOP, protocol.MAX_TOKENS)
_INVALID_BODY = (
  json.JSONDecodeError,
  UnicodeDecodeError,
  UnknownApiResponseError,
  pydantic.ValidationError,
)
_OVERLOADED = (408, 500, 502, 503, 504)


class GeminiClient:
  """Answers from the Gemini Developer API, or from any server that speaks it."""

  def __init__(self, client: settings.ClientSettings, where: str = "config.teacher"):
    self._model = client.model
    self.identity = {"client": "gemini", "model": client.model}
    # An own HTTP client: the SDK's would allow 100 connections, and with aiohttp
    # installed it would retry behind our back.
    self._http = httpx2.AsyncClient(
      limits=httpx2.Limits(
        max_connections=client.max_concurrency,
        max_keepalive_connections=client.max_concurrency,
      ),
      timeout=client.timeout_s,
    )
    try:
      self._sdk = genai.Client(
        api_key=_key(client, where),
        http_options=types.HttpOptions(
          base_url=client.base_url,
          api_version=client.api_version,
          timeout=int(client.timeout_s * 1000),
          httpx_async_client=self._http,
        ),
      )
    except ValueError as error:
      raise errors.UserError(f"{where}: the Gemini client says: {error}") from None

  async def generate(self, request: protocol.Request) -> protocol.Response:
    """Returns the answer to `request`."""
    try:
      answer = await self._sdk.aio.models.generate_content(
        model=self._model, contents=request.prompt, config=_config(request)
      )
    except APIError as error:
      raise _from_api(error) from error
    except (httpx2.HTTPError, httpx2.StreamError, TimeoutError) as error:
      raise protocol.Retryable(f"{type(error).__name__}: {error}") from error
    except _INVALID_BODY as error:
      raise protocol.Retryable(f"the body is not valid: {error}") from error
    return _response(answer, self._model)

  async def close(self) -> None:
    """Closes the connections."""
    await self._sdk.aio.aclose()
    await self._http.aclose()


def _key(client: settings.ClientSettings, where: str) -> str:
  names = (client.api_key_env,) if client.api_key_env else _KEY_VARIABLES
  for name in names:
    if os.environ.get(name):
      return os.environ[name]
  raise errors.UserError(
    f"{where}.client is 'gemini' and there is no key: set the environment variable "
    f"{' or '.join(names)}, or use {where}.client='offline'"
  )


def _config(request: protocol.Request) -> types.GenerateContentConfig:
  params = request.params
  if params.thinking == "off":
    thinking = types.ThinkingConfig(thinking_budget=0)
  else:
    thinking = types.ThinkingConfig(thinking_level=params.thinking.upper())
  # Equal prompts ask for different answers: the seed differs with the sample.
  key = [request.prompt_hash, request.sample_index, params.seed]
  return types.GenerateContentConfig(
    system_instruction=request.system or None,
    temperature=params.temperature,
    max_output_tokens=params.max_output_tokens,
    seed=int(records.sha256_json(key)[:7], 16),
    thinking_config=thinking,
    automatic_continuation=False,
    response_mime_type="application/json" if request.schema else None,
    response_json_schema=request.schema,
  )


def _response(answer: types.GenerateContentResponse, model: str) -> protocol.Response:
  usage = _usage(answer.usage_metadata)
  if not answer.candidates:
    feedback = answer.prompt_feedback
    if feedback is None or feedback.block_reason is None:
      raise protocol.Retryable("an answer without candidates", usage=usage)
    reason = _name(feedback.block_reason)
    raise protocol.Blocked(f"prompt: {reason}", usage=usage, finish_reason=reason)
  candidate = answer.candidates[0]
  reason = _name(candidate.finish_reason) or "FINISH_REASON_UNSPECIFIED"
  if reason not in _COMPLETE:
    raise protocol.Blocked(f"answer: {reason}", usage=usage, finish_reason=reason)
  parts = (candidate.content and candidate.content.parts) or []
  text = "".join(part.text or "" for part in parts if not part.thought)
  if not text.strip() and reason == protocol.STOP:
    raise protocol.Retryable("an empty answer", usage=usage, finish_reason=reason)
  return protocol.Response(
    text=text,
    finish_reason=reason,
    usage=usage,
    model_version=answer.model_version or model,
  )


def _name(value: Any) -> str:
  """Returns an enum's name; values that the SDK does not know stay as they came."""
  return str(getattr(value, "value", value) or "")


def _usage(
  metadata: types.GenerateContentResponseUsageMetadata | None,
) -> protocol.Usage:
  if metadata is None:
    return protocol.Usage()
  return protocol.Usage(
    prompt_tokens=metadata.prompt_token_count or 0,
    cached_tokens=metadata.cached_content_token_count or 0,
    response_tokens=metadata.candidates_token_count or 0,
    thought_tokens=metadata.thoughts_token_count or 0,
  )


def _from_api(error: APIError) -> protocol.ClientError:
  message = f"{error.code} {error.status or ''} {error.message or ''}"
  if error.code == 429:
    return protocol.RateLimited(message, retry_after=_retry_after(error))
  if error.code in _OVERLOADED or error.code >= 500:
    return protocol.Retryable(message, retry_after=_retry_after(error))
  if error.code in (401, 403) or "API_KEY_INVALID" in str(error.details):
    return protocol.FatalAuth(f"{message} (is the key right?)")
  if error.code == 404:
    return protocol.FatalAuth(f"{message} (is the model right, and its api_version?)")
  return protocol.FatalRequest(message)


def _retry_after(error: APIError) -> float | None:
  """Returns the longest wait in seconds that header or body ask for."""
  waits = []
  headers = getattr(error.response, "headers", None) or {}
  if header := headers.get("retry-after"):
    waits.append(_seconds_of_header(header))
  details = error.details if isinstance(error.details, dict) else {}
  for detail in details.get("error", {}).get("details", []):
    delay = str(detail.get("retryDelay", "")).removesuffix("s")
    if delay.replace(".", "", 1).isdigit():
      waits.append(float(delay))
  known = [wait for wait in waits if wait is not None]
  return max(known) if known else None


def _seconds_of_header(value: str) -> float | None:
  if value.strip().replace(".", "", 1).isdigit():
    return float(value)
  try:
    when = email.utils.parsedate_to_datetime(value)
  except ValueError:
    return None
  if when.tzinfo is None:
    when = when.replace(tzinfo=datetime.UTC)
  return max(0.0, (when - datetime.datetime.now(datetime.UTC)).total_seconds())
