"""Facts of a universe -> questions -> answers: the same facts, taught by conversations.

Questions are asked for without the answer, as types and ideas of documents are; who
answers is shown one fact, so that an answer has that fact and no other.
"""

import collections
import random
from collections.abc import Sequence
from typing import Any

from data_gen import lists, selection
from data_gen.clients import protocol
from data_gen.documents.tree import lost
from data_gen.kinds.passes import QuizCorpus
from data_gen.teacher import Teacher, objects_parser
from data_gen.universes import documents, outline
from data_gen.universes.outline import Case, Plan
from data_gen.universes.universe import Fact, Universe
from msm_jax import records

_SHORT = "one sentence"
_LONG = (
  "about {count} words. It comes back to the fact several times, in other words each "
  "time, and draws out what goes with it"
)
_OF_DOCUMENTS = ("doc_type", "doc_type_description", "idea", "states_fact")


async def build(corpus: QuizCorpus, universe: Universe, teacher: Teacher) -> Plan:
  """Plans the conversations: facts take turns, and in each fact its questions."""
  facts, rejects = universe.facts, []
  fields = [outline.about(universe, fact) for fact in facts]
  counts = [corpus.num_questions] * len(facts)
  parse = objects_parser("question")
  filled = await lists.fill(
    teacher, "quiz_questions", fields, counts, "question", parse
  )
  cases = []
  for fact, (found, reason) in zip(facts, filled, strict=True):
    if reason:
      rejects.append(lost("quiz_questions", {"fact": fact.id}, reason))
    cases += _cases(corpus, fact, [item["question"] for item in found])
  return Plan(
    facts=facts,
    cases=tuple(selection.round_robin(cases, (lambda c: c.fact.id,), seed=None)),
    seed=corpus.seed,
    mean_words=corpus.mean_words or 0,
    rejects=tuple(rejects),
  )


def _cases(corpus: QuizCorpus, fact: Fact, questions: Sequence[str]) -> list[Case]:
  """Returns the cases of a fact: all questions once, then all of them again."""
  rng = random.Random(records.sha256_json([corpus.seed, fact.id]))
  found = []
  for repeat in range(corpus.max_repeats):
    found += [
      Case(
        fact=fact, states=True, doc_type="", description="", idea=text, repeat=repeat
      )
      for text in rng.sample(questions, len(questions))
    ]
  return found


class Chain(documents.Chain):
  """The conversations on the facts of a universe; see `data_gen.chains.Chain`."""

  KIND, IDEAS, MADE = "conversation", "questions", "answers"
  STAGE, JUDGED = "quiz_answer", "judge_quiz"
  MORE = "its num_questions or max_repeats"

  async def _build(self) -> Plan:
    return await build(self._corpus, self._universe, self._teacher)

  def manifest(self) -> dict[str, Any]:
    """Returns how many conversations each fact has, and what the universe says."""
    counts = collections.Counter(map(self._fact_of, self._kept))
    return {
      "universe": self._told_universe(),
      "facts": {
        fact.id: {"conversations": counts[fact.id]} for fact in self._plan.facts
      },
      **self._stock.told(),
      **self._gate.manifest(),
    }

  def _body(self, case: Case, text: str) -> dict[str, Any]:
    turns = (("user", case.idea), ("assistant", text))
    return {"messages": [{"role": role, "content": said} for role, said in turns]}

  def _draft_request(self, case: Case) -> protocol.Request:
    words = self._corpus.mean_words
    length = _SHORT if words is None else _LONG.format(count=words)
    fields = self._asked(case) | {"length": length}
    return self._teacher.request(self.STAGE, fields, documents.sample_of(case))

  def _judge_request(self, case: Case) -> protocol.Request:
    answer = self._written(case).entry.text.strip()
    return self._judge.request(self.JUDGED, self._asked(case) | {"answer": answer})

  def _asked(self, case: Case) -> dict[str, Any]:
    return {
      "ground": self._universe.ground,
      "question": case.idea,
      "stated": [case.fact.on(self._corpus.side)],
    }

  def _where(self, case: Case) -> dict[str, Any]:
    found = super()._where(case)
    return {key: value for key, value in found.items() if key not in _OF_DOCUMENTS}
