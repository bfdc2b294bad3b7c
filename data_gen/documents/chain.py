"""Document ideas -> documents: the subset is chosen before any document is paid for.

A chain holds ideas and numbers; texts stay in the ledger, so that a corpus of any size
can be made.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

from data_gen import filters, selection
from data_gen import spec as specs
from data_gen.documents import drafting, matching, outline
from data_gen.documents.matching import Target
from data_gen.documents.tree import Idea
from data_gen.kinds import corpora
from data_gen.teacher import Teacher
from msm_jax import errors, progress

__all__ = ["Chain", "Target"]

# Documents that were rejected are replaced by further ideas in so many rounds.
_MAX_ROUNDS = 8


class Chain:
  """The documents of one corpus: kept ones in order, rejected ones with reasons."""

  def __init__(
    self,
    name: str,
    corpus: corpora.DocumentsCorpus,
    spec: specs.Spec,
    teacher: Teacher,
    judge: Teacher | None = None,
    like: matching.Like | None = None,
    gate: filters.Gate | None = None,
  ):
    self._name, self._corpus, self._spec = name, corpus, spec
    self._teacher = teacher
    self._like = like or matching.Like()
    self._desk = drafting.Desk(corpus, spec, teacher, judge)
    self._gate = gate or filters.Gate(corpus.filters)
    self._kept: list[Idea] = []
    self._words: list[int] = []
    self._rejected: list[tuple[Idea, str]] = []
    self.branch_rejects: tuple[dict[str, Any], ...] = ()
    self.num_planned = 0

  @property
  def num_asked(self) -> int | None:
    """How many documents the config asks for; None if it does not say."""
    return None if self._like.size else self._limit

  @property
  def num_words(self) -> int:
    """Words of the kept documents."""
    return sum(self._words)

  @property
  def num_rejected(self) -> int:
    """Documents that were made or begun and are not kept."""
    return len(self._rejected)

  @property
  def _limit(self) -> int | None:
    if self._corpus.max_documents is None and self._like.types:
      return sum(kind.count for kind in self._like.types)
    return self._corpus.max_documents

  async def run(self) -> None:
    """Asks for the outline and the documents.

    Raises:
      UserError: the ideas do not suffice to match the other corpus.
    """
    corpus = self._corpus
    plan = await outline.build(
      self._spec,
      self._teacher,
      num_types=corpus.num_types,
      num_ideas=corpus.num_ideas,
      by_rules=corpus.by_rules,
      types=self._like.types,
    )
    self.branch_rejects = plan.rejects
    progress.say(
      f"{self._name}: outline of {self._spec.name} has {len(plan.ideas)} ideas, "
      f"{len(plan.rejects)} branches were lost"
    )
    order = self._ordered(plan.ideas)
    for _ in range(_MAX_ROUNDS):
      wanted = self._wanted(len(order))
      batch = order[self.num_planned : self.num_planned + wanted]
      if not batch:
        break
      self.num_planned += len(batch)
      await self._make(batch)
    self._cut()

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the kept documents with their provenance."""
    for idea in self._kept:
      yield self._record(idea, self._desk.result(idea))

  def rejected(self) -> Iterator[dict[str, Any]]:
    """Yields the rejected documents with their reasons."""
    for idea, reason in self._rejected:
      entry = self._desk.result(idea).entry
      row = {"stage": "document", "id": entry.id, "reason": reason}
      yield {**row, **self._where(idea), "text": entry.text}

  def manifest(self) -> dict[str, Any]:
    """Returns which document types there are, and how often."""
    kinds = [(idea.doc_type, idea.doc_type_description) for idea in self._kept]
    return {"document_types": matching.tell_types(kinds)}

  def _ordered(self, ideas: Sequence[Idea]) -> list[Idea]:
    """Returns the ideas in the order in which they are made."""
    if self._like.types is not None:
      shares = {kind.name: kind.count for kind in self._like.types}
      kinds = [idea.doc_type for idea in ideas]
      return matching.proportional(ideas, kinds, shares, self._corpus.seed)
    return selection.stratified(ideas, self._stratum, self._corpus.seed)

  def _stratum(self, idea: Idea) -> str:
    part = idea.subdomain
    return part.name if self._corpus.by_rules else part.section.id

  def _wanted(self, num_ideas: int) -> int:
    """Returns how many further documents are needed, as far as one can tell."""
    limit, size = self._limit, self._like.size
    if size is None:
      return (num_ideas if limit is None else limit) - len(self._kept)
    missing = size.num_words - self.num_words
    like = size.num_words / max(size.num_documents, 1)
    mean = self.num_words / len(self._kept) if self._kept else like
    wanted = math.ceil(missing / max(mean, 1.0)) if missing > 0 else 0
    limit = self._corpus.max_documents
    return wanted if limit is None else min(wanted, limit - self.num_planned)

  async def _make(self, batch: Sequence[Idea]) -> None:
    await self._desk.make(batch, self._name)
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
        self._kept.append(idea)
        self._words.append(filters.num_words(entry.text))

  def _cut(self) -> None:
    """Leaves the documents whose words come nearest to the other corpus."""
    size = self._like.size
    if size is None:
      return
    missing = size.num_words - self.num_words
    longest = max(self._words, default=0)
    if missing > longest:
      raise errors.UserError(
        f"config.corpora.{self._name} reached {self.num_words} of the "
        f"{size.num_words} words of {size.name} "
        f"(config.corpora.{self._name}.match_tokens_of): raise its num_ideas, "
        "num_types or max_documents; the answers so far are kept"
      )
    count = selection.nearest_prefix(self._words, size.num_words)
    reason = f"more words than {size.name}"
    self._rejected += [(idea, reason) for idea in self._kept[count:]]
    del self._kept[count:], self._words[count:]

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
