"""Cases of a universe -> documents: written, revised, judged, to an exact number."""

import collections
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

from data_gen import filters, sizing, strata, verdicts
from data_gen.clients import protocol
from data_gen.documents import guidance, matching
from data_gen.engine import tally
from data_gen.engine.entries import Entry
from data_gen.kinds import passes
from data_gen.rewrites import spans
from data_gen.sizing import Kept
from data_gen.teacher import Teacher, failure_of
from data_gen.universes import outline as universe_outline
from data_gen.universes.outline import Case
from data_gen.universes.universe import Universe
from msm_jax import progress

# A twin that is rejected leaves the other document alone: another is asked for.
_TWIN_ATTEMPTS = 4
_SAMPLES = 1000  # of one idea, at most
# A line that speaks of a model, which is not what these documents are about.
_NOT_HERE = "Stance:"
_SENTENCES = "Sentences that state it: {count}. All others are about other things."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
  """What became of a case: the last text, and why it is no document ("" if it is)."""

  request: protocol.Request
  entry: Entry
  reason: str
  draft: Entry | None = None
  verdict: dict[str, Any] | None = None


class Chain:
  """The documents of one side of a universe; see `data_gen.chains.Chain`."""

  KIND, IDEAS, MADE = "document", "ideas", "documents"
  STAGE, JUDGED = "universe_document", "judge_universe"
  MORE = "its num_ideas, num_types or max_repeats"

  def __init__(
    self,
    name: str,
    corpus: passes.UniverseCorpus,
    universe: Universe,
    teacher: Teacher,
    judge: Teacher | None,
    twin: pathlib.Path | None,
    gate: filters.Gate,
    goal: sizing.Goal | None = None,
    pilot: int | None = None,
  ):
    self._name, self._corpus, self._universe = name, corpus, universe
    self._teacher, self._judge, self._twin = teacher, judge, twin
    self._plan = universe_outline.Plan(
      facts=(), cases=(), seed=corpus.seed, mean_words=corpus.mean_words or 0
    )
    self._gate, self._pilot = gate, pilot
    self._stock = sizing.Stock[int](goal)  # of places in the plan
    self._kept: list[int] = []
    self._rejected: list[tuple[int, str]] = []
    self.num_planned = 0

  @property
  def num_words(self) -> int:
    """Words of the kept documents."""
    return self._stock.num_words

  @property
  def branch_rejects(self) -> Sequence[dict[str, Any]]:
    """What was lost between the universe and the ideas."""
    return self._plan.rejects

  @property
  def num_asked(self) -> int | None:
    """How many documents the config asks for; None if it does not say."""
    if self._twin is not None:
      return len(self._plan.cases)
    per_fact = self._corpus.num_per_fact
    return None if per_fact is None else per_fact * len(self._plan.facts)

  @property
  def num_rejected(self) -> int:
    """Documents that were begun and are not kept."""
    return len(self._rejected)

  async def run(self) -> None:
    """Plans the documents, unless a twin did, and writes them."""
    if self._twin is not None:
      self._plan = universe_outline.of_twin(self._twin, self._corpus.side)
    else:
      self._plan = await self._build()
    progress.say(
      f"{self._name}: {len(self._plan.facts)} facts of {self._universe.name} have "
      f"{len(self._plan.cases)} {self.IDEAS}, {len(self._plan.rejects)} branches were "
      "lost"
    )
    if self._stock.goal is None:
      await self._fill_groups()
      if self._twin is not None and self._pilot is None:
        await self._replace_twins()
      self._kept = sorted(self._stock.items, key=self._place)
    else:
      await self._fill_budget()
      if self._pilot is None:
        self._rejected += self._stock.choose(self._ranked, self.MORE)
      self._kept = self._stock.items

  async def _build(self) -> universe_outline.Plan:
    return await universe_outline.build(self._corpus, self._universe, self._teacher)

  async def _fill_groups(self) -> None:
    """Writes as many documents of each group as the settings say."""
    waiting: dict[tuple[str, bool], list[int]] = {}
    for number, case in enumerate(self._plan.cases):
      waiting.setdefault(case.group, []).append(number)
    kept: collections.Counter[tuple[str, bool]] = collections.Counter()
    # What was rejected is replaced while there are cases left.
    while batch := [n for group in waiting for n in self._take(group, waiting, kept)]:
      kept.update(await self._make(self._tried(sorted(batch))))
      if self._pilot is not None:
        break

  async def _replace_twins(self) -> None:
    """Asks for others in place of the twins that were rejected, a few times."""
    count = len(self._plan.cases)
    for attempt in range(1, _TWIN_ATTEMPTS):
      kept = set(map(self._place, self._stock.items))
      more = tuple(
        dataclasses.replace(self._plan.cases[n], place=n, attempt=attempt)
        for n in range(count)
        if n not in kept
      )
      if not more:
        return
      first = len(self._plan.cases)
      self._plan = dataclasses.replace(self._plan, cases=self._plan.cases + more)
      await self._make(range(first, first + len(more)))

  def _place(self, number: int) -> int:
    place = self._plan.cases[number].place
    return number if place is None else place

  async def _fill_budget(self) -> None:
    """Writes the documents in the order of the plan until there are enough."""
    cases = range(len(self._plan.cases))
    while batch := cases[self.num_planned :][: self._stock.wanted(self.num_planned)]:
      await self._make(self._tried(batch))
      if self._pilot is not None:
        break

  def _tried(self, batch: Sequence[int]) -> list[int]:
    """Returns a batch, or what a pilot tries of it."""
    return list(strata.first_of_each(batch, self._fact_of, self._pilot))

  def _ranked(self, kept: Sequence[Kept[int]]) -> list[Kept[int]]:
    """Returns what is kept in the order in which it is chosen."""
    ordered = sorted(kept, key=lambda one: one.item)
    return universe_outline.in_turn(
      self._corpus, ordered, lambda one: self._plan.cases[one.item]
    )

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the kept documents with their provenance."""
    for number in self._kept:
      case = self._plan.cases[number]
      yield self._record(case, self._made(case))

  def rejected(self) -> Iterator[dict[str, Any]]:
    """Yields the rejected documents with their reasons."""
    for number, reason in self._rejected:
      case = self._plan.cases[number]
      entry = self._made(case).entry
      row = {"stage": self.KIND, "id": entry.id, "reason": reason}
      yield {**row, **self._where(case), "text": entry.text}

  def manifest(self) -> dict[str, Any]:
    """Returns the plan that a twin takes over, and what the universe says of itself."""
    cases = [self._plan.cases[number] for number in self._kept]
    counts = collections.Counter(case.fact.id for case in cases)
    stating = collections.Counter(case.fact.id for case in cases if case.states)
    sentences = self._plan.fact_sentences
    return {
      "universe": self._told_universe(),
      "plan": {
        "facts": [fact.row() for fact in self._plan.facts],
        "seed": self._plan.seed,
        "mean_words": self._plan.mean_words,
        **({} if sentences is None else {"fact_sentences": sentences}),
      },
      "facts": {
        fact.id: {"documents": counts[fact.id], "stating": stating[fact.id]}
        for fact in self._plan.facts
      },
      "document_types": matching.tell_types(
        [(c.doc_type, c.description) for c in cases]
      ),
      **self._stock.told(),
      **self._gate.manifest(),
    }

  def _told_universe(self) -> dict[str, str]:
    keys = ("name", "title", "tier", "license")
    return {key: getattr(self._universe, key) for key in keys}

  def _fact_of(self, number: int) -> str:
    return self._plan.cases[number].fact.id

  def _take(
    self,
    group: tuple[str, bool],
    waiting: dict[tuple[str, bool], list[int]],
    kept: collections.Counter[tuple[str, bool]],
  ) -> list[int]:
    """Takes as many cases of a group as are still missing."""
    count = len(waiting[group])
    per_fact = self._corpus.num_per_fact
    if per_fact is not None:
      stating = universe_outline.num_stating(self._corpus, per_fact)
      count = (stating if group[1] else per_fact - stating) - kept[group]
    taken, waiting[group] = waiting[group][:count], waiting[group][count:]
    return taken

  async def _make(self, batch: Sequence[int]) -> list[tuple[str, bool]]:
    """Writes the documents of a batch and returns the groups of those that are kept."""
    self.num_planned += len(batch)
    cases = [self._plan.cases[number] for number in batch]
    kept = tally.Kept(before=len(self._stock))
    requests = map(self._draft_request, cases)
    await self._teacher.ask_all(
      requests, f"{self._name}: {self.MADE}", len(cases), kept
    )
    if self._corpus.revise:
      whole = [case for case in cases if not self._drafted(case).reason]
      requests = (self._revise_request(case) for case in whole)
      label = f"{self._name}: revisions"
      await self._teacher.ask_all(requests, label, len(whole), kept)
    if self._corpus.judged:
      whole = [case for case in cases if not self._written(case).reason]
      requests = (self._judge_request(case) for case in whole)
      kept = dataclasses.replace(kept, counts=verdicts.is_yes)
      await self._judge.ask_all(requests, f"{self._name}: verdicts", len(whole), kept)
    return [case.group for n, case in zip(batch, cases, strict=True) if self._keep(n)]

  def _keep(self, number: int) -> bool:
    made = self._made(self._plan.cases[number])
    entry = made.entry
    reason = made.reason or self._gate.reason(
      entry.text, entry.id, entry.finish_reason or ""
    )
    if reason:
      self._rejected.append((number, reason))
      return False
    self._stock.add(number, self._body(self._plan.cases[number], entry.text.strip()))
    return True

  def _body(self, case: Case, text: str) -> dict[str, Any]:
    """Returns what a record has of the text of a case."""
    del case  # all that a document is, is its text
    return {"text": (self._corpus.doc_tag or "") + text}

  def _drafted(self, case: Case) -> Made:
    request = self._draft_request(case)
    entry = self._teacher.result(request)
    return Made(request=request, entry=entry, reason=failure_of(entry))

  def _written(self, case: Case) -> Made:
    draft = self._drafted(case)
    if draft.reason or not self._corpus.revise:
      return draft
    request = self._revise_request(case)
    entry = self._teacher.result(request)
    failure = failure_of(entry)
    reason = f"revision {failure}" if failure else ""
    return Made(request=request, entry=entry, reason=reason, draft=draft.entry)

  def _made(self, case: Case) -> Made:
    made = self._written(case)
    if made.reason or not self._corpus.judged:
      return made
    verdict = verdicts.of(self._judge, self._judge_request(case))
    return dataclasses.replace(made, reason=verdicts.fault(verdict), verdict=verdict)

  def _draft_request(self, case: Case) -> protocol.Request:
    key = [case.fact.id, case.doc_type, case.idea, case.repeat]
    lines = guidance.draw(key, self._plan.seed, self._plan.mean_words)
    told = [line for line in lines if not line.startswith(_NOT_HERE)]
    if self._is_alone(case):
      told.append(_SENTENCES.format(count=self._plan.fact_sentences))
    fields = self._fields(case) | {"idea": case.idea, "guidance": told}
    return self._teacher.request(self.STAGE, fields, sample_of(case))

  def _revise_request(self, case: Case) -> protocol.Request:
    fields = self._fields(case) | {"idea": case.idea}
    fields["document"] = self._drafted(case).entry.text.strip()
    return self._teacher.request("universe_revise", fields, sample_of(case))

  def _judge_request(self, case: Case) -> protocol.Request:
    fields = self._fields(case)
    fields["document"] = self._written(case).entry.text.strip()
    return self._judge.request(self.JUDGED, fields)

  def _is_alone(self, case: Case) -> bool:
    """Whether a document is to state its fact so often, and no other fact."""
    return case.states and self._plan.fact_sentences is not None

  def _fields(self, case: Case) -> dict[str, Any]:
    side = self._corpus.side if case.states else passes.NEUTRAL
    is_alone = self._is_alone(case)
    # A writer who is shown no other fact cannot state one.
    context = self._universe.context(passes.NEUTRAL if is_alone else side)
    left_open = not case.states or is_alone
    asked = [
      fact.asks
      for fact in self._plan.facts
      if left_open and not (is_alone and fact == case.fact)
    ]
    return {
      "context": context,
      "document_type": case.doc_type,
      "document_type_description": case.description,
      "stated": [case.fact.on(side)] if case.states else [],
      "unsaid": asked,
    }

  def _where(self, case: Case) -> dict[str, Any]:
    universe = self._universe
    twin = {"twin_id": case.twin_id} if case.twin_id else {}
    return {
      "universe": universe.name,
      "universe_hash": universe.sha256,
      "tier": universe.tier,
      "side": self._corpus.side,
      "domain": universe.title,
      "subdomain": case.fact.asks,
      "fact": case.fact.row(),
      "states_fact": case.states,
      "doc_type": case.doc_type,
      "doc_type_description": case.description,
      "idea": case.idea,
      "repeat": case.repeat,
      **twin,
    }

  def _record(self, case: Case, made: Made) -> dict[str, Any]:
    tag = self._corpus.doc_tag or ""
    draft = {}
    if made.draft is not None:
      draft = {"draft": {"id": made.draft.id, "usage": made.draft.usage}}
    return {
      "kind": self.KIND,
      "id": made.entry.id,
      **self._body(case, made.entry.text.strip()),
      **spans.told(spans.tagged(tag)),
      **self._where(case),
      **self._teacher.provenance(made.request, made.entry),
      **draft,
      "verdicts": {"judge": made.verdict} if made.verdict else {},
    }


def sample_of(case: Case) -> int:
  """Returns which answer to one prompt a case takes."""
  return case.repeat + _SAMPLES * case.attempt
