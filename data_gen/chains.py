"""What `generate` asks of a chain, and which chain makes which kind of corpus."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from data_gen import gates, second_passes, settings, sizing
from data_gen import spec as specs
from data_gen.conversations import chain as conversations
from data_gen.documents import chain as documents
from data_gen.documents import matching
from data_gen.kinds import corpora, passes
from data_gen.teacher import Teacher


class Chain(Protocol):
  """One corpus in the making; its texts are in the ledger, not here.

  Attributes:
    num_planned: records that were begun; each is kept or rejected.
    num_asked: how many the config asks for; None if it does not say.
    num_rejected, num_words: rejected records, words of the kept ones.
    branch_rejects: what was lost before it was a planned record.
  """

  num_planned: int
  branch_rejects: Sequence[Mapping[str, Any]]

  @property
  def num_asked(self) -> int | None: ...

  @property
  def num_rejected(self) -> int: ...

  @property
  def num_words(self) -> int: ...

  async def run(self) -> None:
    """Asks until the corpus is whole, or cannot be."""

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the kept records in order."""

  def rejected(self) -> Iterator[dict[str, Any]]:
    """Yields the rejected records with stage, id and reason."""

  def manifest(self) -> dict[str, Any]:
    """Returns what else the manifest says."""


def make(
  job: settings.Job, name: str, answering: Mapping[str, Teacher], root: pathlib.Path
) -> Chain:
  """Returns the chain of a corpus.

  Args:
    job: what to make.
    name: of the corpus.
    answering: one teacher for each of its roles.
    root: where the finished corpora lie.
  """
  corpus = job.corpora[name]
  if isinstance(corpus, passes.KINDS):
    return second_passes.make(job, name, answering, root)
  spec = specs.load_all(job)[corpus.spec]
  teacher, judge = answering[corpora.TEACHER], answering.get(corpora.JUDGE)
  gate = gates.for_texts(name, corpus, spec, root)
  goal = sizing.goal(job.corpora, name, root)
  if isinstance(corpus, corpora.DocumentsCorpus):
    of = corpus.match_types_of
    return documents.Chain(
      name,
      corpus,
      spec,
      teacher,
      judge,
      gate,
      goal,
      types=None if of is None else matching.told_types(root / of),
      min_section_share=job.audit.min_section_share,
      pilot=job.pilot,
    )
  questions = gates.for_questions(name, corpus, spec, root)
  return conversations.Chain(
    name, corpus, spec, teacher, judge, gate, questions, goal, pilot=job.pilot
  )
