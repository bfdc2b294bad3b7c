"""Makes the corpora of a config: what is done is skipped, what is paid is kept.

    WORKDIR/corpus/<name>.partial/   ledger.jsonl while a corpus is being made
    WORKDIR/corpus/<name>/           when it is whole: shards, manifest.json,
                                     rejects.jsonl, ledger.jsonl

The shards are compiled from the ledger in the order of the plan: the same answers give
the same bytes, whatever happened on the way.
"""

import contextlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from data_gen import compiling, resolving, running, settings, spending
from data_gen import spec as specs
from data_gen.engine import ledger, scheduler
from data_gen.importing import corpus as importing
from data_gen.settings import Job
from msm_jax import errors, progress, records

__all__ = [
  "budget_for",
  "check_clients",
  "finished",
  "generate",
  "ledger_of",
  "make_free",
  "resolve",
  "say_empty_sections",
]

LEDGER = spending.LEDGER
# Kinds that come of nothing but settings and files: nobody is asked.
FREE = (settings.ImportCorpus, settings.WorldCorpus, settings.PairsCorpus)

resolve = resolving.resolve


def generate(job: Job, workdir: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
  """Makes every corpus that is not there yet and returns all manifests by name.

  `job.pilot` is for `data_gen.piloting`.

  Raises:
    UserError: settings that cannot work, a corpus made with other settings, a refused
      key, a full disk.
    Stopped: interrupted, out of budget, rate limited for too long; run again to go on.
  """
  assert job.pilot is None, "a pilot makes no corpora: see data_gen.piloting"
  root = pathlib.Path(workdir) / "corpus"
  resolved = resolve(job)
  manifests = {}
  for name in settings.order(job.corpora):
    done = finished(root, name, resolved[name])
    if done is not None:
      _adopt_ledger(root, name)
      progress.say(f"corpus {name}: done, {done['num_records']} records")
      manifests[name] = done
  waiting = [name for name in settings.order(job.corpora) if name not in manifests]
  check_clients(job, waiting)
  say_empty_sections(job, waiting)
  for name in waiting:
    manifests[name] = _make(job, root, name, resolved[name])
    progress.say(
      f"corpus {name}: {manifests[name]['num_records']} records kept, "
      f"{manifests[name]['rejected']} rejected"
    )
  return {name: manifests[name] for name in job.corpora}


def finished(
  root: pathlib.Path, name: str, resolved: Mapping[str, Any]
) -> dict[str, Any] | None:
  """Returns the manifest of a corpus that is whole, None if it has to be made.

  Args:
    root: where the corpora lie.
    name: of the corpus.
    resolved: everything that decides its content.

  Raises:
    UserError: it was made with other settings, or a shard is damaged; the message
      names them.
  """
  directory = root / name
  if not directory.exists():
    return None
  manifest = records.read_manifest(directory)
  there = dict(manifest.get("config", {}))
  if "source" in resolved and resolved["source"] is None:
    there["source"] = None  # the files were imported and are gone; nothing is lost
  there, here = _flat(there), _flat(resolved)
  differing = [
    f"{key} ({there.get(key)!r} there, {here.get(key)!r} here)"
    for key in sorted(there.keys() | here.keys())
    if there.get(key) != here.get(key)
  ]
  if differing:
    named = differing[:5]
    if len(differing) > len(named):
      named.append(f"and {len(differing) - len(named)} more")
    raise errors.UserError(
      f"{directory} was made with other settings: {'; '.join(named)}; choose another "
      f"--workdir, or move {directory / LEDGER} to {root / name}.partial/ (so that no "
      "answer is paid twice) and delete that directory to make it again"
    )
  records.shard_paths(directory)
  return manifest


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
  if not isinstance(value, Mapping):
    return {prefix: value}
  found: dict[str, Any] = {}
  for key, inner in value.items():
    found.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
  return found


def check_clients(job: Job, waiting: list[str]) -> None:
  """Makes each client that is needed once, so that a missing key shows at once.

  Raises:
    UserError: a key is missing, or a budget is set and a price is not known.
  """
  kinds = [job.corpora[name] for name in waiting]
  roles = {role for corpus in kinds for role in getattr(corpus, "roles", ())}
  for role in sorted(roles, reverse=True):
    spending.check_client(getattr(job, role), f"config.{role}", job.max_dollars)


def say_empty_sections(job: Job, waiting: list[str]) -> None:
  """Says which sections of the specs of `waiting` have no text."""
  used = {getattr(job.corpora[name], "spec", None) for name in waiting}
  for name, spec in specs.load_all(job).items():
    if name in used and spec.empty:
      progress.say(
        f"config.specs.{name}: {', '.join(map(repr, spec.empty))} has a heading and no "
        "text; it is left out"
      )


def _make(
  job: Job, root: pathlib.Path, name: str, resolved: Mapping[str, Any]
) -> dict[str, Any]:
  corpus = job.corpora[name]
  if isinstance(corpus, FREE):
    return make_free(job, root, name, resolved)
  base = _base(job, name, resolved)
  if isinstance(corpus, settings.StrippedCorpus):
    return compiling.write_stripped(root, name, corpus, base)
  with ledger.Ledger(ledger_of(root, name)) as book:
    budget = budget_for(job, root, name, book.totals)
    chain = running.run(job, name, book, budget, root)
    manifest = compiling.write_chain(job, root, name, base, chain)
  _adopt_ledger(root, name)
  return manifest


def make_free(
  job: Job, root: pathlib.Path, name: str, resolved: Mapping[str, Any]
) -> dict[str, Any]:
  """Makes a corpus of one of the kinds in `FREE`; returns its manifest."""
  corpus, base = job.corpora[name], _base(job, name, resolved)
  if isinstance(corpus, settings.ImportCorpus):
    return importing.make(root / name, name, corpus, base)
  return compiling.write_world(job, root, name, base)


def _base(job: Job, name: str, resolved: Mapping[str, Any]) -> dict[str, Any]:
  hashes = resolving.hashes(resolved)
  kind = job.corpora[name].kind
  return {"name": name, "kind": kind, "config": resolved, "hashes": hashes}


def ledger_of(root: pathlib.Path, name: str) -> pathlib.Path:
  """Returns where the ledger of a corpus lies while it is being made."""
  return root / f"{name}.partial" / LEDGER


def _adopt_ledger(root: pathlib.Path, name: str) -> None:
  """Moves the ledger beside the shards, also if a crash came between the two."""
  partial = root / f"{name}.partial"
  if (partial / LEDGER).exists() and not (root / name / LEDGER).exists():
    os.replace(partial / LEDGER, root / name / LEDGER)
    with contextlib.suppress(OSError):  # what else lies there is not ours
      partial.rmdir()


def budget_for(
  job: Job, root: pathlib.Path, name: str, totals: ledger.Totals
) -> scheduler.Budget:
  """Returns what may be spent on a corpus, whose own ledger adds up to `totals`."""
  own = (root / name / LEDGER, ledger_of(root, name))
  return spending.budget_for(job.max_dollars, root.parent, own, totals)
