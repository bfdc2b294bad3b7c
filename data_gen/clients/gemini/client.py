"""One question to Gemini and its answer: the Developer API, or Vertex."""

import os

import google.auth
import httpx2
from google import genai
from google.auth import exceptions as auth_errors
from google.genai import types
from google.genai.errors import APIError

from data_gen.clients import connections, keys, protocol, settings
from data_gen.clients.gemini import answers, caches, faults, jobs
from msm_jax import errors, progress, records

_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_TIER_HEADER = "X-Vertex-AI-LLM-Shared-Request-Type"
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
    if not client.project:
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
        if cached is not None and self._caches.is_gone(error, cached):
          raise protocol.Retryable(f"the cache is gone: {error.message}") from error
        raise
      body = answers.of_body(answer.sdk_http_response.body)
    response = answers.response_of(body, self._settings.model)
    self._tell_of_thoughts(response.usage)
    return response

  def take_costs(self) -> list[protocol.CacheCost]:
    """Returns what caches have cost since this was last asked."""
    return [] if self._caches is None else self._caches.take_costs()

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
    in_body = client.tier in (settings.FLEX, settings.PRIORITY) and not client.project
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
      service_tier=types.ServiceTier(client.tier) if in_body else None,
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
    # Of clients that are not used: each would read the certificates again.
    client_args={"verify": connections.trusted()},
    async_client_args={"ssl": connections.trusted()},
    headers=_tier_headers(client),
  )
  key = None if client.project else _key(client, where)
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
    return genai.Client(enterprise=False, api_key=key, http_options=options)
  except ValueError as error:
    raise errors.UserError(f"{where}: the Gemini client says: {error}") from None


def _tier_headers(client: settings.ClientSettings) -> dict[str, str] | None:
  """Returns how Vertex is told of the tier: by header, not in the body."""
  if not client.project or client.tier == settings.STANDARD:
    return None
  return {_TIER_HEADER: client.tier, "X-Vertex-AI-LLM-Request-Type": "shared"}


def _key(client: settings.ClientSettings, where: str) -> str:
  names = settings.key_variables(client)
  for name in names:
    if os.environ.get(name):
      return keys.whole(name)
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
