"""One document: draft, critique, revision, verdict, each an answer in the ledger.

Nothing is held but the requests in flight: what a document has become is read from the
ledger whenever it is asked for.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from data_gen import spec as specs
from data_gen import verdicts
from data_gen.clients import protocol
from data_gen.documents import guidance
from data_gen.documents.tree import Idea
from data_gen.engine.entries import Entry
from data_gen.engine.tally import Kept
from data_gen.kinds import corpora
from data_gen.teacher import Teacher, failure_of, parse_json

# A critique that cannot be parsed is asked for again, as another sample.
_CRITIQUE_ATTEMPTS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
  """What became of an idea.

  Attributes:
    request, entry: the last text that was written for it.
    reason: why it is no document; "" if it is one.
    draft: the draft's entry, if the text is a revision of it.
    notes: what critique and judge said.
  """

  request: protocol.Request
  entry: Entry
  reason: str
  draft: Entry | None = None
  notes: dict[str, Any] = dataclasses.field(default_factory=dict)


class Desk:
  """Makes the documents of one corpus from their ideas."""

  def __init__(
    self,
    corpus: corpora.DocumentsCorpus,
    spec: specs.Spec,
    teacher: Teacher,
    judge: Teacher | None,
  ):
    self._corpus, self._spec = corpus, spec
    self._teacher, self._judge = teacher, judge

  async def make(self, ideas: Sequence[Idea], name: str, num_kept: int = 0) -> None:
    """Asks all that the documents of `ideas` need.

    Args:
      ideas: to be written.
      name: of the corpus, for the progress bar.
      num_kept: documents that it has already.
    """
    requests, kept = map(self._draft_request, ideas), Kept(before=num_kept)
    await self._teacher.ask_all(requests, f"{name}: documents", len(ideas), kept)
    if self._corpus.revise:
      await self._revise(ideas, name, num_kept)
    if self._corpus.judged:
      whole = [idea for idea in ideas if not self._written(idea).reason]
      requests = (self._judge_request(i, self._written(i).entry.text) for i in whole)
      kept = Kept(before=num_kept, counts=verdicts.is_yes)
      await self._judge.ask_all(requests, f"{name}: verdicts", len(whole), kept)

  async def _revise(self, ideas: Sequence[Idea], name: str, num_kept: int) -> None:
    whole = [idea for idea in ideas if not self._drafted(idea).reason]
    await self._criticise(whole, name, num_kept + len(whole))
    pairs = ((idea, self._revision_of(idea)) for idea in whole)
    faulty = [idea for idea, request in pairs if request is not None]
    requests = map(self._revision_of, faulty)
    kept = Kept(before=num_kept + len(whole) - len(faulty))
    await self._teacher.ask_all(requests, f"{name}: revisions", len(faulty), kept)

  def result(self, idea: Idea) -> Made:
    """Returns what became of an idea that was made."""
    made = self._written(idea)
    if made.reason or not self._corpus.judged:
      return made
    verdict = verdicts.of(self._judge, self._judge_request(idea, made.entry.text))
    return dataclasses.replace(
      made, reason=verdicts.fault(verdict), notes={**made.notes, "judge": verdict}
    )

  def _drafted(self, idea: Idea) -> Made:
    request = self._draft_request(idea)
    entry = self._teacher.result(request)
    return Made(request=request, entry=entry, reason=failure_of(entry))

  def _written(self, idea: Idea) -> Made:
    draft = self._drafted(idea)
    if draft.reason or not self._corpus.revise:
      return draft
    notes = self._critique(idea, draft.entry.text)
    request = self._revise_request(idea, draft.entry.text, notes)
    if request is None:
      return dataclasses.replace(draft, notes=notes)
    entry = self._teacher.result(request)
    failure = failure_of(entry)
    return Made(
      request=request,
      entry=entry,
      reason=f"revision {failure}" if failure else "",
      draft=draft.entry,
      notes=notes,
    )

  async def _criticise(self, ideas: Sequence[Idea], name: str, num_kept: int) -> None:
    open_ = list(ideas) if self._corpus.critique else []
    kept = Kept(before=num_kept, counts=lambda entry: False)
    for attempt in range(_CRITIQUE_ATTEMPTS if open_ else 0):
      requests = (self._critique_request(i, self._draft(i), attempt) for i in open_)
      await self._teacher.ask_all(requests, f"{name}: critiques", len(open_), kept)
      open_ = [i for i in open_ if self._is_unparsed(i, attempt)]
      if not open_:
        return

  def _is_unparsed(self, idea: Idea, attempt: int) -> bool:
    return "unparsed" in self._critique(idea, self._draft(idea), attempt)["critique"]

  def _draft(self, idea: Idea) -> str:
    return self._drafted(idea).entry.text

  def _critique(
    self, idea: Idea, draft: str, last: int = _CRITIQUE_ATTEMPTS - 1
  ) -> dict[str, Any]:
    """Returns {critique: {faults}} as they were named, or {critique: {unparsed}}."""
    if not self._corpus.critique:
      return {}
    for attempt in range(last + 1):
      request = self._critique_request(idea, draft, attempt)
      entry = self._teacher.result(request)
      faults = None if failure_of(entry) else _faults(entry.text)
      if faults is not None:
        return {"critique": {"faults": faults}}
    return {"critique": {"unparsed": failure_of(entry) or "no list of faults"}}

  def _revision_of(self, idea: Idea) -> protocol.Request | None:
    draft = self._draft(idea)
    return self._revise_request(idea, draft, self._critique(idea, draft))

  def _revise_request(
    self, idea: Idea, draft: str, notes: dict[str, Any]
  ) -> protocol.Request | None:
    """Returns the request for a revision, None if the draft stays.

    Without critique every draft is revised, else those with faults. A draft whose
    critique came to nothing stays, and its record says so.
    """
    faults = notes.get("critique", {}).get("faults", [])
    if notes and not faults:
      return None
    fields = self._text_fields(idea, draft) | {"faults": faults}
    return self._teacher.request("revise", fields)

  def _draft_request(self, idea: Idea) -> protocol.Request:
    fields = {
      "spec_text": self._spec.text,
      **idea.subdomain.fields(),
      **_type_fields(idea),
    }
    if self._corpus.draft_stage == "document":
      return self._teacher.request("document", fields)
    key = [*idea.subdomain.where().values(), idea.doc_type, idea.text]
    lines = guidance.draw(key, self._corpus.seed, self._corpus.mean_words)
    fields |= self._names() | {"guidance": lines}
    return self._teacher.request(self._corpus.draft_stage, fields)

  def _critique_request(self, idea: Idea, draft: str, attempt: int) -> protocol.Request:
    fields = self._text_fields(idea, draft)
    return self._teacher.request(self._corpus.critique_stage, fields, attempt)

  def _judge_request(self, idea: Idea, text: str) -> protocol.Request:
    fields = self._text_fields(idea, text)
    del fields["idea"]
    return self._judge.request(self._corpus.judge_stage, fields)

  def _text_fields(self, idea: Idea, text: str) -> dict[str, Any]:
    spec = {"spec_text": self._spec.text, **self._names()}
    return {**spec, **_type_fields(idea), "document": text.strip()}

  def _names(self) -> dict[str, str]:
    spec = self._spec
    return {"model_name": spec.model_name, "provider_name": spec.provider_name}


def _faults(text: str) -> list[str] | None:
  """Returns the faults that a critique names; None if it is no list of texts."""
  value = parse_json(text)
  faults = value.get("faults") if isinstance(value, dict) else None
  if not isinstance(faults, list) or not all(isinstance(f, str) for f in faults):
    return None
  return [fault.strip() for fault in faults if fault.strip()]


def _type_fields(idea: Idea) -> dict[str, str]:
  return {
    "document_type": idea.doc_type,
    "document_type_description": idea.doc_type_description,
    "idea": idea.text,
  }
