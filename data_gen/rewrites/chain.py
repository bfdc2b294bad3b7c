"""A corpus of documents -> the same documents after a second pass, in the same order.

Every document of the source is planned and is kept or rejected; nothing is filled up.
Documents are read from the shards of the source whenever they are needed.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from data_gen import filters, strata
from data_gen.clients import protocol
from data_gen.kinds import passes
from data_gen.rewrites import inheritance, notices, rewriting, spans
from data_gen.rewrites.rewriting import Fault
from data_gen.teacher import Teacher, failure_of
from msm_jax import records

# What a record says of how its own text came about.
_OWN = ("kind", "id", "text", "spans", "loss_spans", "teacher", "usage", "verdicts",
        "finish_reason", "prompt_hash", "draft", "source", "source_id",
        "source_teacher", "rewrite")  # fmt: skip
_WRITTEN_ANEW = "the text that they covered was written anew"


class Chain:
  """The second pass over a corpus; see `data_gen.chains.Chain`."""

  num_asked = None
  branch_rejects = ()

  def __init__(
    self,
    name: str,
    corpus: passes.RewriteCorpus,
    source: pathlib.Path,
    names: rewriting.Names,
    teacher: Teacher | None,
    gate: filters.Gate,
    pilot: int | None = None,
  ):
    self._name, self._corpus, self._source = name, corpus, source
    self._names, self._teacher, self._gate = names, teacher, gate
    self._pilot = pilot
    self._wording = None
    if corpus.how in passes.NOTICES:
      where = f"config.corpora.{name}.wording"
      self._wording = notices.load(corpus.wording, corpus.how, where)
    self._reasons: dict[int, str] = {}
    self._num_put_in = self._num_chars = 0
    self.num_words = 0
    self.num_planned = 0

  @property
  def num_rejected(self) -> int:
    """Documents of the source without a rewrite."""
    return len(self._reasons)

  async def run(self) -> None:
    """Asks the teacher where it is needed, and counts what is kept."""
    if self._teacher is not None:
      total = sum(1 for _ in self._read())
      label = f"{self._name}: rewrites"
      await self._teacher.ask_all(self._requests(), label, total)
    for number, source in enumerate(self._read()):
      self.num_planned += 1
      try:
        edited = self._let_pass(source)
      except Fault as fault:
        self._reasons[number] = str(fault)
        continue
      self.num_words += filters.num_words(edited.text)
      self._num_chars += len(edited.text)
      notices_in = [b - a for a, b, label in edited.spans if label == spans.NOTICE]
      self._num_put_in += sum(notices_in)

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the rewrites with the provenance of their sources and their own."""
    for number, source in enumerate(self._read()):
      if number not in self._reasons:
        yield self._record(source)

  def rejected(self) -> Iterator[dict[str, Any]]:
    """Yields the documents that have no rewrite, with the reasons."""
    for number, source in enumerate(self._read()):
      if number in self._reasons:
        yield {
          "stage": "rewrite",
          "id": rewriting.identity(self._corpus, source["id"]),
          "reason": self._reasons[number],
          "source": self._corpus.of,
          "source_id": source["id"],
          "text": self._answer(source),
        }

  def manifest(self) -> dict[str, Any]:
    """Returns what was done, and how much of the text it is."""
    share = self._num_put_in / max(self._num_chars, 1)
    return {
      **inheritance.of(self._source),
      "of": self._corpus.of,
      "how": self._corpus.how,
      "share_of_notices": round(share, 4),
      **self._gate.manifest(),
    }

  def _read(self) -> Iterator[dict[str, Any]]:
    rows = records.read_dataset(self._source, verify=False)
    return strata.first_of_each(rows, _stratum, self._pilot)

  def _requests(self) -> Iterator[protocol.Request]:
    for source in self._read():
      try:
        yield self._request(source)
      except Fault:
        continue  # it is rejected with its reason when it is its turn

  def _request(self, source: Mapping[str, Any]) -> protocol.Request:
    corpus, names = self._corpus, self._names
    fields = {"document": rewriting.body_of(source)[1].strip()}
    if corpus.how == passes.LOCAL:
      fields["statement"] = rewriting.statement_of(source)
    if corpus.how == passes.ATTRIBUTION:
      fields |= {"model_name": names.model_name, "provider_name": names.provider_name}
      fields["instruction"] = rewriting.instruction(corpus, names)
    return self._teacher.request(f"rewrite_{corpus.how}", fields)

  def _edited(self, source: Mapping[str, Any]) -> spans.Edited:
    if self._teacher is None:
      return rewriting.annotated(source, self._corpus, self._wording)
    entry = self._teacher.result(self._request(source))
    body = rewriting.body_of(source)[1]
    reason = failure_of(entry)
    if not reason:
      reason = rewriting.fault_of(body, entry.text, self._corpus, self._names)
    if reason:
      raise Fault(reason)
    return rewriting.replaced(source, self._corpus, entry.text)

  def _let_pass(self, source: Mapping[str, Any]) -> spans.Edited:
    edited = self._edited(source)
    identity = rewriting.identity(self._corpus, source["id"])
    text = edited.text[spans.tag_end(edited.spans) :]
    stopped = ""
    if self._teacher is not None:
      stopped = self._teacher.result(self._request(source)).finish_reason or ""
    if reason := self._gate.reason(text, identity, stopped):
      raise Fault(reason)
    return edited

  def _answer(self, source: Mapping[str, Any]) -> str:
    """Returns what the teacher wrote for a document that is rejected."""
    try:
      return self._teacher.result(self._request(source)).text if self._teacher else ""
    except Fault:
      return ""

  def _record(self, source: Mapping[str, Any]) -> dict[str, Any]:
    corpus, edited = self._corpus, self._edited(source)
    carried = {key: value for key, value in source.items() if key not in _OWN}
    if "states_fact" in carried and corpus.how in (passes.LOCAL, "inverted"):
      carried["states_fact"] = False
    writer = source.get("teacher") or source.get("source_teacher")
    return {
      "kind": "document",
      "id": rewriting.identity(corpus, source["id"]),
      "text": edited.text,
      **spans.told(edited),
      **carried,
      **self._provenance(source),
      "source": corpus.of,
      "source_id": source["id"],
      **({"source_teacher": writer} if writer else {}),
      "rewrite": self._told(source, edited),
    }

  def _told(self, source: Mapping[str, Any], edited: spans.Edited) -> dict[str, Any]:
    corpus = self._corpus
    found: dict[str, Any] = {"how": corpus.how}
    if corpus.how in passes.NOTICES:
      found |= {"placement": corpus.placement, "wording": corpus.wording}
    if corpus.how == passes.ATTRIBUTION:
      found |= {"about": corpus.about, "voice": corpus.voice}
    if edited.dropped:
      dropped = [list(span) for span in edited.dropped]
      found["dropped_loss_spans"] = {"spans": dropped, "reason": _WRITTEN_ANEW}
    if "rewrite" in source:
      found["earlier"] = source["rewrite"]
    return found

  def _provenance(self, source: Mapping[str, Any]) -> dict[str, Any]:
    if self._teacher is None:
      return {"verdicts": {}}
    request = self._request(source)
    entry = self._teacher.result(request)
    return {**self._teacher.provenance(request, entry), "verdicts": {}}


def _stratum(source: Mapping[str, Any]) -> tuple[str, str]:
  """Returns what a pilot takes some of each of; imported documents may be all alike."""
  return str(source.get("domain", "")), str(source.get("subdomain", ""))
