"""What goes into the ledger for one attempt, and what it may cost at most."""

import dataclasses
import json

from data_gen.clients import protocol
from data_gen.engine import entries, ledger, pricing


class Scribe:
  """Makes the entries of one client at one price (None: not known).

  Attributes:
    is_free: nothing can be billed.
  """

  def __init__(self, client: protocol.Client, price: pricing.Price | None):
    self._client, self._price = client, price
    self._identity = dict(client.identity)
    usage = protocol.Usage(prompt_tokens=1000, response_tokens=1000)
    self.is_free = price is not None and price.dollars(usage) == 0

  def blank(
    self, identity: str, request: protocol.Request, attempt: int, at_most: float
  ) -> entries.Entry:
    """Returns the entry of an attempt that goes out now."""
    return entries.Entry(
      id=identity,
      stage=request.stage,
      sample_index=request.sample_index,
      prompt_hash=request.prompt_hash,
      client=self._identity,
      params=dataclasses.asdict(request.params),
      attempt=attempt,
      status="",
      time="",
      sent=ledger.now(),
      at_most=None if self._price is None else at_most,
    )

  def in_job(self, identity: str, job: entries.Job) -> entries.Entry:
    """Returns the entry of an attempt that went out with a batch job."""
    request = job.open[identity]
    return entries.Entry(
      id=identity,
      stage=request.stage,
      sample_index=request.sample_index,
      prompt_hash=request.prompt_hash,
      client=self._identity,
      params=job.params,
      attempt=request.attempt,
      status="",
      time="",
      sent=job.sent,
      at_most=None if self._price is None else request.at_most,
      job=job.name,
    )

  def answered(
    self, blank: entries.Entry, response: protocol.Response
  ) -> entries.Entry:
    """Returns the entry of an attempt that was answered.

    An answer that does not say what it cost is kept; its price is unknown.
    """
    usage = response.usage
    silent = not (self.is_free or usage.prompt_tokens or usage.response_tokens)
    return dataclasses.replace(
      self._billed(blank, usage),
      status=entries.OK,
      text=response.text,
      finish_reason=response.finish_reason,
      model_version=response.model_version,
      lost=silent,
      at_most=blank.at_most if silent else None,
    )

  def failed(self, blank: entries.Entry, error: protocol.ClientError) -> entries.Entry:
    """Returns the entry of an attempt without an answer."""
    return dataclasses.replace(
      self._billed(blank, error.usage),
      status=error.kind,
      error=str(error),
      text=error.text,
      finish_reason=error.finish_reason,
      lost=error.lost,
      at_most=blank.at_most if error.lost else None,
    )

  def _billed(self, blank: entries.Entry, usage: protocol.Usage) -> entries.Entry:
    return dataclasses.replace(
      blank,
      time=ledger.now(),
      usage=dataclasses.asdict(usage),
      dollars=None if self._price is None else self._price.dollars(usage),
      at_most=None,
    )

  def kept(self, cost: protocol.CacheCost) -> entries.Entry:
    """Returns the entry of what a context cache cost."""
    blank = entries.Entry(
      id=cost.name,
      stage="cache",
      sample_index=0,
      prompt_hash="",
      client=self._identity,
      params={},
      attempt=0,
      status="",
      time="",
    )
    return dataclasses.replace(self._billed(blank, cost.usage), status=entries.KEPT)

  def worst_price(self, request: protocol.Request) -> float:
    """Returns the dollars that an answer may cost; 0 where the price is not known."""
    if self._price is None:
      return 0.0
    schema = json.dumps(request.schema) if request.schema else ""
    texts = (request.system, request.prompt, schema)
    usage = protocol.Usage(
      prompt_tokens=sum(map(_most_tokens, texts)) + 1,
      response_tokens=request.params.max_output_tokens,
    )
    cached = dataclasses.replace(usage, cache_write_tokens=usage.prompt_tokens)
    return max(self._price.dollars(usage), self._price.dollars(cached))


def _most_tokens(text: str) -> int:
  """Returns how many tokens a text may have.

  A digit may be one; all else has at least two bytes a token in the prompts at hand,
  four as a rule.
  """
  size = len(text) if text.isascii() else len(text.encode())
  digits = sum(map(text.count, "0123456789"))
  return digits + (size - digits + 1) // 2
