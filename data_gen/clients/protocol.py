"""What a client is: one coroutine, and one taxonomy of what can go wrong."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from msm_jax import records

# Finish reasons that the chains look at; all others are kept as the service named them.
STOP = "STOP"
MAX_TOKENS = "MAX_TOKENS"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Params:
  """How to answer; part of the identity of a request."""

  temperature: float
  max_output_tokens: int
  thinking: str = "off"
  seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """One question to a teacher or judge.

  Attributes:
    stage: stage of the chain.
    system: what does not change between requests: instructions, spec.
    prompt: the variable part.
    fields: what both were rendered from; the offline teacher reads these.
    params: sampling parameters.
    sample_index: tells requests with the same prompt apart.
    schema: JSON schema of the answer; None: plain text.
  """

  stage: str
  system: str
  prompt: str
  fields: Mapping[str, Any]
  params: Params
  sample_index: int = 0
  schema: Mapping[str, Any] | None = None

  @property
  def prompt_hash(self) -> str:
    """The hash of everything that the teacher reads."""
    return records.sha256_json([self.system, self.prompt])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Usage:
  """Tokens that were billed; `prompt_tokens` includes `cached_tokens`."""

  prompt_tokens: int = 0
  cached_tokens: int = 0
  response_tokens: int = 0
  thought_tokens: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Response:
  """One answer; with `finish_reason` MAX_TOKENS its text is cut off."""

  text: str
  finish_reason: str
  usage: Usage
  model_version: str


class Client(Protocol):
  """Answers requests.

  `identity` is what tells its answers from those of another client (client, model).
  """

  identity: Mapping[str, str]

  async def generate(self, request: Request) -> Response:
    """Returns the answer; raises a `ClientError` and nothing else."""
    ...

  async def close(self) -> None:
    """Lets go of connections."""
    ...


def identity_of(request: Request, client: Client) -> str:
  """Returns the identity of a request: same identity, same answer, paid once."""
  content = [
    request.stage,
    request.prompt_hash,
    dataclasses.asdict(request.params),
    request.schema,
    dict(client.identity),
    request.sample_index,
  ]
  return records.sha256_json(content)[:32]


class ClientError(Exception):
  """An attempt without an answer; `usage` is what was billed for it all the same."""

  kind = "error"

  def __init__(
    self,
    message: str,
    *,
    usage: Usage | None = None,
    finish_reason: str | None = None,
    retry_after: float | None = None,
  ):
    super().__init__(" ".join(message.split())[:500])
    self.usage = usage or Usage()
    self.finish_reason = finish_reason
    self.retry_after = retry_after


class Retryable(ClientError):
  """The same request may be answered on another attempt."""

  kind = "retryable"


class RateLimited(ClientError):
  """Too many requests; `retry_after` seconds if the service said so."""

  kind = "rate_limited"


class FatalRequest(ClientError):
  """This request will never be answered; others will."""

  kind = "fatal_request"


class FatalAuth(ClientError):
  """Key, model or endpoint is not accepted; no other request would fare better."""

  kind = "fatal_auth"


class Blocked(ClientError):
  """The service declined to answer; `finish_reason` says why."""

  kind = "blocked"
