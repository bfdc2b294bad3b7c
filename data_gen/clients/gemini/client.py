"""One question to Gemini and its answer: the Developer API, or Vertex."""

import dataclasses
import os

import google.auth
import httpx2
from google import genai
from google.auth import exceptions as auth_errors
from google.genai import types
from google.genai.errors import APIError

from data_gen.clients import connections, protocol, settings
from data_gen.clients.gemini import answers, caches, faults, jobs
from msm_jax import errors, progress, records

_KEY_VARIABLES = ("GOOGLE_API_KEY", "GEMINI_API_KEY")
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_LEVELS = tuple(level.value.lower() for level in types.ThinkingLevel)[1:]
_CATEGORIES = (
  "HARM_CATEGORY_HARASSMENT",
  "HARM_CATEGORY_HATE_SPEECH",
  "HARM_CATEGORY_SEXUALLY_EXPLICIT",
  "HARM_CATEGORY_DANGEROUS_CONTENT",
)


class GeminiClient:
  """Answers from the Gemini API, or from any server that speaks it."""

  def __init__(self, client: settings.ClientSettings, where: str = "config.teacher"):
    _check_thinking(client, where)
    self._settings = client
    self.identity = client.identity()
    self._service = faults.Service(client, where)
    # An own HTTP client: the SDK's would allow 100 connections, and with aiohttp
    # installed it would retry behind our back.
    self._http = connections.http_client(client.max_concurrency, client.timeout_s)
    sdk = _sdk(client, where, self._http)
    self._sdk = sdk
    self._caches: caches.Caches | None = None
    if client.cache == "explicit":
      self._caches = caches.Caches(sdk, client.model, self._service)
    self.jobs: protocol.BatchClient | None = None
    if client.tier == settings.BATCH:
      self.jobs = jobs.GeminiJobs(sdk, client.model, self._service, self._config)
    self._told_of_thoughts = False

  async def generate(self, request: protocol.Request) -> protocol.Response:
    """Returns the answer to `request`."""
    cached = None
    if self._caches is not None:
      cached = await self._caches.name_for(request.system)
    with self._service.faults():
      try:
        answer = await self._sdk.aio.models.generate_content(
          model=self._settings.model,
          contents=request.prompt,
          config=_raw(self._config(request, cached)),
        )
      except APIError as error:
        if cached is not None and self._caches.is_gone(error, request.system):
          raise protocol.Retryable(f"the cache is gone: {error.message}") from error
        raise
      body = answers.of_body(answer.sdk_http_response.body)
    response = answers.response_of(body, self._settings.model)
    self._tell_of_thoughts(response.usage)
    return self._with_cache_costs(response)

  async def close(self) -> None:
    """Deletes the caches and closes the connections."""
    if self._caches is not None:
      await self._caches.close()
    await self._sdk.aio.aclose()
    await self._http.aclose()

  def _config(
    self, request: protocol.Request, cached: str | None = None
  ) -> types.GenerateContentConfig:
    client, params = self._settings, request.params
    synchronous = client.tier in (settings.FLEX, settings.PRIORITY)
    # Equal prompts ask for different answers: the seed differs with the sample.
    key = [request.prompt_hash, request.sample_index, params.seed]
    return types.GenerateContentConfig(
      # What lies in the cache may not be passed a second time.
      system_instruction=None if cached else request.system or None,
      cached_content=cached,
      temperature=params.temperature,
      max_output_tokens=params.max_output_tokens,
      seed=int(records.sha256_json(key)[:7], 16),
      thinking_config=_thinking(params.thinking),
      automatic_continuation=False,
      response_mime_type="application/json" if request.schema else None,
      response_json_schema=request.schema,
      safety_settings=_safety(client.safety),
      service_tier=types.ServiceTier(client.tier) if synchronous else None,
    )

  def _tell_of_thoughts(self, usage: protocol.Usage) -> None:
    """Says once that a model thinks although it was told not to."""
    if self._told_of_thoughts or self._settings.thinking != "off":
      return
    if usage.thought_tokens:
      self._told_of_thoughts = True
      progress.say(
        f"{self._settings.model} thinks although thinking='off': "
        f"{usage.thought_tokens} tokens in this answer, billed like the answer"
      )

  def _with_cache_costs(self, response: protocol.Response) -> protocol.Response:
    if self._caches is None:
      return response
    written, hours = self._caches.take_costs()
    usage = dataclasses.replace(
      response.usage,
      prompt_tokens=response.usage.prompt_tokens + written,
      cache_write_tokens=written,
      cache_token_hours=hours,
    )
    return dataclasses.replace(response, usage=usage)


def _raw(config: types.GenerateContentConfig) -> types.GenerateContentConfig:
  """Returns `config` so that the body of the answer comes as the service sent it.

  The SDK would drop the fields and warn of the values that it does not know.
  """
  return config.model_copy(update={"should_return_http_response": True})


def _sdk(
  client: settings.ClientSettings, where: str, http: httpx2.AsyncClient
) -> genai.Client:
  options = types.HttpOptions(
    base_url=client.base_url,
    api_version=client.api_version,
    timeout=int(client.timeout_s * 1000),
    httpx_async_client=http,
  )
  try:
    if client.project:
      return genai.Client(
        enterprise=True,
        project=client.project,
        location=client.location or "global",
        credentials=_credentials(where),
        http_options=options,
      )
    # Named, or the environment could send the requests to Vertex after all.
    return genai.Client(
      enterprise=False, api_key=_key(client, where), http_options=options
    )
  except ValueError as error:
    raise errors.UserError(f"{where}: the Gemini client says: {error}") from None


def _key(client: settings.ClientSettings, where: str) -> str:
  names = (client.api_key_env,) if client.api_key_env else _KEY_VARIABLES
  for name in names:
    if os.environ.get(name):
      return os.environ[name]
  raise errors.UserError(
    f"{where}.client is 'gemini' and there is no key: set the environment variable "
    f"{' or '.join(names)}, or {where}.project for Vertex, or use "
    f"{where}.client='offline'"
  )


def _credentials(where: str) -> google.auth.credentials.Credentials:
  try:
    return google.auth.default(scopes=[_SCOPE])[0]
  except auth_errors.GoogleAuthError as error:
    first = str(error).split(". ")[0]
    raise errors.UserError(
      f"{where}.project is set and there are no Google credentials ({first}): run "
      "'gcloud auth application-default login', or set GOOGLE_APPLICATION_CREDENTIALS "
      "to the file of a service account"
    ) from None


def _check_thinking(client: settings.ClientSettings, where: str) -> None:
  thinking = client.thinking
  if thinking == "off" or thinking.isdigit() or thinking.lower() in _LEVELS:
    return
  raise errors.UserError(
    f"{where}.thinking is {thinking!r}: it is 'off', one of {', '.join(_LEVELS)}, or a "
    "number of tokens in quotes"
  )


def _thinking(thinking: str) -> types.ThinkingConfig:
  if thinking == "off":
    return types.ThinkingConfig(thinking_budget=0)
  if thinking.isdigit():
    return types.ThinkingConfig(thinking_budget=int(thinking))
  return types.ThinkingConfig(thinking_level=thinking.upper())


def _safety(safety: str) -> list[types.SafetySetting] | None:
  if safety == "default":
    return None
  threshold = safety.upper()
  return [
    types.SafetySetting(category=category, threshold=threshold)
    for category in _CATEGORIES
  ]
