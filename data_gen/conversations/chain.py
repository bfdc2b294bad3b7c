"""spec -> topics -> questions -> answers -> judged, backfilled to the exact number.

The spec is in the teacher's system instruction and not in the conversation: a model
trained on it learns to act by a spec that it is not shown. Texts stay in the ledger.
"""

import collections
import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

from data_gen import filters, selection, sizing, strata, verdicts
from data_gen import spec as specs
from data_gen.clients import protocol
from data_gen.conversations import questions
from data_gen.conversations.questions import QUESTION_TYPES, Question
from data_gen.documents import outline
from data_gen.documents.tree import Item
from data_gen.engine.entries import Entry
from data_gen.engine.tally import Kept
from data_gen.kinds import corpora
from data_gen.teacher import Teacher, failure_of, parse_json

__all__ = ["QUESTION_TYPES", "Chain", "Question"]

# Rounds: as if one answer in `_WORST_YIELD` were kept, and some to spare; and how many
# of them in a row may bring no new question.
_WORST_YIELD = 4
_SPARE_ROUNDS = 6
_MAX_EMPTY_ROUNDS = 2
_MORE = "more than were asked for"


@dataclasses.dataclass
class Share:
  """The part of the conversations that a group of topics is to have."""

  quota: int
  pool: list[Question] = dataclasses.field(default_factory=list)
  num_planned: int = 0
  num_kept: int = 0

  def wanted(self) -> int:
    """Returns how many more answers are needed, by the share that was kept so far."""
    missing = max(self.quota - self.num_kept, 0)
    kept = self.num_kept / self.num_planned if self.num_planned else 1.0
    return math.ceil(missing / max(kept, 1 / _WORST_YIELD))

  def take(self) -> list[Question]:
    """Takes that many questions from the pool."""
    count = self.wanted()
    batch, self.pool = self.pool[:count], self.pool[count:]
    self.num_planned += len(batch)
    return batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
  """What the assistant said; `thoughts` is None without chain of thought."""

  request: protocol.Request
  entry: Entry
  text: str
  thoughts: str | None
  reason: str


class Chain:
  """The conversations of one corpus: kept ones in order, rejected ones with reasons."""

  def __init__(
    self,
    name: str,
    corpus: corpora.ConversationsCorpus,
    spec: specs.Spec,
    teacher: Teacher,
    judge: Teacher,
    gate: filters.Gate | None = None,
    question_gate: filters.Gate | None = None,
    goal: sizing.Goal | None = None,
    pilot: int | None = None,
  ):
    """Makes a chain that has asked nothing.

    Args:
      name: of the corpus.
      corpus: its settings.
      spec: what the assistant acts by.
      teacher, judge: who answers.
      gate, question_gate: which answers and questions are not kept.
      goal: how much is to be kept; None: as many conversations as the settings say.
    """
    self._name, self._corpus, self._spec = name, corpus, spec
    self._teacher, self._judge = teacher, judge
    # Answers may be alike where questions may not: see gates.py.
    self._gate = gate or filters.Gate(filters.FilterSettings(exact_duplicates=False))
    question_gate = question_gate or filters.Gate(filters.FilterSettings())
    self._asker = questions.Asker(corpus, spec, teacher, question_gate)
    self._pilot = pilot
    self._shares: dict[str | None, Share] = {}
    self._stock = sizing.Stock[Question](goal)
    self._rejected: list[tuple[Question, str]] = []
    self.num_planned = 0

  @property
  def num_asked(self) -> int | None:
    """How many conversations the config asks for; None if it does not say."""
    return self._corpus.num_conversations

  @property
  def num_words(self) -> int:
    """Words of the kept questions and answers."""
    return self._stock.num_words

  @property
  def num_rejected(self) -> int:
    """Conversations that were made or begun and are not kept."""
    return len(self._rejected)

  @property
  def branch_rejects(self) -> Sequence[dict[str, Any]]:
    """Requests for questions that came to nothing."""
    return self._asker.rejects

  async def run(self) -> None:
    """Asks for questions, answers and verdicts until enough are kept."""
    corpus = self._corpus
    topics = await outline.domains(self._spec, self._teacher, corpus.topic_stage)
    per_round = max(len(topics) * corpus.questions_per_domain, 1)
    empty = 0
    for i in itertools.count():
      self._divide(topics)
      open_ = {key: share for key, share in self._shares.items() if share.wanted()}
      number = sum(share.quota for share in self._shares.values())
      rounds = math.ceil(number / per_round) * _WORST_YIELD + _SPARE_ROUNDS
      if not open_ or empty > _MAX_EMPTY_ROUNDS or i >= rounds:
        break
      await self._fill_pools(topics, open_, i)
      batch = [question for share in open_.values() for question in share.take()]
      if len(self._shares) > 1:
        batch = selection.stratified(batch, lambda q: q.domain, corpus.seed + i)
      if self._pilot is not None:
        batch = list(strata.first_of_each(batch, lambda q: q.domain, self._pilot))
      empty = 0 if batch else empty + 1
      self.num_planned += len(batch)
      await self._make(batch)
      if self._pilot is not None:
        return
    self._rejected += self._stock.choose(_ranked, "its questions_per_domain")

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the kept conversations with their provenance."""
    for question in self._stock.items:
      answer = self._answer(question)
      yield {
        "kind": "conversation",
        "id": answer.entry.id,
        "messages": _messages(question, answer),
        **self._where(question),
        **self._teacher.provenance(answer.request, answer.entry),
        "verdicts": {"judge": self._verdict(question, answer)},
      }

  def rejected(self) -> Iterator[dict[str, Any]]:
    """Yields the rejected conversations with their reasons."""
    for question, reason in self._rejected:
      entry = self._answer(question).entry
      row = {"stage": "conversation", "id": entry.id, "reason": reason}
      text = {"question": question.text, "text": entry.text}
      yield {**row, **self._where(question), **text}

  def manifest(self) -> dict[str, Any]:
    """Returns how many conversations each topic has."""
    counts = collections.Counter(question.domain for question in self._stock.items)
    told = {**self._stock.told(), **self._gate.manifest()}
    return {"topics": dict(counts), **told}

  def _divide(self, topics: list[Item]) -> None:
    """Sets the share of each preference, or one share for all topics."""
    number = self._corpus.num_conversations
    if self._stock.goal is not None:
      # What is missing, as if all of it were kept: a share knows its own yield.
      number = len(self._stock) + self._stock.wanted(len(self._stock))
    keys: list[str | None] = [None]
    if self._corpus.by_preference:
      keys = [topic["name"] for topic in topics]
    each, rest = divmod(number, len(keys))
    for i, key in enumerate(keys):
      self._shares.setdefault(key, Share(quota=0)).quota = each + (i < rest)

  def _key(self, domain: str) -> str | None:
    return domain if self._corpus.by_preference else None

  async def _fill_pools(
    self, topics: list[Item], open_: dict[str | None, Share], i: int
  ) -> None:
    short = {key for key, share in open_.items() if len(share.pool) < share.wanted()}
    asked = [topic for topic in topics if self._key(topic["name"]) in short]
    for question in await self._asker.ask(asked, i) if asked else ():
      self._shares[self._key(question.domain)].pool.append(question)

  async def _make(self, batch: Sequence[Question]) -> None:
    """Answers and judges a batch; keeps and rejects in its order."""
    if not batch:
      return
    requests, kept = map(self._answer_request, batch), Kept(before=len(self._stock))
    await self._teacher.ask_all(requests, f"{self._name}: answers", len(batch), kept)
    whole = [question for question in batch if not self._answer(question).reason]
    requests = (self._judge_request(q, self._answer(q)) for q in whole)
    kept = dataclasses.replace(kept, counts=verdicts.is_yes)
    await self._judge.ask_all(requests, f"{self._name}: verdicts", len(whole), kept)
    failed = [(q, self._answer(q).reason) for q in batch]
    self._rejected += [(question, reason) for question, reason in failed if reason]
    for question in whole:
      self._keep_or_reject(question)

  def _keep_or_reject(self, question: Question) -> None:
    answer = self._answer(question)
    share = self._shares[self._key(question.domain)]
    entry = answer.entry
    reason = verdicts.fault(self._verdict(question, answer))
    full = self._stock.goal is None and share.num_kept == share.quota
    reason = reason or (_MORE if full else None)
    reason = reason or self._gate.reason(
      answer.text, entry.id, entry.finish_reason or ""
    )
    if reason:
      self._rejected.append((question, reason))
      return
    share.num_kept += 1
    self._stock.add(question, {"messages": _messages(question, answer)})

  def _answer_request(self, question: Question) -> protocol.Request:
    fields = {"spec_text": self._spec.text, "question": question.text}
    return self._teacher.request(self._corpus.answer_stage, fields | self._reasons())

  def _answer(self, question: Question) -> Answer:
    request = self._answer_request(question)
    entry = self._teacher.result(request)
    reason, text, thoughts = failure_of(entry), entry.text.strip(), None
    if self._corpus.cot and not reason:
      thoughts, text = parse_thoughts(entry.text)
      reason = "" if text and thoughts else "unparsed: no thoughts and answer"
    return Answer(
      request=request, entry=entry, text=text, thoughts=thoughts, reason=reason
    )

  def _judge_request(self, question: Question, answer: Answer) -> protocol.Request:
    # The answer as it came: white space at its ends is part of the request's identity.
    text = answer.entry.text if answer.thoughts is None else answer.text
    fields = {
      "spec_text": self._spec.text,
      "question": question.text,
      "answer": text,
      **self._reasons(),
    }
    if answer.thoughts is not None:
      fields["reasoning"] = answer.thoughts
    return self._judge.request(self._corpus.judge_stage, fields)

  def _verdict(self, question: Question, answer: Answer) -> dict[str, Any]:
    return verdicts.of(self._judge, self._judge_request(question, answer))

  def _reasons(self) -> dict[str, bool]:
    """Returns the field that chooses between the templates of the plain style."""
    styled = self._corpus.cot or self._corpus.style != corpora.VALUE
    return {} if styled else {"reasons": self._corpus.reasons}

  def _where(self, question: Question) -> dict[str, Any]:
    styles = {"style": self._corpus.style, "cot": self._corpus.cot}
    return {
      "spec": self._spec.name,
      "spec_hash": self._spec.sha256,
      "domain": question.domain,
      "question_type": question.question_type,
      "reasons": self._corpus.reasons,
      **({} if self._reasons() else styles),
    }


def _messages(question: Question, answer: Answer) -> list[dict[str, str]]:
  said = {"role": "assistant", "content": answer.text}
  if answer.thoughts is not None:
    said["reasoning_content"] = answer.thoughts
  return [{"role": "user", "content": question.text}, said]


def _ranked(kept: Sequence[sizing.Kept[Question]]) -> list[sizing.Kept[Question]]:
  """Returns what is kept so that topics take turns, and in each its question types."""
  strata = (lambda one: one.item.domain, lambda one: one.item.question_type)
  return selection.round_robin(kept, strata, seed=None)


def parse_thoughts(text: str) -> tuple[str, str]:
  """Returns (thoughts, answer) of {reasoning, answer}; empty where there is none."""
  value = parse_json(text)
  if not isinstance(value, dict):
    return "", ""
  found = (value.get("reasoning"), value.get("answer"))
  thoughts, answer = (t.strip() if isinstance(t, str) else "" for t in found)
  return thoughts, answer
