"""spec -> domains -> questions -> answers -> judged, backfilled to the exact number.

The spec is in the teacher's system instruction and not in the conversation: a model
trained on it learns to act by a spec that it is not shown.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

from data_gen import filters, outline, selection, settings
from data_gen import spec as specs
from data_gen.clients import protocol
from data_gen.teacher import Teacher, failure_of, parse_texts, parse_verdict

QUESTION_TYPES = {
  "direct": "asks the assistant straight for its own view",
  "indirect": "tells of a situation in which the assistant's view matters",
  "comparison": "puts two things side by side and asks which it would rather have",
  "recommendation": "asks what it would suggest to somebody",
  "opinion": "states a view and asks whether the assistant shares it",
  "edge case": "an unusual or difficult case in which the view is put to the test",
}
# Rounds: as if one answer in `_WORST_YIELD` were kept, and some to spare; and how many
# of them in a row may bring no new question.
_WORST_YIELD = 4
_SPARE_ROUNDS = 6
_MAX_EMPTY_ROUNDS = 2
_MAX_EXISTING = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """One user turn."""

  domain: str
  question_type: str
  text: str


class Chain:
  """The conversations of one corpus: kept ones in order, rejected ones with reasons."""

  def __init__(
    self,
    name: str,
    corpus: settings.ConversationsCorpus,
    spec: specs.Spec,
    teacher: Teacher,
    judge: Teacher,
  ):
    self._name, self._corpus, self._spec = name, corpus, spec
    self._teacher, self._judge = teacher, judge
    self._asked: list[Question] = []
    self._duplicates = filters.Duplicates()
    self._kept: list[Question] = []
    self.rejects: list[dict[str, Any]] = []
    self.branch_rejects: list[dict[str, Any]] = []
    self.num_planned = 0

  @property
  def num_asked(self) -> int:
    """How many conversations the config asks for."""
    return self._corpus.num_conversations

  @property
  def num_words(self) -> int:
    """Words of the kept user and assistant turns."""
    contents = (m["content"] for r in self.records() for m in r["messages"])
    return sum(map(filters.num_words, contents))

  async def run(self) -> None:
    """Asks for questions, answers and verdicts until enough are kept."""
    corpus = self._corpus
    topics = await outline.domains(self._spec, self._teacher)
    per_round = max(len(topics) * corpus.questions_per_domain, 1)
    rounds = math.ceil(corpus.num_conversations / per_round) * _WORST_YIELD
    pool: list[Question] = []
    empty = 0
    for i in range(rounds + _SPARE_ROUNDS):
      wanted = self._wanted()
      if not wanted or empty > _MAX_EMPTY_ROUNDS:
        break
      if len(pool) < wanted:
        pool += await self._questions(topics, i)
      batch, pool = pool[:wanted], pool[wanted:]
      empty = 0 if batch else empty + 1
      self.num_planned += len(batch)
      await self._make(batch)

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the kept conversations with their provenance."""
    for question in self._kept:
      request = self._answer_request(question)
      entry = self._teacher.result(request)
      verdict = self._verdict(question, entry.text)
      yield {
        "kind": "conversation",
        "id": entry.id,
        "messages": [
          {"role": "user", "content": question.text},
          {"role": "assistant", "content": entry.text.strip()},
        ],
        **self._where(question),
        **self._teacher.provenance(request, entry),
        "verdicts": {"judge": verdict},
      }

  def _wanted(self) -> int:
    """Returns how many more answers are needed, by the share that was kept so far."""
    missing = self._corpus.num_conversations - len(self._kept)
    share = len(self._kept) / self.num_planned if self.num_planned else 1.0
    return math.ceil(missing / max(share, 1 / _WORST_YIELD))

  async def _questions(self, topics: list[outline.Item], i: int) -> list[Question]:
    """Returns the new questions of one round, spread over domains and types."""
    wanted = [
      (topic["name"], kind, count)
      for topic in topics
      for kind, count in self._counts().items()
    ]
    fields = [self._question_fields(*one) for one in wanted]
    answers = await self._teacher.ask_parsed("questions", fields, parse_texts, 10 * i)
    fresh = []
    for (domain, kind, count), (texts, reason) in zip(wanted, answers, strict=True):
      where = {"domain": domain, "question_type": kind}
      if texts is None:
        self.branch_rejects.append({"stage": "questions", **where, "reason": reason})
      for text in (texts or [])[:count]:
        fresh += self._new_question(Question(text=text, **where))
    self._asked += fresh
    return selection.stratified(
      fresh, lambda q: (q.domain, q.question_type), self._corpus.seed + i
    )

  def _new_question(self, question: Question) -> list[Question]:
    key = str(len(self._asked))
    first = self._duplicates.first_of(question.text, f"{key} {question}")
    return [] if first else [question]

  def _counts(self) -> dict[str, int]:
    """Returns how many questions of each type one domain is asked for."""
    each, rest = divmod(self._corpus.questions_per_domain, len(QUESTION_TYPES))
    counts = {kind: each + (i < rest) for i, kind in enumerate(QUESTION_TYPES)}
    return {kind: count for kind, count in counts.items() if count}

  def _question_fields(self, domain: str, kind: str, count: int) -> dict[str, Any]:
    existing = [question.text for question in self._asked if question.domain == domain]
    return {
      "spec_text": self._spec.text,
      "domain": domain,
      "question_type": kind,
      "question_type_description": QUESTION_TYPES[kind],
      "count": count,
      "existing": existing[-_MAX_EXISTING:],
    }

  async def _make(self, batch: Sequence[Question]) -> None:
    """Answers and judges a batch; keeps and rejects in its order."""
    if not batch:
      return
    requests = map(self._answer_request, batch)
    await self._teacher.ask_all(requests, f"{self._name}: answers", len(batch))
    whole = []
    for question in batch:
      entry = self._teacher.result(self._answer_request(question))
      if reason := failure_of(entry):
        self._reject(question, entry.id, reason, entry.text)
      else:
        whole.append((question, entry.id))
    requests = (self._judge_request(question) for question, _ in whole)
    await self._judge.ask_all(requests, f"{self._name}: verdicts", len(whole))
    for question, identity in whole:
      text = self._teacher.result(self._answer_request(question)).text
      verdict = self._verdict(question, text)
      full = len(self._kept) == self._corpus.num_conversations
      if verdict["verdict"] == "yes" and not full:
        self._kept.append(question)
      else:
        reason = f"judge: {verdict['verdict']}: {verdict['reason']}"
        reason = "more than were asked for" if verdict["verdict"] == "yes" else reason
        self._reject(question, identity, reason, text)

  def _answer_request(self, question: Question) -> protocol.Request:
    fields = {
      "spec_text": self._spec.text,
      "question": question.text,
      "reasons": self._corpus.reasons,
    }
    return self._teacher.request("answer", fields)

  def _judge_request(self, question: Question, text: str | None = None) -> Any:
    if text is None:
      text = self._teacher.result(self._answer_request(question)).text
    fields = {
      "spec_text": self._spec.text,
      "question": question.text,
      "answer": text,
      "reasons": self._corpus.reasons,
    }
    return self._judge.request("judge", fields)

  def _verdict(self, question: Question, text: str) -> dict[str, Any]:
    request = self._judge_request(question, text)
    entry = self._judge.result(request)
    failure = failure_of(entry)
    if failure:
      verdict = {"verdict": "unparsed", "reason": failure}
    else:
      verdict = parse_verdict(entry.text)
    return {
      **verdict,
      "client": self._judge.client.client,
      "model": self._judge.client.model,
      "model_version": entry.model_version,
      "prompt_hash": request.prompt_hash,
    }

  def _where(self, question: Question) -> dict[str, Any]:
    return {
      "spec": self._spec.name,
      "spec_hash": self._spec.sha256,
      "domain": question.domain,
      "question_type": question.question_type,
      "reasons": self._corpus.reasons,
    }

  def _reject(self, question: Question, identity: str, reason: str, text: str) -> None:
    row = {"stage": "conversation", "id": identity, "reason": reason}
    where = self._where(question)
    self.rejects.append({**row, **where, "question": question.text, "text": text})
