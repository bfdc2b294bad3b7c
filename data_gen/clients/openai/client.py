"""One question to a chat server and its answer: vLLM, OpenRouter, OpenAI, ..."""

import json
import os
from collections.abc import Mapping
from typing import Any

from data_gen.clients import connections, keys, protocol, schemas, settings
from data_gen.clients.openai import answers, faults, jobs
from msm_jax import errors, progress, records

_OWN_URL = "https://api.openai.com/v1"
_OWN_KEY = "OPENAI_API_KEY"


class OpenAIClient:
  """Answers from `<base_url>/chat/completions`."""

  def __init__(self, client: settings.ClientSettings, where: str = "config.teacher"):
    self._settings = client
    self.identity = client.identity()
    base_url = (client.base_url or _OWN_URL).rstrip("/") + "/"
    self._service = faults.Service(client, where, base_url)
    key = _key(client, where)
    self._http = connections.http_client(
      client.max_concurrency,
      client.timeout_s,
      base_url=base_url,
      headers={"Authorization": f"Bearer {key}"} if key else {},
    )
    self._told_of_usage = False
    self.jobs: protocol.BatchClient | None = jobs.OpenAIJobs(
      self._http, self._service, self._body_of, client.model
    )

  async def generate(self, request: protocol.Request) -> protocol.Response:
    """Returns the answer to `request`."""
    with self._service.faults():
      reply = await self._http.post("chat/completions", json=self._body_of(request))
    answer = self._service.json_of(reply)
    if "choices" not in answer and answer.get("error"):
      # OpenRouter reports what befell the server behind it in a body of its own.
      raise self._service.of_error(answer["error"])
    response = answers.response_of(answer, self._settings.model)
    self._tell_of_usage(response.usage)
    return response

  def _tell_of_usage(self, usage: protocol.Usage) -> None:
    """Says once that a server does not count tokens."""
    if usage == protocol.Usage() and not self._told_of_usage:
      self._told_of_usage = True
      progress.say(
        f"{self._service.url} reports no usage: where its tokens have a price, each "
        "answer counts as unknown spend, with the most that it may have cost"
      )

  def take_costs(self) -> list[protocol.CacheCost]:
    """Returns nothing: what a cache costs is part of the answers."""
    return []

  async def close(self) -> None:
    """Closes the connections."""
    await self._http.aclose()

  def _body_of(self, request: protocol.Request) -> dict[str, Any]:
    """Returns what is sent for a request."""
    client, params = self._settings, request.params
    # Equal prompts ask for different answers: the seed differs with the sample.
    key = [request.prompt_hash, request.sample_index, params.seed]
    body: dict[str, Any] = {
      "model": client.model,
      "messages": _messages(request),
      "temperature": params.temperature,
      client.token_limit_field: params.max_output_tokens,
    }
    if client.send_seed:
      body["seed"] = int(records.sha256_json(key)[:7], 16)
    if request.schema is not None and client.structured != "none":
      body["response_format"] = _format(client.structured, request)
    if client.tier == settings.FLEX:
      body["service_tier"] = "flex"
    body |= _thinking(client.thinking_field, params.thinking)
    return _merged(body, client.extra_body or {})


def _messages(request: protocol.Request) -> list[dict[str, str]]:
  messages = [{"role": "user", "content": request.prompt}]
  if request.system:
    messages.insert(0, {"role": "system", "content": request.system})
  return messages


def _format(structured: str, request: protocol.Request) -> dict[str, Any]:
  if structured == "json_object":
    return {"type": "json_object"}
  schema = {
    "name": request.stage,
    "strict": True,
    "schema": schemas.closed_object(request.schema),
  }
  return {"type": "json_schema", "json_schema": schema}


def _thinking(field: str | None, thinking: str) -> dict[str, Any]:
  """Returns the fields that tell a server how much to think."""
  is_on = thinking != "off"
  if field == "enable_thinking":
    return {"chat_template_kwargs": {"enable_thinking": is_on}}
  if field == "reasoning_effort":
    return {"reasoning_effort": thinking if is_on else "none"}
  if field == "reasoning":
    if not is_on:
      return {"reasoning": {"enabled": False}}
    if thinking.isdigit():
      return {"reasoning": {"max_tokens": int(thinking)}}
    return {"reasoning": {"effort": thinking}}
  return {}


def _merged(body: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
  """Returns `body` with `extra` over it; maps are merged, not replaced."""
  found = dict(body)
  for name, value in extra.items():
    both = isinstance(value, Mapping) and isinstance(found.get(name), Mapping)
    found[name] = _merged(found[name], value) if both else value
  # A config's own maps are not plain ones.
  return json.loads(json.dumps(found, default=dict))


def _key(client: settings.ClientSettings, where: str) -> str | None:
  name = client.api_key_env
  if name is None and client.base_url is not None:
    # OpenAI's key is never sent to another server by accident.
    return None
  name = name or _OWN_KEY
  if not os.environ.get(name):
    raise errors.UserError(
      f"{where}.client is 'openai' and there is no key: set the environment variable "
      f"{name}, or {where}.base_url to a server that needs none"
    )
  return keys.whole(name)
