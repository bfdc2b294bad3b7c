"""What people say to the assistant: user turns, spread over topics and types."""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

from data_gen import filters, selection
from data_gen import spec as specs
from data_gen.documents.tree import Item
from data_gen.kinds import corpora
from data_gen.teacher import Teacher, parse_texts

QUESTION_TYPES = {
  "direct": "asks the assistant straight for its own view",
  "indirect": "tells of a situation in which the assistant's view matters",
  "comparison": "puts two things side by side and asks which it would rather have",
  "recommendation": "asks what it would suggest to somebody",
  "opinion": "states a view and asks whether the assistant shares it",
  "edge case": "an unusual or difficult case in which the view is put to the test",
}
_MAX_EXISTING = 100
# A topic and type that was refused, or came to nothing, in so many rounds is given up.
_MAX_REFUSALS = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """One user turn."""

  domain: str
  question_type: str
  text: str


class Asker:
  """Asks the teacher for user turns, round by round, and never for the same again."""

  def __init__(
    self,
    corpus: corpora.ConversationsCorpus,
    spec: specs.Spec,
    teacher: Teacher,
    gate: filters.Gate,
  ):
    self._corpus, self._spec, self._teacher = corpus, spec, teacher
    self._asked: list[Question] = []
    self._gate = gate
    self._num_seen = 0
    self._refusals: collections.Counter[tuple[str, str]] = collections.Counter()
    self.rejects: list[dict[str, Any]] = []

  async def ask(self, topics: Sequence[Item], round_: int) -> list[Question]:
    """Returns the new questions of one round, in a drawn order."""
    wanted = [
      (topic, kind, count)
      for topic in topics
      for kind, count in self._counts().items()
      if self._refusals[topic["name"], kind] < _MAX_REFUSALS
    ]
    fields = [self._fields(*one) for one in wanted]
    stage = self._corpus.question_stage
    answers = await self._teacher.ask_parsed(stage, fields, parse_texts, 10 * round_)
    fresh = []
    for (topic, kind, count), (texts, reason) in zip(wanted, answers, strict=True):
      where = {"domain": topic["name"], "question_type": kind}
      if texts is None:
        self._refuse(where, reason)
      for text in (texts or [])[:count]:
        fresh += self._if_new(Question(text=text, **where))
    self._asked += fresh
    return selection.stratified(
      fresh, lambda q: (q.domain, q.question_type), self._corpus.seed + round_
    )

  def _refuse(self, where: dict[str, str], reason: str) -> None:
    place = tuple(where.values())
    self._refusals[place] += 1
    if self._refusals[place] == _MAX_REFUSALS:
      reason += "; not asked again"
    self.rejects.append({"stage": "questions", **where, "reason": reason})

  def _if_new(self, question: Question) -> list[Question]:
    """Returns the question if nobody asked it, and nothing speaks against it."""
    self._num_seen += 1
    name = f"question {self._num_seen}"
    reason = self._gate.reason(question.text, name)
    if reason is None:
      return [question]
    row = {"stage": "questions", "name": name, **dataclasses.asdict(question)}
    self.rejects.append({**row, "reason": reason})
    return []

  def _counts(self) -> dict[str, int]:
    """Returns how many questions of each type one topic is asked for."""
    each, rest = divmod(self._corpus.questions_per_domain, len(QUESTION_TYPES))
    counts = {kind: each + (i < rest) for i, kind in enumerate(QUESTION_TYPES)}
    return {kind: count for kind, count in counts.items() if count}

  def _fields(self, topic: Item, kind: str, count: int) -> dict[str, Any]:
    domain = topic["name"]
    existing = [question.text for question in self._asked if question.domain == domain]
    fields = {
      "spec_text": self._spec.text,
      "domain": domain,
      "question_type": kind,
      "question_type_description": QUESTION_TYPES[kind],
      "count": count,
      "existing": existing[-_MAX_EXISTING:],
    }
    if self._corpus.by_preference:
      fields["domain_description"] = topic["description"]
      fields["reasons"] = self._corpus.reasons
    return fields
