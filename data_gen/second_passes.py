"""Which chain makes which of the kinds in `kinds.passes`, and what decides them."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen import settings, sizing
from data_gen import spec as specs
from data_gen.conversations import opposing
from data_gen.filters import FilterSettings, Gate, leakage
from data_gen.kinds import passes
from data_gen.rewrites import chain as rewrites
from data_gen.rewrites import notices, poisoning, rewriting
from data_gen.teacher import Teacher
from data_gen.universes import documents as universe_documents
from data_gen.universes import quiz
from data_gen.universes import universe as universes
from msm_jax import errors, records


def sources(job: settings.Job, name: str) -> dict[str, Any]:
  """Returns the files and names that decide a corpus, beside its settings.

  Raises:
    UserError: a file is missing or not as it should be.
  """
  corpus, where = job.corpora[name], f"config.corpora.{name}"
  if isinstance(corpus, passes.UniverseCorpus):
    universe = universes.load(corpus.universe, f"{where}.universe")
    _check_facts(where, corpus, universe)
    return {"universe": {"name": universe.name, "sha256": universe.sha256}}
  if isinstance(corpus, passes.QuizCorpus):
    universe = universes.load(corpus.universe, f"{where}.universe")
    if not universe.facts:
      raise errors.UserError(
        f"{universes.path_of(corpus.universe)} has no facts to be asked for: write "
        "[[facts]] tables in it"
      )
    return {"universe": {"name": universe.name, "sha256": universe.sha256}}
  if not isinstance(corpus, passes.RewriteCorpus):
    return {}
  if corpus.how in passes.NOTICES:
    notices.load(corpus.wording, corpus.how, f"{where}.wording")
    sha256 = records.sha256_file(notices.path_of(corpus.wording))
    return {"wording": {"name": corpus.wording, "sha256": sha256}}
  if corpus.how == passes.ATTRIBUTION:
    names = _names(job, name)
    return {"names": [names.model_name, names.provider_name]}
  return {}


def _check_facts(
  where: str, corpus: passes.UniverseCorpus, universe: universes.Universe
) -> None:
  path = universes.path_of(corpus.universe)
  if not universe.facts and corpus.num_facts is None and corpus.twin_of is None:
    raise errors.UserError(
      f"{path} has no facts: write [[facts]] tables in it, or let the teacher find "
      f"them with {where}.num_facts"
    )
  if universe.facts and corpus.num_facts is not None:
    raise errors.UserError(
      f"{where}.num_facts is {corpus.num_facts}, and {path} has {len(universe.facts)} "
      "facts of its own: leave it out"
    )


def _names(job: settings.Job, name: str) -> rewriting.Names:
  """Returns whom the documents of an attribution are about: as set, or their spec's."""
  corpus = job.corpora[name]
  origin = passes.origin_of(corpus, job.corpora)
  spec = job.specs.get(getattr(origin, "spec", None))
  found = {}
  for field in ("model_name", "provider_name"):
    found[field] = getattr(corpus, field) or getattr(spec, field, None)
    if not found[field]:
      raise errors.UserError(
        f"config.corpora.{name}.{field} is missing: the documents of {corpus.of} come "
        "from no spec that says whom they are about"
      )
  return rewriting.Names(
    **found,
    other_model=corpus.other_model or "",
    other_provider=corpus.other_provider or "",
  )


def make(
  job: settings.Job, name: str, answering: Mapping[str, Teacher], root: pathlib.Path
) -> Any:
  """Returns the chain of a corpus; see `data_gen.chains.make`."""
  corpus = job.corpora[name]
  teacher, judge = (answering.get(role) for role in (passes.TEACHER, passes.JUDGE))
  if isinstance(corpus, passes.UniverseCorpus):
    universe = universes.load(corpus.universe, f"config.corpora.{name}.universe")
    twin = None if corpus.twin_of is None else root / corpus.twin_of
    gate = _gate(name, corpus.filters, None, root)
    goal = sizing.goal(job.corpora, name, root)
    return universe_documents.Chain(
      name, corpus, universe, teacher, judge, twin, gate, goal, pilot=job.pilot
    )
  if isinstance(corpus, passes.QuizCorpus):
    universe = universes.load(corpus.universe, f"config.corpora.{name}.universe")
    gate = _gate(name, _may_be_alike(corpus.filters), None, root)
    goal = sizing.goal(job.corpora, name, root)
    return quiz.Chain(
      name, corpus, universe, teacher, judge, None, gate, goal, pilot=job.pilot
    )
  if isinstance(corpus, passes.RewriteCorpus):
    attributed = corpus.how == passes.ATTRIBUTION
    names = _names(job, name) if attributed else rewriting.Names()
    origin = passes.origin_of(corpus, job.corpora)
    spec = specs.load_all(job).get(getattr(origin, "spec", None) or "")
    subject = spec.text if spec else ""
    gate = _gate(name, corpus.filters, own_names(job, name), root, subject)
    return rewrites.Chain(
      name, corpus, root / corpus.of, names, teacher, gate, pilot=job.pilot
    )
  if isinstance(corpus, passes.PoisonCorpus):
    return poisoning.Chain(name, corpus, root / corpus.of)
  spec = specs.load_all(job)[corpus.spec]
  chosen = _may_be_alike(corpus.filters)
  gate = _gate(name, chosen, (spec.model_name, spec.provider_name), root, spec.text)
  source = root / corpus.of
  return opposing.Chain(
    name, corpus, spec, teacher, judge, gate, source, pilot=job.pilot
  )


def _may_be_alike(chosen: FilterSettings) -> FilterSettings:
  """Returns the filters of answers: 'Brie.' is right more than once."""
  return dataclasses.replace(chosen, exact_duplicates=False, near_duplicates=None)


def own_names(job: settings.Job, name: str) -> Sequence[str] | None:
  """Returns the model and the provider that the texts of a corpus are about.

  None if nobody knows; empty if nobody is to be named.
  """
  corpus = job.corpora[name]
  if isinstance(corpus, passes.RewriteCorpus | passes.PoisonCorpus):
    if getattr(corpus, "how", None) == passes.ATTRIBUTION:
      return rewriting.subject(corpus, _names(job, name))
    return own_names(job, corpus.of)
  spec = job.specs.get(getattr(corpus, "spec", None) or "")
  return (spec.model_name, spec.provider_name) if spec else None


def _gate(
  name: str,
  chosen: FilterSettings,
  names: Sequence[str] | None,
  root: pathlib.Path,
  subject: str = "",
) -> Gate:
  where = f"config.corpora.{name}.filters"
  index = leakage.index(
    chosen, where, lambda n: records.read_dataset(root / n), subject
  )
  nobodys = names is not None and not names
  return Gate(chosen, names=names or (), is_nobodys=nobodys, leakage=index, where=where)
