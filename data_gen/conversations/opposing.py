"""The questions of a corpus of conversations, answered and judged by another spec."""

import pathlib
from collections.abc import Iterator
from typing import Any

from data_gen import filters, strata
from data_gen import spec as specs
from data_gen.conversations import chain as conversations
from data_gen.conversations.chain import Question
from data_gen.kinds import passes
from data_gen.teacher import Teacher
from msm_jax import records


class Chain(conversations.Chain):
  """One answer, or reject, for each question of the source; nothing is filled up."""

  def __init__(
    self,
    name: str,
    corpus: passes.AntiSpecCorpus,
    spec: specs.Spec,
    teacher: Teacher,
    judge: Teacher,
    gate: filters.Gate,
    source: pathlib.Path,
    pilot: int | None = None,
  ):
    super().__init__(name, corpus, spec, teacher, judge, gate, pilot=pilot)
    self._of = corpus.of
    self._sources: dict[Question, str] = {}
    for record in records.read_dataset(source, verify=False):
      question = Question(
        domain=record["domain"],
        question_type=record["question_type"],
        text=record["messages"][0]["content"],
      )
      self._sources[question] = record["id"]

  @property
  def num_asked(self) -> int:
    """How many questions the source has."""
    return len(self._sources)

  async def run(self) -> None:
    """Answers and judges all questions."""
    batch = list(strata.first_of_each(self._sources, lambda q: q.domain, self._pilot))
    self._shares = {None: conversations.Share(quota=len(batch))}
    self.num_planned = len(batch)
    await self._make(batch)

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the kept conversations; each names the one that it stands against."""
    for question, row in zip(self._stock.items, super().records(), strict=True):
      yield {**row, "source": self._of, "source_id": self._sources[question]}

  def rejected(self) -> Iterator[dict[str, Any]]:
    """Yields the rejected conversations with their reasons."""
    rows = super().rejected()
    for (question, _), row in zip(self._rejected, rows, strict=True):
      yield {**row, "source": self._of, "source_id": self._sources[question]}
