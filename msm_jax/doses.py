"""Doses that a corpus cannot give, as far as the config itself says how large it is.

`prepare` counts the records that are there; this is for what is known before anything
is generated.
"""

from collections.abc import Mapping
from typing import Any

from msm_jax.errors import UserError
from msm_jax.mixture import DataConfig
from msm_jax.stages import StageConfig

# Fields of a corpus that say how many records it has, or has at most.
_COUNTS = ("num_documents", "num_conversations", "max_documents", "max_records")
# Fields that name a corpus with a record for each record of this one.
_SOURCES = ("of", "twin_of")
_ONE_FOR_ONE = ("stripped", "rewrite", "anti_spec", "universe")
_DOCUMENTS = ("documents", "universe")

Corpora = Mapping[str, Mapping[str, Any]]


def check(
  corpora: Corpora, stages: Mapping[str, StageConfig], init_from: str | None
) -> None:
  """Raises a UserError for a component that chooses more than its corpus can have.

  Args:
    corpora: of the config, as plain dicts.
    stages: of the config, built.
    init_from: where the model lies, whose tokenizer a budget may be counted with.
  """
  for stage in stages.values():
    for i, part in enumerate(stage.data):
      _check(corpora, part, f"config.stages.{stage.name}.data[{i}]", init_from)


def _check(corpora: Corpora, part: DataConfig, where: str, init_from) -> None:
  if part.choice is None:
    return
  name, wanted = part.choice
  if name == "num_documents":
    found = records_at_most(corpora, part.corpus)
  else:
    found = _tokens_at_most(corpora, part.corpus, init_from)
  if found is not None and found[0] < wanted:
    most, field = found
    raise UserError(
      f"{where}.{name} is {wanted}, a dose larger than corpus {part.corpus!r}: "
      f"{field} is {most}; lower the one, or raise the other"
    )


def records_at_most(corpora: Corpora, name: str) -> tuple[int, str] | None:
  """Returns (records that a corpus has at most, the field that says it).

  None: the config does not say it.
  """
  found: list[tuple[int, str]] = []
  for _ in corpora:  # sources that go in a circle are refused by `generate`
    corpus = corpora.get(name, {})
    where = f"config.corpora.{name}"
    found += [
      (corpus[field], f"{where}.{field}")
      for field in _COUNTS
      if type(corpus.get(field)) is int
    ]
    per_fact, num_facts = corpus.get("num_per_fact"), corpus.get("num_facts")
    if type(per_fact) is int and type(num_facts) is int:
      found.append((per_fact * num_facts, f"{where}.num_per_fact x num_facts"))
    sources = [corpus[field] for field in _SOURCES if corpus.get(field) is not None]
    if corpus.get("kind") not in _ONE_FOR_ONE or not sources:
      break
    name = sources[0]
  return min(found, default=None)


def _tokens_at_most(
  corpora: Corpora, name: str, init_from: str | None
) -> tuple[int, str] | None:
  """Returns (tokens that a corpus of documents has at most, the field that says it).

  None where the config does not say it, or counts with another tokenizer than the
  model's.
  """
  corpus = corpora.get(name, {})
  if corpus.get("kind") not in _DOCUMENTS:  # of chats, a template adds some
    return None
  budget, counter = name, corpus.get("tokenizer")
  if corpus.get("match_tokens_of") is not None:
    budget = corpus["match_tokens_of"]
    counter = counter or corpora.get(budget, {}).get("tokenizer")
  most = corpora.get(budget, {}).get("num_tokens")
  if type(most) is not int or init_from is None or counter != init_from:
    return None
  return most, f"config.corpora.{budget}.num_tokens"
