"""The plan of generation as lines of text for people."""

import dataclasses
import os
import pathlib
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from data_gen import settings
from data_gen.engine import entries, pricing
from data_gen.planning import calls, grading, tariffs
from data_gen.planning.estimates import CorpusCost, StageCost

_HEAD = ("requests", "answered", "tokens in", "tokens out", "dollars")
_NOT_KNOWN = "-"
_WIDTH = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
  """What corpora and graders cost: what is still to be paid, and what was spent.

  Attributes:
    corpora: of each corpus.
    graders: of each evaluation and analysis that asks one.
    spent: on graders, so far.
  """

  corpora: Sequence[CorpusCost]
  graders: Sequence[CorpusCost]
  spent: entries.Totals

  def dollars(self) -> float | None:
    """Returns what is still to be paid; None where a price is not known."""
    both = [*self.corpora, *self.graders]
    return _sum(cost.dollars for cost in both if not cost.done)

  def dollars_spent(self) -> float:
    """Returns what was paid so far, lost answers at their most."""
    found = [self.spent, *(cost.spent for cost in self.corpora)]
    return float(sum(totals.spent + totals.unknown_at_most for totals in found))


def whole(
  job: settings.Job,
  workdir: str | os.PathLike[str],
  corpora: Mapping[str, CorpusCost],
  asked: Sequence[grading.Asked] = (),
) -> Whole:
  """Returns what a study costs at its teacher and graders; writes nothing.

  Args:
    job: what to make.
    workdir: of the study.
    corpora: as `estimates.plan` has them.
    asked: what graders will be asked.
  """
  place = pathlib.Path(workdir)
  return Whole(
    corpora=list(corpora.values()),
    graders=grading.costs(job, place, asked),
    spent=grading.spent(place),
  )


def lines(job: settings.Job, costs: Whole) -> Iterator[str]:
  """Yields for people what a study costs at its teacher and graders."""
  for line in _lines(job, costs.corpora, costs.graders, costs.spent):
    if len(line) <= _WIDTH or line.startswith("  "):
      yield line
    else:
      yield from textwrap.wrap(line, _WIDTH, subsequent_indent="    ")


def _lines(
  job: settings.Job,
  costs: Sequence[CorpusCost],
  graders: Sequence[CorpusCost],
  spent: entries.Totals,
) -> Iterator[str]:
  if job.pilot is not None:
    yield f"plan of a pilot: {job.pilot} of each subdomain, preference or key fact"
  both = [*costs, *graders]
  for cost in both:
    yield from _corpus(job, cost)
  yield from _study(job, [cost for cost in both if not cost.done])
  yield from _spent(job, both, spent)
  yield from _prices(job, both)
  for some, assumed in ((costs, calls.ASSUMPTIONS), (graders, grading.ASSUMPTIONS)):
    if any(not stage.measured for cost in some for stage in cost.stages):
      of = "" if some is costs else " of evaluations"
      yield f"assuming{of}, where nothing is measured: {'; '.join(assumed)}"
  yield from _cache_terms(job, both)


def money(amount: float | None) -> str:
  """Returns dollars for people; '-' where they are not known."""
  if amount is None:
    return _NOT_KNOWN
  if amount >= 0.1 or not amount:
    return f"${amount:.2f}"
  return f"${amount:.4f}" if amount >= 0.001 else f"${amount:.6f}"


def _corpus(job: settings.Job, cost: CorpusCost) -> Iterator[str]:
  number = f", {cost.num_records:,} records" if cost.num_records else ""
  head = f"{cost.what} {cost.name}: {cost.kind}{number}"
  if cost.done:
    yield f"{head}, done{_paid(cost.spent)}"
    return
  note = f"{cost.note}; " if cost.note else ""
  if not cost.stages:
    yield f"{head} ({note}nobody is asked, $0.00)"
    return
  yield f"{head}{_kept(cost)}{_paid(cost.spent)}"
  yield f"  {'stage':<22}" + "".join(f"{name:>12}" for name in _HEAD)
  for stage in cost.stages:
    yield _row(stage.stage, stage) + _measured(stage)
  yield _row("total", cost, sum(stage.answered for stage in cost.stages))
  yield from _tiers(job, cost.tiers, _clients(job, [cost]))
  if cost.low is not None and cost.requests:
    yield f"  still to be asked, 95 % interval: {_interval(cost)}"


def _row(name: str, counts: StageCost | CorpusCost, answered: int | None = None) -> str:
  if answered is None:
    answered = counts.answered
  numbers = (counts.requests, answered, counts.prompt_tokens, counts.response_tokens)
  figures = "".join(f"{number:>12,}" for number in numbers)
  return f"  {name:<22}{figures}{money(counts.dollars):>12}"


def _measured(stage: StageCost) -> str:
  if not stage.measured:
    return ""
  of = f" of {stage.measured_on}" if stage.measured_on else ""
  return f"  measured on {stage.measured:,} answers{of}"


def _kept(cost: CorpusCost) -> str:
  if cost.kept is None:
    return ""
  low, high = cost.kept.interval()
  of = f" of {cost.kept_on}" if cost.kept_on else ""
  filters = "" if cost.kept.filtered else ", before filters"
  return (
    f"; kept: {cost.kept.share:.0%} (measured on {cost.kept.made:,}{of}{filters}, 95 % "
    f"interval {low:.0%} to {high:.0%})"
  )


def _paid(totals: entries.Totals) -> str:
  if not totals.spent and not totals.unknown_at_most:
    return ""
  more = f" and at most {money(totals.unknown_at_most)} unknown"
  return f"; spent so far: {money(totals.spent)}" + more * bool(totals.unknown_at_most)


def _interval(cost: CorpusCost) -> str:
  tokens = f"{cost.low.tokens:,} to {cost.high.tokens:,} tokens"
  if not cost.high.dollars:
    return tokens
  return f"{money(cost.low.dollars)} to {money(cost.high.dollars)}, {tokens}"


def _clients(job: settings.Job, costs: Sequence[CorpusCost]) -> tariffs.Clients:
  """Returns those who are asked for some corpora, by their roles."""
  roles = sorted({stage.role for cost in costs for stage in cost.stages}, reverse=True)
  return {role: getattr(job, role) for role in roles}


def _cell(clients: tariffs.Clients) -> tariffs.Cell | None:
  """Returns (tier, cache) of the config; None where its clients differ in them."""
  paid = [client for client in clients.values() if client.client != "offline"]
  found = {(client.tier, client.cache) for client in paid}
  return found.pop() if len(found) == 1 else None


def _tiers(
  job: settings.Job,
  prices: Mapping[tariffs.Cell, float | None],
  clients: tariffs.Clients,
) -> Iterator[str]:
  """Yields the table of what is still to be paid; the config's own price has a star."""
  if all(client.client == "offline" for client in clients.values()):
    return
  own = _cell(clients)
  yield f"  {'still to pay':<22}" + "".join(f"{tier:>12}" for tier in tariffs.TIERS)
  for cache in tariffs.CACHES:
    row = f"  {'  cache ' + cache:<22}"
    for tier in tariffs.TIERS:
      star = "*" * ((tier, cache) == own)
      row += f"{star + money(prices[tier, cache]):>12}"
    yield row


def _study(job: settings.Job, costs: Sequence[CorpusCost]) -> Iterator[str]:
  """Yields the table over all corpora, and which price is the lowest."""
  asked = [cost for cost in costs if cost.stages]
  if not asked:
    yield "generation: nobody is asked any more, $0.00"
    return
  clients = _clients(job, asked)
  whole = "generation and grading"
  if all(cost.what == "corpus" for cost in costs):
    whole = "generation"
  yield (
    f"{whole}: {sum(cost.requests for cost in costs):,} requests, "
    f"{sum(cost.prompt_tokens for cost in costs):,} tokens in, "
    f"{sum(cost.response_tokens for cost in costs):,} tokens out still to be asked"
  )
  prices = {cell: _sum(cost.tiers[cell] for cost in asked) for cell in _cells()}
  yield from _tiers(job, prices, clients)
  total = _sum(cost.dollars for cost in asked)
  star = "* " if _cell(clients) in prices else ""
  yield f"  {star}as the config has it ({_config(clients)}): {money(total)}"
  lowest = min((price for price in prices.values() if price is not None), default=0)
  cheapest = [_told(cell) for cell, price in prices.items() if price == lowest]
  if total and lowest < total:
    yield f"  cheapest: {' or '.join(cheapest)}: {money(lowest)}"


def _cells() -> list[tariffs.Cell]:
  return [(tier, cache) for tier in tariffs.TIERS for cache in tariffs.CACHES]


def _sum(amounts) -> float | None:
  found = list(amounts)
  return None if None in found else float(sum(found))


def _told(cell: tariffs.Cell) -> str:
  return f"tier='{cell[0]}' cache='{cell[1]}'"


def _config(clients: tariffs.Clients) -> str:
  if (own := _cell(clients)) is not None:
    return _told(own)
  told = [
    f"config.{role}: {_told((client.tier, client.cache))}"
    for role, client in clients.items()
    if client.client != "offline"
  ]
  return "; ".join(told) or "offline"


def _spent(
  job: settings.Job, costs: Sequence[CorpusCost], graders: entries.Totals
) -> Iterator[str]:
  found = [graders, *(cost.spent for cost in costs)]
  spent = sum(totals.spent for totals in found)
  unknown = sum(totals.unknown_at_most for totals in found)
  lost = sum(totals.lost_answers for totals in found)
  more = f", at most {money(unknown)} more for {lost} lost answers" if unknown else ""
  yield f"spent so far: {money(spent)}{more}"
  if job.max_dollars is None:
    return
  left = [cost.dollars for cost in costs if not cost.done]
  budget = f"config.budget.max_dollars={job.max_dollars:g}"
  if None in left:
    yield f"budget: {budget}"
    return
  total = spent + unknown + sum(left)
  verdict = "is enough for" if total <= job.max_dollars else "IS NOT ENOUGH for"
  yield f"budget: {budget} {verdict} {money(total)}, spent and still to pay"


def _prices(job: settings.Job, costs: Sequence[CorpusCost]) -> Iterator[str]:
  """Yields where the prices come from, for each model."""
  clients = _clients(job, costs)
  told: dict[str, list[str]] = {}
  for role, client in clients.items():
    if client.client != "offline":
      told.setdefault(_price(client), []).append(f"config.{role}")
  for price, roles in told.items():
    yield f"prices: {' and '.join(roles)}: {price}"


def _price(client: settings.ClientSettings) -> str:
  standard = tariffs.variant(client, tariffs.TIERS[0], tariffs.OFF)
  price = pricing.price_of(standard or client)
  if price is None:
    return (
      f"{client.model}: not known (table of {pricing.PRICES_AS_OF}), tokens only; set "
      "`prices` to have dollars"
    )
  source = f"as of {pricing.PRICES_AS_OF}; the config's `prices` stand above them"
  if client.prices is not None:
    source = "from the config's `prices`"
  found = f"${price.prompt:g} in, ${price.cached:g} cached, ${price.response:g} out"
  if price.storage is not None:
    found += f", ${price.storage:g} per hour of cache storage"
  elif client.client == "gemini":
    found += ", cache storage not known"
  return f"{client.model}: {found} per million tokens, standard tier ({source})"


def _cache_terms(job: settings.Job, costs: Sequence[CorpusCost]) -> Iterator[str]:
  """Yields what the prices with a cache rest on, where there are any."""
  explicit = [
    price
    for cost in costs
    for (_, cache), price in cost.tiers.items()
    if cache == tariffs.EXPLICIT
  ]
  clients = _clients(job, costs).values()
  sizes = [tariffs.least(client) for client in clients if client.client != "offline"]
  if not sizes or not any(explicit):
    return
  yield (
    "cache explicit: what all prompts of a stage begin with, from "
    f"{max(sizes):,} tokens on, is written once and kept while the corpus is made, "
    f"{tariffs.SECONDS_OTHERWISE:g} s per answer (flex: "
    f"{tariffs.SECONDS['flex']:g} s)"
  )
