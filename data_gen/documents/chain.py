"""Document ideas -> documents: the subset is chosen before any document is paid for.

A chain holds ideas and numbers; texts stay in the ledger, so that a corpus of any size
can be made.
"""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

from data_gen import filters, selection, sizing, strata
from data_gen import spec as specs
from data_gen.documents import coverage, drafting, matching, outline
from data_gen.documents.tree import Idea
from data_gen.kinds import corpora
from data_gen.sizing import Kept
from data_gen.teacher import Teacher
from msm_jax import progress

_MORE = "its num_ideas, num_types or max_documents"
# Every beginning of a corpus is spread evenly over these, from the outer to the inner.
_LEVELS = (
  lambda idea: idea.subdomain.section.id,
  lambda idea: idea.subdomain.name,
  lambda idea: idea.doc_type,
)


class Chain:
  """The documents of one corpus: kept ones in order, rejected ones with reasons."""

  def __init__(
    self,
    name: str,
    corpus: corpora.DocumentsCorpus,
    spec: specs.Spec,
    teacher: Teacher,
    judge: Teacher | None = None,
    gate: filters.Gate | None = None,
    goal: sizing.Goal | None = None,
    types: Sequence[matching.TypeShare] | None = None,
    min_section_share: float | None = None,
    pilot: int | None = None,
  ):
    """Makes a chain that has asked nothing.

    Args:
      name: of the corpus.
      corpus: its settings.
      spec: what the documents discuss.
      teacher, judge: who answers; a judge if the corpus is judged.
      gate: what else is not kept.
      goal: how much is to be kept; None: as many documents as the settings say.
      types: document types that are taken over from another corpus.
    """
    self._name, self._corpus, self._spec = name, corpus, spec
    self._teacher, self._types = teacher, types
    self._desk = drafting.Desk(corpus, spec, teacher, judge)
    self._gate = gate or filters.Gate(corpus.filters)
    self._stock = sizing.Stock[Idea](goal)
    self._pilot = pilot
    self._min_share = min_section_share
    self._rejected: list[tuple[Idea, str]] = []
    self.branch_rejects: tuple[dict[str, Any], ...] = ()
    self.num_planned = 0

  @property
  def num_asked(self) -> int | None:
    """How many documents the config asks for; None if it does not say."""
    return None if self._stock.goal else self._limit

  @property
  def num_words(self) -> int:
    """Words of the kept documents."""
    return self._stock.num_words

  @property
  def num_rejected(self) -> int:
    """Documents that were made or begun and are not kept."""
    return len(self._rejected)

  @property
  def _limit(self) -> int | None:
    if self._corpus.max_documents is None and self._types:
      return sum(kind.count for kind in self._types)
    return self._corpus.max_documents

  async def run(self) -> None:
    """Asks for the outline and the documents.

    Raises:
      UserError: the ideas do not suffice to match the other corpus, or to give every
        section its share.
    """
    corpus = self._corpus
    coverage.check_threshold(self._name, self._spec, self._min_share)
    plan = await outline.build(
      self._spec,
      self._teacher,
      num_types=corpus.num_types,
      num_ideas=corpus.num_ideas,
      by_rules=corpus.by_rules,
      types=self._types,
    )
    self.branch_rejects = plan.rejects
    progress.say(
      f"{self._name}: outline of {self._spec.name} has {len(plan.ideas)} ideas, "
      f"{len(plan.rejects)} branches were lost"
    )
    number = None if self._stock.goal else self._limit or len(plan.ideas)
    coverage.check(self._name, self._spec, plan, self._min_share, number)
    order = self._ordered(plan.ideas)
    if self._pilot is not None:
      return await self._try(order)
    # What was rejected is replaced while ideas are left.
    while batch := self._next(order):
      self.num_planned += len(batch)
      await self._make(batch)
    self._rejected += self._stock.choose(self._ranked, _MORE)
    return None

  async def _try(self, order: Sequence[Idea]) -> None:
    """Makes the first documents of each subdomain, in the order of the whole."""
    batch = list(strata.first_of_each(self._next(order), _subdomain, self._pilot))
    self.num_planned = len(batch)
    await self._make(batch)

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the kept documents with their provenance."""
    for idea in self._stock.items:
      yield self._record(idea, self._desk.result(idea))

  def rejected(self) -> Iterator[dict[str, Any]]:
    """Yields the rejected documents with their reasons."""
    for idea, reason in self._rejected:
      entry = self._desk.result(idea).entry
      row = {"stage": "document", "id": entry.id, "reason": reason}
      yield {**row, **self._where(idea), "text": entry.text}

  def manifest(self) -> dict[str, Any]:
    """Returns which document types there are, and how often."""
    kinds = [(idea.doc_type, idea.doc_type_description) for idea in self._stock.items]
    told = {**self._stock.told(), **self._gate.manifest()}
    return {"document_types": matching.tell_types(kinds), **told}

  def _ordered(self, ideas: Sequence[Idea]) -> list[Idea]:
    """Returns the ideas in the order in which they are made."""
    seed = self._corpus.seed
    if self._types is None:
      return selection.round_robin(ideas, _LEVELS, seed)
    # The shares of the types are given; inside each, sections and parts take turns.
    turns = selection.round_robin(ideas, _LEVELS[:-1], seed)
    return self._in_shares(turns, [idea.doc_type for idea in turns])

  def _ranked(self, kept: Sequence[Kept[Idea]]) -> list[Kept[Idea]]:
    """Returns what is kept in the order in which it is chosen.

    The order in which it was made, without what was rejected: turns are taken anew.
    """
    if self._types is not None:
      return self._in_shares(kept, [one.item.doc_type for one in kept])
    levels = [lambda one, level=level: level(one.item) for level in _LEVELS]
    return selection.round_robin(kept, levels, seed=None)

  def _in_shares(self, items: Sequence[Any], kinds: Sequence[Hashable]) -> list[Any]:
    shares = {kind.name: kind.count for kind in self._types}
    return matching.proportional(items, kinds, shares, self._corpus.seed)

  def _next(self, order: Sequence[Idea]) -> Sequence[Idea]:
    """Returns the ideas that are to be made next, as far as one can tell."""
    limit = self._limit
    if self._stock.goal is None:
      wanted = (len(order) if limit is None else limit) - len(self._stock)
    else:
      wanted, limit = self._stock.wanted(self.num_planned), self._corpus.max_documents
      wanted = wanted if limit is None else min(wanted, limit - self.num_planned)
    return order[self.num_planned :][: max(wanted, 0)]

  async def _make(self, batch: Sequence[Idea]) -> None:
    await self._desk.make(batch, self._name, len(self._stock))
    # In the order of the plan, whatever order the answers came in.
    for idea in batch:
      made = self._desk.result(idea)
      entry = made.entry
      reason = made.reason or self._gate.reason(
        entry.text, entry.id, entry.finish_reason or ""
      )
      if reason:
        self._rejected.append((idea, reason))
      else:
        self._stock.add(idea, {"text": entry.text.strip()})

  def _where(self, idea: Idea) -> dict[str, Any]:
    part = idea.subdomain
    rule = {"rule": part.rule["id"]} if part.rule else {}
    return {
      "spec": self._spec.name,
      "spec_hash": self._spec.sha256,
      **part.where(),
      **rule,
      "assertion": "; ".join(item["name"] for item in part.assertions),
      "doc_type": idea.doc_type,
      "idea": idea.text,
    }

  def _record(self, idea: Idea, made: drafting.Made) -> dict[str, Any]:
    draft = {}
    if made.draft is not None:
      draft = {"draft": {"id": made.draft.id, "usage": made.draft.usage}}
    return {
      "kind": "document",
      "id": made.entry.id,
      "text": made.entry.text.strip(),
      **self._where(idea),
      **self._teacher.provenance(made.request, made.entry),
      **draft,
      "verdicts": made.notes,
    }


def _subdomain(idea: Idea) -> tuple[str, ...]:
  return tuple(idea.subdomain.where().values())
