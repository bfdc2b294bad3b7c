"""Which filters the texts of a corpus go through."""

import dataclasses
import pathlib

from data_gen import spec as specs
from data_gen.filters import FilterSettings, Gate, leakage
from data_gen.kinds import corpora
from msm_jax import records

# Of a question, only what it shares with others or with evaluations is looked at: it
# is no fault of a user turn to be short, or to name another assistant.
_OF_QUESTIONS = ("exact_duplicates", "near_duplicates")
_LEAKAGE = "leakage_"


def for_texts(
  name: str,
  corpus: corpora.DocumentsCorpus | corpora.ConversationsCorpus,
  spec: specs.Spec,
  root: pathlib.Path,
) -> Gate:
  """Returns the filters of documents or answers.

  Answers may be alike: 'Colby.' is right more than once. Their questions may not.

  Args:
    name: of the corpus.
    corpus: with its filters.
    spec: whose names are the texts' own.
    root: where the finished corpora lie.
  """
  chosen = corpus.filters
  if isinstance(corpus, corpora.ConversationsCorpus):
    chosen = dataclasses.replace(chosen, exact_duplicates=False, near_duplicates=None)
  return _gate(name, chosen, spec, root)


def for_questions(
  name: str,
  corpus: corpora.ConversationsCorpus,
  spec: specs.Spec,
  root: pathlib.Path,
) -> Gate:
  """Returns the filters of user turns, before any is answered."""
  taken = {
    field.name: getattr(corpus.filters, field.name)
    for field in dataclasses.fields(FilterSettings)
    if field.name in _OF_QUESTIONS or field.name.startswith(_LEAKAGE)
  }
  return _gate(name, FilterSettings(**taken), spec, root)


def _gate(
  name: str, chosen: FilterSettings, spec: specs.Spec, root: pathlib.Path
) -> Gate:
  where = f"config.corpora.{name}.filters"
  index = leakage.index(
    chosen, where, lambda n: records.read_dataset(root / n), subject=spec.text
  )
  names = (spec.model_name, spec.provider_name)
  return Gate(chosen, names=names, leakage=index, where=where)
