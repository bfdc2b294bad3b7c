"""One question to Claude and its answer.

The SDK's own retries are off: they belong to the scheduler.
"""

import os
from typing import Any

import anthropic

from data_gen.clients import connections, keys, protocol, schemas, settings
from data_gen.clients.anthropic import answers, faults, jobs
from msm_jax import errors

_KEY = "ANTHROPIC_API_KEY"
_LEVELS = ("low", "medium", "high", "xhigh", "max")
_MIN_BUDGET = 1024


class AnthropicClient:
  """Answers from the Messages API, or from any server that speaks it."""

  def __init__(self, client: settings.ClientSettings, where: str = "config.teacher"):
    _check_thinking(client, where)
    self._settings = client
    self.identity = client.identity()
    self._service = faults.Service(client, where)
    self._sdk = anthropic.AsyncAnthropic(
      api_key=_key(client, where),
      base_url=client.base_url,
      max_retries=0,
      timeout=client.timeout_s,
      http_client=connections.http_client(client.max_concurrency, client.timeout_s),
    )
    self.jobs: protocol.BatchClient | None = jobs.AnthropicJobs(
      self._sdk, self._service, self._body_of, client.model
    )

  async def generate(self, request: protocol.Request) -> protocol.Response:
    """Returns the answer to `request`."""
    body = self._body_of(request)
    # The SDK names only what its own models take; the service decides on the rest.
    named = {name: body.pop(name) for name in ("model", "max_tokens", "messages")}
    with self._service.faults():
      answer = await self._sdk.messages.create(**named, extra_body=body)
    return answers.response_of(answer, self._settings.model)

  def take_costs(self) -> list[protocol.CacheCost]:
    """Returns nothing: what a cache costs is part of the answers."""
    return []

  async def close(self) -> None:
    """Closes the connections."""
    await self._sdk.close()

  def _body_of(self, request: protocol.Request) -> dict[str, Any]:
    """Returns what is sent for a request; the service knows no seed."""
    client, params = self._settings, request.params
    body: dict[str, Any] = {
      "model": client.model,
      "max_tokens": params.max_output_tokens,
      "messages": [{"role": "user", "content": request.prompt}],
    }
    if request.system:
      body["system"] = [_system(request.system, client)]
    # 1 is the service's own; models that know no temperature refuse the field.
    if params.temperature != 1.0:
      body["temperature"] = params.temperature
    output: dict[str, Any] = {}
    if request.schema is not None:
      schema = schemas.closed_object(request.schema)
      output["format"] = {"type": "json_schema", "schema": schema}
    if params.thinking.isdigit():
      body["thinking"] = {
        "type": "enabled",
        "budget_tokens": int(params.thinking),
      }
    elif params.thinking != "off":
      body["thinking"] = {"type": "adaptive"}
      output["effort"] = params.thinking
    if output:
      body["output_config"] = output
    return body | dict(client.extra_body or {})


def _system(text: str, client: settings.ClientSettings) -> dict[str, Any]:
  block: dict[str, Any] = {"type": "text", "text": text}
  if client.cache == "explicit":
    block["cache_control"] = {"type": "ephemeral"}
  return block


def _check_thinking(client: settings.ClientSettings, where: str) -> None:
  thinking = client.thinking
  if thinking == "off" or thinking in _LEVELS:
    return
  if thinking.isdigit() and _MIN_BUDGET <= int(thinking) < client.max_output_tokens:
    return
  raise errors.UserError(
    f"{where}.thinking is {thinking!r}: it is 'off', one of {', '.join(_LEVELS)}, or a "
    f"number of tokens in quotes, from {_MIN_BUDGET} and below max_output_tokens="
    f"{client.max_output_tokens}"
  )


def _key(client: settings.ClientSettings, where: str) -> str:
  name = client.api_key_env or _KEY
  if not os.environ.get(name):
    raise errors.UserError(
      f"{where}.client is 'anthropic' and there is no key: set the environment "
      f"variable {name}, or use {where}.client='offline'"
    )
  return keys.whole(name)
