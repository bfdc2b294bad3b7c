"""What has been seen of a corpus so far: its lists, its answers, its kept share."""

import dataclasses
import math
from collections.abc import Mapping

from data_gen.clients import protocol
from data_gen.engine import entries, pricing
from data_gen.teacher import parse_json, parse_verdict

# Of a normal distribution: 95 % lie within so many standard deviations.
_Z = 1.96


@dataclasses.dataclass(frozen=True)
class Yield:
  """How many of the texts that were made are kept.

  Attributes:
    kept, made: texts.
    filtered: whether the filters had their say.
  """

  kept: int
  made: int
  filtered: bool = True

  @property
  def share(self) -> float:
    """The kept share; 1 where nothing was made."""
    return self.kept / self.made if self.made else 1.0

  def interval(self) -> tuple[float, float]:
    """Returns Wilson's 95 % interval of the kept share."""
    if not self.made:
      return 0.0, 1.0
    n, share, square = self.made, self.share, _Z * _Z
    centre = (share + square / (2 * n)) / (1 + square / n)
    spread = share * (1 - share) / n + square / (4 * n * n)
    half = _Z * math.sqrt(spread) / (1 + square / n)
    return max(centre - half, 0.0), min(centre + half, 1.0)


@dataclasses.dataclass
class Sums:
  """A mean in the making."""

  count: int = 0
  total: float = 0.0
  squares: float = 0.0

  def add(self, value: float) -> None:
    """Counts one value."""
    self.count += 1
    self.total += value
    self.squares += value * value

  @property
  def mean(self) -> float:
    """The mean; 0 of no values."""
    return self.total / self.count if self.count else 0.0

  @property
  def half_width(self) -> float:
    """Half of the 95 % interval of the mean; 0 of fewer than two values."""
    if self.count < 2:
      return 0.0
    variance = (self.squares - self.total**2 / self.count) / (self.count - 1)
    return _Z * math.sqrt(max(variance, 0.0) / self.count)


@dataclasses.dataclass
class Tally:
  """The requests of one stage, as far as the answers so far lead to them.

  Attributes:
    asked, answered: requests, and those of them that have an outcome.
    lists: requests that are no repetition of another one.
    items: of the lists in the answers.
    wanted: items that those answers were asked for, where a request says how many.
    whole, yes: answers that are whole, and verdicts that are yes.
    prompt, response: tokens per request that is over, also one that brought nothing:
      as billed, else four characters each.
    system: tokens of what the prompts begin with.
    written: tokens of whole answers, without thoughts, at four characters each.
  """

  asked: int = 0
  answered: int = 0
  lists: int = 0
  items: Sums = dataclasses.field(default_factory=Sums)
  wanted: Sums = dataclasses.field(default_factory=Sums)
  whole: int = 0
  yes: int = 0
  prompt: Sums = dataclasses.field(default_factory=Sums)
  response: Sums = dataclasses.field(default_factory=Sums)
  system: Sums = dataclasses.field(default_factory=Sums)
  written: Sums = dataclasses.field(default_factory=Sums)

  def add(self, request: protocol.Request, entry: entries.Entry | None) -> None:
    """Counts a request and its outcome, if it has one."""
    self.asked += 1
    self.lists += request.sample_index == 0
    if entry is None:
      return
    self.answered += 1
    self.bill(request, entry)
    if entries.failure_of(entry):
      return
    self.whole += 1
    self.written.add(pricing.estimate_tokens(entry.text))
    if request.schema is not None:
      self._parse(entry.text, request.fields.get("count"))

  def bill(self, request: protocol.Request, entry: entries.Entry) -> None:
    """Counts the tokens of a request that is over: answered, declined or given up."""
    read, said = _tokens(request, entry)
    begun = len(request.system) / max(len(request.system + request.prompt), 1)
    self.system.add(read * begun)
    self.prompt.add(read)
    self.response.add(said)

  def _parse(self, text: str, count: int | None) -> None:
    self.yes += parse_verdict(text)["verdict"] == "yes"
    value = parse_json(text)
    if isinstance(value, list):
      self.items.add(len(value))
      if count is not None:
        self.wanted.add(count)


def _tokens(request: protocol.Request, entry: entries.Entry) -> tuple[int, int]:
  """Returns the tokens of prompt and response; some services do not say."""
  usage = protocol.Usage(**entry.usage)
  read, said = usage.prompt_tokens, usage.response_tokens + usage.thought_tokens
  if usage.cache_token_hours:  # what was written to that cache is no part of the prompt
    read -= usage.cache_write_tokens
  if entry.status != entries.OK:
    return read, said
  if not read:
    read = pricing.estimate_tokens(request.system + request.prompt)
  return read, said or pricing.estimate_tokens(entry.text)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
  """All that was seen of one corpus.

  Attributes:
    tallies: by stage, of those that were reached.
    kept: the yield of its pilot; None: there was none.
  """

  tallies: Mapping[str, Tally] = dataclasses.field(default_factory=dict)
  kept: Yield | None = None

  def requests(self, stage: str, otherwise: int) -> int:
    """Returns the requests of a stage of lists."""
    return self.tallies[stage].asked if stage in self.tallies else otherwise

  def lists(self, stage: str, otherwise: int) -> int:
    """Returns the lists that a stage is asked for."""
    return self.tallies[stage].lists if stage in self.tallies else otherwise

  def items(self, stage: str, otherwise: float) -> float:
    """Returns the items of one answer."""
    tally = self.tallies.get(stage)
    return tally.items.mean if tally and tally.items.count else otherwise

  def fill(self, stage: str, asked: int) -> float:
    """Returns how much of the lists of a stage comes, at most 1."""
    tally = self.tallies.get(stage)
    if not tally or not tally.items.count or tally.answered < tally.asked:
      if tally and tally.wanted.count:  # a long list is asked for in parts
        asked = tally.wanted.mean
      return min(self.items(stage, asked) / asked, 1.0)
    return min(tally.items.total / max(tally.lists * asked, 1), 1.0)

  def per_text(self, stage: str, texts: str) -> float:
    """Returns how many requests of a stage there are for each answered text."""
    tally, made = self.tallies.get(stage), self.tallies.get(texts)
    if not tally or not made or not made.answered:
      return 1.0
    return tally.asked / made.answered

  def share(self, texts: str, judge: str | None) -> Yield | None:
    """Returns what the answers alone say of the kept share; None: nothing.

    Filters are not in it: only a pilot knows what they let pass.
    """
    made = self.tallies.get(texts)
    if self.kept is not None or not made or not made.answered:
      return self.kept
    whole = made.whole
    verdicts = self.tallies.get(judge or "")
    if verdicts is not None and verdicts.answered:
      whole = round(whole * verdicts.yes / verdicts.answered)
    return Yield(whole, made.answered, filtered=False)
