"""What the generation of corpora is told: frozen dataclasses, checked once.

The config file is turned into these by its owner; nothing below knows `ConfigDict`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_gen import checks, doses
from data_gen.audit import settings as audit_settings
from data_gen.audit.settings import AuditThresholds
from data_gen.clients import settings as client_settings
from data_gen.clients.settings import ClientSettings
from data_gen.kinds import corpora
from data_gen.kinds.corpora import (
  ConversationsCorpus,
  Corpus,
  DocumentsCorpus,
  ImportCorpus,
  PairsCorpus,
  StrippedCorpus,
  WorldCorpus,
)
from msm_jax import errors
from msm_jax import fields as fields_lib

__all__ = [
  "ClientSettings",
  "ConversationsCorpus",
  "Corpus",
  "DocumentsCorpus",
  "ImportCorpus",
  "Job",
  "PairsCorpus",
  "SpecSettings",
  "StrippedCorpus",
  "WorldCorpus",
  "check",
  "check_client",
  "corpus",
  "job",
  "order",
]

corpus = corpora.build
order = corpora.order
_NO_THRESHOLDS = AuditThresholds()


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpecSettings:
  """Where a spec lies and whose names go into it (`config.specs.<name>`)."""

  path: str
  model_name: str
  provider_name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """All that `generate` and `plan` need to know.

  Attributes:
    corpora: name -> what to make.
    specs: name -> where the spec lies.
    teacher, judge: who answers and who judges; None if no corpus needs one.
    second_judge: of evaluations, for `plan`; no corpus asks it.
    world: the world of the kinds 'world' and 'pairs'.
    max_dollars: over all corpora of the workdir; None: no limit.
    audit: figures that a corpus must keep to be finished.
    pilot: a sample of so many documents per subdomain instead of whole corpora (see
      `data_gen.piloting`); None: the whole corpora.
  """

  corpora: Mapping[str, Corpus]
  specs: Mapping[str, SpecSettings] = dataclasses.field(default_factory=dict)
  teacher: ClientSettings | None = None
  judge: ClientSettings | None = None
  second_judge: ClientSettings | None = None
  world: str | None = None
  max_dollars: float | None = None
  audit: AuditThresholds = _NO_THRESHOLDS
  pilot: int | None = None


def job(config: Mapping[str, Any]) -> Job:
  """Returns what the sections of a whole config (plain dicts) say of generation.

  Raises:
    UserError: naming a field that is wrong, or a dose that no corpus can give.
  """
  clients = {
    who: fields_lib.build(ClientSettings, config[who], f"config.{who}")
    for who in ("teacher", "judge", "second_judge")
    if who != "second_judge" or config.get(who) is not None
  }
  kinds = {name: corpora.build(name, c) for name, c in config["corpora"].items()}
  doses.check(kinds, config.get("stages") or {})
  specs = {
    name: fields_lib.build(SpecSettings, fields, f"config.specs.{name}")
    for name, fields in config["specs"].items()
  }
  return Job(
    corpora=kinds,
    specs=specs,
    world=config["world"],
    max_dollars=config["budget"]["max_dollars"],
    audit=audit_settings.thresholds(config.get("audit"), "config.audit"),
    pilot=config.get("pilot"),
    **clients,
  )


def check(job: Job) -> None:
  """Raises a `UserError` for settings that cannot work, before anything is paid."""
  for name, corpus in job.corpora.items():
    corpora.check(name, corpus)
    _check_sources(f"config.corpora.{name}", corpus, job)
  for role in ("teacher", "judge", "second_judge"):
    if (client := getattr(job, role)) is not None:
      check_client(f"config.{role}", client)
  if job.max_dollars is not None:
    checks.number("config.budget.max_dollars", job.max_dollars)
  _check_pilot(job.pilot)
  corpora.order(job.corpora)


def check_client(where: str, client: ClientSettings) -> None:
  """Raises a `UserError` for settings of a client that cannot work."""
  checks.counts(where, client)
  checks.number(f"{where}.timeout_s", client.timeout_s, above=0)
  checks.number(f"{where}.temperature", client.temperature)
  client_settings.check(where, client)


def _check_pilot(pilot: Any) -> None:
  whole = isinstance(pilot, int) and not isinstance(pilot, bool)
  if pilot is not None and not (whole and pilot >= 1):
    raise errors.UserError(
      f"config.pilot is {pilot!r}: it is how many documents per subdomain are tried, a "
      "whole number above zero; leave it out (None) for the whole corpora"
    )


def _check_sources(where: str, corpus: Corpus, job: Job) -> None:
  if isinstance(corpus, WorldCorpus | PairsCorpus):
    if job.world is None:
      raise errors.UserError(f"{where} is of kind {corpus.kind}: set config.world")
  elif hasattr(corpus, "spec") and corpus.spec not in job.specs:
    raise errors.UserError(
      f"{where}.spec is {corpus.spec!r}: config.specs has "
      f"{', '.join(job.specs) or 'none'}"
    )
