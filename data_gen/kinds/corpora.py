"""The kinds of corpora: what `config.corpora.<name>` may say.

A kind is a frozen dataclass with a name (`kind`), the stages that it asks a teacher or
judge (`stages`), who answers them (`roles`), and the corpora that have to be there
before it (`others`). `KINDS` has them all.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen import checks
from data_gen.filters import settings as filter_settings
from data_gen.importing import settings as import_settings
from data_gen.importing.settings import ChoiceColumns, ImportCorpus
from data_gen.kinds import passes, passes_checks, sizes
from data_gen.kinds import plain as corpus_kinds
from data_gen.kinds.plain import JUDGE as JUDGE
from data_gen.kinds.plain import RULE as RULE
from data_gen.kinds.plain import TEACHER as TEACHER
from data_gen.kinds.plain import VALUE as VALUE
from data_gen.kinds.plain import (
  ConversationsCorpus,
  DocumentsCorpus,
  PairsCorpus,
  StrippedCorpus,
  WorldCorpus,
)
from msm_jax import errors
from msm_jax import fields as fields_lib

LEAKAGE = "filters.leakage_corpora"

Corpus = (
  WorldCorpus
  | PairsCorpus
  | DocumentsCorpus
  | ConversationsCorpus
  | StrippedCorpus
  | ImportCorpus
  | passes.UniverseCorpus
  | passes.QuizCorpus
  | passes.RewriteCorpus
  | passes.AntiSpecCorpus
  | passes.PoisonCorpus
)
KINDS: dict[str, type] = {
  cls.kind: cls
  for cls in (
    WorldCorpus,
    PairsCorpus,
    DocumentsCorpus,
    ConversationsCorpus,
    StrippedCorpus,
    ImportCorpus,
    *passes.KINDS,
  )
}
# Field that names another corpus -> kinds that it may be of.
_LINKS = {
  "match_tokens_of": passes.DOCUMENTS,
  "match_types_of": ("documents",),
  "of": ("conversations",),
  "twin_of": ("universe",),
}


def build(name: str, fields: Mapping[str, Any]) -> Corpus:
  """Returns the settings of `config.corpora.<name>` from a plain mapping."""
  fields = dict(fields)
  kind = fields.pop("kind", None)
  if kind not in KINDS:
    raise errors.UserError(
      f"config.corpora.{name}.kind is {kind!r}: it is one of {', '.join(KINDS)}"
    )
  where = f"config.corpora.{name}"
  if "filters" in fields:
    fields["filters"] = filter_settings.build(fields["filters"], f"{where}.filters")
  if kind == ImportCorpus.kind and fields.get("choice") is not None:
    columns = {
      k: tuple(v) if isinstance(v, list) else v for k, v in fields["choice"].items()
    }
    fields["choice"] = fields_lib.build(ChoiceColumns, columns, f"{where}.choice")
  return fields_lib.build(KINDS[kind], fields, where)


def content(corpus: Corpus) -> dict[str, Any]:
  """Returns what decides a corpus, as its manifest says it.

  A field that came later than the kind is left out at its default, so that a corpus
  that was made before is still recognised.
  """
  roots = getattr(corpus, "roots", None)
  if roots is None:
    return {"kind": corpus.kind, **dataclasses.asdict(corpus)}
  found = {"kind": corpus.kind} | {name: getattr(corpus, name) for name in roots}
  return found | _changed(corpus, roots)


def _changed(value: Any, roots: Sequence[str] = ()) -> dict[str, Any]:
  """Returns the fields that differ from their defaults, as JSON would have them."""
  found = {}
  for field in dataclasses.fields(value):
    given = getattr(value, field.name)
    if field.name not in roots and given != field.default:
      given = _changed(given) if dataclasses.is_dataclass(given) else given
      found[field.name] = _listed(given)
  return found


def _listed(given: Any) -> Any:
  return [_listed(one) for one in given] if isinstance(given, tuple | list) else given


def check(name: str, corpus: Corpus) -> None:
  """Raises a `UserError` for settings of one corpus that cannot work."""
  where = f"config.corpora.{name}"
  if name != name.strip() or "/" in name or name.startswith(".") or not name:
    raise errors.UserError(f"{where}: a corpus name is a file name without slashes")
  checks.counts(where, corpus)
  sizes.check(where, corpus)
  if isinstance(corpus, ImportCorpus):
    import_settings.check(where, corpus)
  elif isinstance(corpus, WorldCorpus):
    checks.choice(f"{where}.part", corpus.part, ("train", "heldout"))
  elif isinstance(corpus, DocumentsCorpus):
    corpus_kinds.check_documents(where, corpus)
  elif isinstance(corpus, ConversationsCorpus):
    corpus_kinds.check_conversations(where, corpus)
  elif isinstance(corpus, StrippedCorpus):
    corpus_kinds.check_stripped(where, corpus)
  passes_checks.check(where, corpus)


def others(corpus: Corpus) -> list[tuple[str, str]]:
  """Returns (field, corpus) for the corpora that have to be there before this one."""
  links = [(field, getattr(corpus, field, None)) for field in _LINKS]
  links = [(field, other) for field, other in links if other is not None]
  leakage = getattr(getattr(corpus, "filters", None), "leakage_corpora", ())
  return links + [(LEAKAGE, other) for other in leakage]


def order(corpora: Mapping[str, Corpus]) -> list[str]:
  """Returns the names so that a corpus comes after those that it is made from."""
  for name, corpus in corpora.items():
    _check_links(name, corpus, corpora)
  done: list[str] = []
  waiting = dict(corpora)
  while waiting:
    ready = [n for n, c in waiting.items() if {o for _, o in others(c)} <= set(done)]
    if not ready:
      fields = {field for corpus in waiting.values() for field, _ in others(corpus)}
      raise errors.UserError(
        f"config.corpora: {', '.join(sorted(fields))} goes in a circle among "
        f"{', '.join(waiting)}"
      )
    done += ready
    for name in ready:
      del waiting[name]
  return done


def _check_links(name: str, corpus: Corpus, corpora: Mapping[str, Corpus]) -> None:
  for field, other in others(corpus):
    links = {**_LINKS, **getattr(corpus, "links", {})}
    kinds = links.get(field, tuple(KINDS))
    if getattr(corpora.get(other), "kind", None) not in kinds:
      raise errors.UserError(
        f"config.corpora.{name}.{field} is {other!r}: it names a corpus of kind "
        f"{' or '.join(kinds)}"
      )
    if isinstance(corpus, StrippedCorpus) and not corpora[other].cot:
      raise errors.UserError(
        f"config.corpora.{name}.of is {other!r}, whose cot is False: there is nothing "
        "to strip; set its cot=True"
      )
  passes_checks.check_link(name, corpus, corpora)
