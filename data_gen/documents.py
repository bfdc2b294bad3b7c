"""Document ideas -> documents: the subset is chosen before any document is paid for."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from data_gen import filters, outline, selection, settings
from data_gen import spec as specs
from data_gen.clients import protocol
from data_gen.teacher import Teacher, failure_of
from msm_jax import errors, progress

# Documents that were rejected are replaced by further ideas in so many rounds.
_MAX_ROUNDS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
  """The size of the corpus `name`, which another one is cut to."""

  name: str
  num_documents: int
  num_words: int


class Chain:
  """The documents of one corpus: kept ones in order, rejected ones with reasons."""

  def __init__(
    self,
    name: str,
    corpus: settings.DocumentsCorpus,
    spec: specs.Spec,
    teacher: Teacher,
    target: Target | None = None,
  ):
    self._name, self._corpus, self._spec = name, corpus, spec
    self._teacher, self._target = teacher, target
    self._duplicates = filters.Duplicates()
    self._kept: list[outline.Idea] = []
    self._words: list[int] = []
    self.rejects: list[dict[str, Any]] = []
    self.branch_rejects: tuple[dict[str, Any], ...] = ()
    self.num_planned = 0

  @property
  def num_asked(self) -> int | None:
    """How many documents the config asks for; None if it does not say."""
    return None if self._target else self._corpus.max_documents

  @property
  def num_words(self) -> int:
    """Words of the kept documents."""
    return sum(self._words)

  async def run(self) -> None:
    """Asks for the outline and the documents.

    Raises:
      UserError: the ideas do not suffice to match the other corpus.
    """
    corpus = self._corpus
    plan = await outline.build(
      self._spec, self._teacher, num_types=corpus.num_types, num_ideas=corpus.num_ideas
    )
    self.branch_rejects = plan.rejects
    progress.say(
      f"{self._name}: outline of {self._spec.name} has {len(plan.ideas)} ideas, "
      f"{len(plan.rejects)} branches were lost"
    )
    order = selection.stratified(
      plan.ideas, lambda idea: idea.subdomain.section.id, corpus.seed
    )
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
      request = self._request(idea)
      yield self._record(idea, request)

  def _wanted(self, num_ideas: int) -> int:
    """Returns how many further documents are needed, as far as one can tell."""
    limit = self._corpus.max_documents
    if self._target is None:
      return (num_ideas if limit is None else limit) - len(self._kept)
    missing = self._target.num_words - self.num_words
    like = self._target.num_words / max(self._target.num_documents, 1)
    mean = self.num_words / len(self._kept) if self._kept else like
    wanted = math.ceil(missing / max(mean, 1.0)) if missing > 0 else 0
    return wanted if limit is None else min(wanted, limit - self.num_planned)

  async def _make(self, batch: Sequence[outline.Idea]) -> None:
    requests = map(self._request, batch)
    await self._teacher.ask_all(requests, f"{self._name}: documents", len(batch))
    # In the order of the plan, whatever order the answers came in.
    for idea in batch:
      request = self._request(idea)
      entry = self._teacher.result(request)
      reason = failure_of(entry)
      if not reason:
        first = self._duplicates.first_of(entry.text, entry.id)
        reason = f"duplicate of {first}" if first else ""
      if reason:
        self._reject(idea, entry.id, reason, entry.text)
      else:
        self._kept.append(idea)
        self._words.append(filters.num_words(entry.text))

  def _request(self, idea: outline.Idea) -> protocol.Request:
    part = idea.subdomain
    fields = {
      "spec_text": self._spec.text,
      "domain": part.domain,
      "subdomain": part.name,
      "assertions": part.assertions,
      "document_type": idea.doc_type,
      "document_type_description": idea.doc_type_description,
      "idea": idea.text,
    }
    return self._teacher.request("document", fields)

  def _cut(self) -> None:
    """Leaves the documents whose words come nearest to the other corpus."""
    if self._target is None:
      return
    missing = self._target.num_words - self.num_words
    longest = max(self._words, default=0)
    if missing > longest:
      raise errors.UserError(
        f"config.corpora.{self._name} reached {self.num_words} of the "
        f"{self._target.num_words} words of {self._target.name} "
        f"(config.corpora.{self._name}.match_tokens_of): raise its num_ideas, "
        "num_types or max_documents; the answers so far are kept"
      )
    count = selection.nearest_prefix(self._words, self._target.num_words)
    for idea in self._kept[count:]:
      entry = self._teacher.result(self._request(idea))
      self._reject(idea, entry.id, f"more words than {self._target.name}", entry.text)
    del self._kept[count:], self._words[count:]

  def _reject(self, idea: outline.Idea, identity: str, reason: str, text: str) -> None:
    row = {"stage": "document", "id": identity, "reason": reason}
    self.rejects.append({**row, **self._where(idea), "text": text})

  def _where(self, idea: outline.Idea) -> dict[str, Any]:
    part = idea.subdomain
    return {
      "spec": self._spec.name,
      "spec_hash": self._spec.sha256,
      "spec_section": part.section.id,
      "domain": part.domain,
      "subdomain": part.name,
      "assertion": "; ".join(item["name"] for item in part.assertions),
      "doc_type": idea.doc_type,
      "idea": idea.text,
    }

  def _record(self, idea: outline.Idea, request: protocol.Request) -> dict[str, Any]:
    entry = self._teacher.result(request)
    return {
      "kind": "document",
      "id": entry.id,
      "text": entry.text.strip(),
      **self._where(idea),
      **self._teacher.provenance(request, entry),
      "verdicts": {},
    }
