"""Doses that a corpus cannot give, where files or lists say how large it is.

`msm_jax.doses` compares doses with counts that stand in the config. Here are those that
come of a universe, whose file has its facts, and of lists of ideas or questions.
"""

from collections.abc import Mapping
from typing import Any

from data_gen.kinds import passes, plain
from data_gen.universes import universe as universes
from msm_jax.errors import UserError

_SOURCES = ("twin_of", "of")  # a record for each of theirs, at most
_ONE_FOR_ONE = (
  passes.UniverseCorpus,
  passes.RewriteCorpus,
  passes.AntiSpecCorpus,
  plain.StrippedCorpus,
)


def check(corpora: Mapping[str, Any], stages: Mapping[str, Mapping[str, Any]]) -> None:
  """Raises a UserError for a component that chooses more than its corpus can have.

  Args:
    corpora: name -> its settings.
    stages: of the config, as plain dicts.
  """
  for stage, fields in stages.items():
    for i, part in enumerate(fields.get("data") or ()):
      wanted, name = part.get("num_documents"), part.get("corpus")
      if type(wanted) is not int or name not in corpora:  # refused by `msm_jax`
        continue
      found = records_at_most(corpora, name)
      if found is not None and found[0] < wanted:
        raise UserError(
          f"config.stages.{stage}.data[{i}].num_documents is {wanted}, a dose larger "
          f"than corpus {name!r}: {found[1]} is {found[0]}; lower the one, or raise "
          "the other"
        )


def records_at_most(corpora: Mapping[str, Any], name: str) -> tuple[int, str] | None:
  """Returns (records that a corpus has at most, the fields that say it).

  None: neither the config nor a universe says it.
  """
  for _ in corpora:  # sources that go in a circle are refused by `generate`
    corpus = corpora.get(name)
    sources = [
      getattr(corpus, field) for field in _SOURCES if getattr(corpus, field, None)
    ]
    if not (sources and isinstance(corpus, _ONE_FOR_ONE)):
      return _own(f"config.corpora.{name}", corpus)
    name = sources[0]
  return None


def _own(where: str, corpus: Any) -> tuple[int, str] | None:
  if isinstance(corpus, passes.UniverseCorpus):
    lists = ("num_types", "num_ideas", "max_repeats")
  elif isinstance(corpus, passes.QuizCorpus):
    lists = ("num_questions", "max_repeats")
  else:
    return None
  facts = getattr(corpus, "num_facts", None)
  said = "num_facts"
  if facts is None:
    facts = len(universes.load(corpus.universe, f"{where}.universe").facts)
    said = f"the {facts} facts of {corpus.universe}"
  found: list[tuple[int, str]] = []
  if not facts:  # a universe without any is refused by `generate`
    return None
  for factors in (("num_per_fact",), lists):
    most = facts
    for field in factors:
      value = getattr(corpus, field)
      most = None if most is None or type(value) is not int else most * value
    if most is not None:
      found.append((most, f"{where}.{' x '.join(factors)} x {said}"))
  return min(found, default=None)
