"""What a client is: one coroutine, jobs where the service takes them, and one taxonomy
of what can go wrong.
"""

import contextlib
import dataclasses
import functools
from collections.abc import (
  AsyncIterator,
  Callable,
  Collection,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any, Protocol

from msm_jax import records
from msm_jax.json_text import printable

# Finish reasons that the chains look at; all others are kept as the service named them.
STOP = "STOP"
MAX_TOKENS = "MAX_TOKENS"

# What has become of a batch job.
WAITING = "waiting"
DONE = "done"
FAILED = "failed"


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
  """Tokens that were billed.

  Attributes:
    prompt_tokens: all that was read: it includes the two kinds that follow.
    cached_tokens: read from a cache, at a lower price.
    cache_write_tokens: read and put into a cache, at a price of its own.
    response_tokens: the answer, without thoughts.
    thought_tokens: billed like the answer.
    cache_token_hours: tokens x hours that a cache was kept.
  """

  prompt_tokens: int = 0
  cached_tokens: int = 0
  response_tokens: int = 0
  thought_tokens: int = 0
  cache_write_tokens: int = 0
  cache_token_hours: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CacheCost:
  """What making or keeping the context cache `name` was billed, beside any answer."""

  name: str
  usage: Usage


@dataclasses.dataclass(frozen=True, kw_only=True)
class Response:
  """One answer; with `finish_reason` MAX_TOKENS its text is cut off."""

  text: str
  finish_reason: str
  usage: Usage
  model_version: str

  def __post_init__(self):
    object.__setattr__(self, "text", printable(self.text))


class ClientError(Exception):
  """An attempt without an answer.

  Attributes:
    usage: what was billed for it all the same.
    lost: the service may have answered and billed, and nobody knows how much: the
      request went out and no whole, readable body came back. False where it never
      went out, and where the service itself reported the error.
    text: what came of an answer that does not count.
  """

  kind = "error"

  def __init__(
    self,
    message: str,
    *,
    usage: Usage | None = None,
    finish_reason: str | None = None,
    retry_after: float | None = None,
    lost: bool = False,
    text: str = "",
  ):
    super().__init__(printable(" ".join(message.split())[:500]))
    self.usage = usage or Usage()
    self.finish_reason = finish_reason
    self.retry_after = retry_after
    self.lost = lost
    self.text = printable(text)


class Retryable(ClientError):
  """The same request may be answered on another attempt."""

  kind = "retryable"


class RateLimited(ClientError):
  """Too many requests; `retry_after` seconds if the service said so.

  Attributes:
    quota: 'minute', 'day', 'spend' (dollars), or '' where the service does not say.
      A daily quota comes back at the `retry_after` of its reset, and no request fares
      better before that.
  """

  kind = "rate_limited"

  def __init__(self, message: str, *, quota: str = "", **details: Any):
    super().__init__(message, **details)
    self.quota = quota


class FatalRequest(ClientError):
  """This request will never be answered; others will."""

  kind = "fatal_request"


class FatalAuth(ClientError):
  """Key, model, endpoint or setting is refused; no other request would fare better."""

  kind = "fatal_auth"


class Blocked(ClientError):
  """The service declined to answer; `finish_reason` says why."""

  kind = "blocked"


def reader(
  read: Callable[[Any, str], Response],
) -> Callable[[Any, str], Response]:
  """Makes a reader of answers take a body of another shape for a lost answer."""

  @functools.wraps(read)
  def guarded(answer: Any, model: str) -> Response:
    try:
      return read(answer, model)
    except (LookupError, TypeError, AttributeError, ValueError) as error:
      message = f"the body is not an answer: {error!r}"
      raise Retryable(message, lost=True) from error

  return guarded


class JobGone(ClientError):
  """The service does not know the job, or no longer has what it answered."""

  kind = "job_gone"


class Undecided(ClientError):
  """Jobs that still run may be the one that is sought: it shows when they end."""

  kind = "undecided"


@contextlib.contextmanager
def not_billed() -> Iterator[None]:
  """Says of the errors inside that nothing can have been billed."""
  try:
    yield
  except ClientError as error:
    error.lost = False
    raise


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobState:
  """What has become of a batch job: `status` is WAITING, DONE or FAILED.

  A job of which only some requests were answered is DONE; its results say which.

  Attributes:
    rest_is_free: the service says that requests without a result are not billed.
  """

  status: str
  message: str = ""
  rest_is_free: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sought:
  """A job that the service may have taken, though it never told its id.

  Attributes:
    name: what it was to be called.
    sent: when it was noted, before it was sent.
    identities: of its requests.
    others: ids of other jobs.
  """

  name: str
  sent: str
  identities: Collection[str]
  others: Collection[str] = ()


# A line of a job's results that cannot be read: whose answer it was, nobody knows.
NOBODY = ""


def damaged(error: object) -> tuple[str, ClientError]:
  """Returns what a line of a job's results stands for that cannot be read."""
  text = f"a line of the job's results is damaged: {error}"
  return NOBODY, Retryable(text, lost=True)


class BatchClient(Protocol):
  """Takes many requests at once and answers within a day; half price as a rule.

  All methods raise a `ClientError` and nothing else.
  """

  max_requests_per_job: int
  max_bytes_per_job: int

  async def submit(self, name: str, requests: Sequence[tuple[str, Request]]) -> str:
    """Sends (identity, request) pairs as one job named `name`; returns the job's id."""
    ...

  async def find(self, sought: Sought) -> str | None:
    """Returns the id of a job, one that has not failed if there are several.

    None: the service lists no such job.

    Raises:
      Undecided: it cannot be told yet.
    """
    ...

  async def state(self, job: str) -> JobState:
    """Returns what has become of a job.

    Raises:
      JobGone: the service does not know it.
    """
    ...

  def results(self, job: str) -> AsyncIterator[tuple[str, Response | ClientError]]:
    """Yields (identity, answer or error) of a job that is DONE, in any order.

    A request that the service lost is not among them; a line that cannot be read has
    the identity NOBODY.

    Raises:
      JobGone: the service no longer has them.
    """
    ...

  async def cancel(self, job: str) -> None:
    """Ends a job; what it had answered is billed. No error if it has ended."""
    ...


class Client(Protocol):
  """Answers requests.

  Attributes:
    identity: what tells its answers from those of another client (client, model).
    jobs: how to send many requests at once; None: the service takes no jobs.
  """

  identity: Mapping[str, Any]
  jobs: BatchClient | None

  async def generate(self, request: Request) -> Response:
    """Returns the answer; raises a `ClientError` and nothing else."""
    ...

  def take_costs(self) -> Sequence[CacheCost]:
    """Returns what caches have cost since this was last asked; also after `close`."""
    ...

  async def close(self) -> None:
    """Lets go of connections and caches."""
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
