"""What goes into the ledger for one attempt, and what it may cost at most."""

import dataclasses

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
    """Returns the entry of an attempt that was answered."""
    return dataclasses.replace(
      self._billed(blank, response.usage),
      status=entries.OK,
      text=response.text,
      finish_reason=response.finish_reason,
      model_version=response.model_version,
    )

  def failed(self, blank: entries.Entry, error: protocol.ClientError) -> entries.Entry:
    """Returns the entry of an attempt without an answer."""
    return dataclasses.replace(
      self._billed(blank, error.usage),
      status=error.kind,
      error=str(error),
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

  def worst_price(self, request: protocol.Request) -> float:
    """Returns the dollars that an answer may cost; 0 where the price is not known."""
    if self._price is None:
      return 0.0
    # A token has at least two bytes in the prompts at hand, four as a rule.
    size = _num_bytes(request.system) + _num_bytes(request.prompt)
    usage = protocol.Usage(
      prompt_tokens=size // 2 + 1, response_tokens=request.params.max_output_tokens
    )
    cached = dataclasses.replace(usage, cache_write_tokens=usage.prompt_tokens)
    return max(self._price.dollars(usage), self._price.dollars(cached))


def _num_bytes(text: str) -> int:
  return len(text) if text.isascii() else len(text.encode())
