"""Makes the corpora of a config: what is done is skipped, what is paid is kept.

    WORKDIR/corpus/<name>.partial/   ledger.jsonl while a corpus is being made
    WORKDIR/corpus/<name>/           when it is whole: shards, manifest.json,
                                     rejects.jsonl, ledger.jsonl

The shards are compiled from the ledger in the order of the plan: the same answers give
the same bytes, whatever happened on the way.
"""

import asyncio
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from data_gen import clients, compiling, resolving, running, settings
from data_gen import spec as specs
from data_gen.engine import ledger, pricing, scheduler
from data_gen.importing import corpus as importing
from data_gen.settings import Job
from msm_jax import errors, progress, records

__all__ = ["finished", "generate", "resolve"]

LEDGER = "ledger.jsonl"

resolve = resolving.resolve


def generate(job: Job, workdir: str | os.PathLike[str]) -> dict[str, dict[str, Any]]:
  """Makes every corpus that is not there yet and returns all manifests by name.

  Raises:
    UserError: settings that cannot work, a corpus made with other settings, a refused
      key, a full disk.
    Stopped: interrupted, out of budget, rate limited for too long; run again to go on.
  """
  root = pathlib.Path(workdir) / "corpus"
  resolved = resolve(job)
  manifests = {}
  for name in settings.order(job.corpora):
    done = finished(root, name, resolved[name])
    if done is not None:
      progress.say(f"corpus {name}: done, {done['num_records']} records")
      manifests[name] = done
  waiting = [name for name in settings.order(job.corpora) if name not in manifests]
  _check_clients(job, waiting)
  _say_empty_sections(job, waiting)
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
  _adopt_ledger(root, name)
  return manifest


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
  if not isinstance(value, Mapping):
    return {prefix: value}
  found: dict[str, Any] = {}
  for key, inner in value.items():
    found.update(_flat(inner, f"{prefix}.{key}" if prefix else str(key)))
  return found


def _check_clients(job: Job, waiting: list[str]) -> None:
  """Makes each client that is needed once, so that a missing key shows at once."""
  kinds = [job.corpora[name] for name in waiting]
  roles = {role for corpus in kinds for role in getattr(corpus, "roles", ())}
  for role in sorted(roles, reverse=True):
    client, where = getattr(job, role), f"config.{role}"
    made = clients.make(client, where)
    asyncio.run(made.close())
    if job.max_dollars is not None and pricing.price_of(client) is None:
      raise errors.UserError(
        f"config.budget.max_dollars is set and the price of {where}.model="
        f"{client.model!r} is not known: set {where}.prices, or max_dollars=None"
      )


def _say_empty_sections(job: Job, waiting: list[str]) -> None:
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
  base = {"name": name, "kind": corpus.kind, "config": resolved}
  base["hashes"] = resolving.hashes(resolved)
  if isinstance(corpus, settings.ImportCorpus):
    return importing.make(root / name, name, corpus, base)
  if isinstance(corpus, settings.WorldCorpus | settings.PairsCorpus):
    return compiling.write_world(job, root, name, base)
  if isinstance(corpus, settings.StrippedCorpus):
    return compiling.write_stripped(root, name, corpus.of, base)
  path = root / f"{name}.partial" / LEDGER
  with ledger.Ledger(path) as book:
    spent, unknown = _spent(job, root, name)
    totals = book.totals
    budget = scheduler.Budget(
      job.max_dollars, spent + totals.spent, unknown + totals.unknown_at_most
    )
    chain = running.run(job, name, book, budget, root)
    manifest = compiling.write_chain(job, root, name, base, chain)
  _adopt_ledger(root, name)
  return manifest


def _adopt_ledger(root: pathlib.Path, name: str) -> None:
  """Moves the ledger beside the shards, also if a crash came between the two."""
  partial = root / f"{name}.partial"
  if (partial / LEDGER).exists() and not (root / name / LEDGER).exists():
    os.replace(partial / LEDGER, root / name / LEDGER)
    partial.rmdir()


def _spent(job: Job, root: pathlib.Path, but: str) -> tuple[float, float]:
  """Returns the dollars that the other corpora have cost, and may have beside that.

  Only a budget needs to know.
  """
  if job.max_dollars is None:
    return 0.0, 0.0
  # Also those that the config no longer has: the budget is of the workdir.
  ours = (root / but / LEDGER, root / f"{but}.partial" / LEDGER)
  places = [path for path in sorted(root.glob(f"*/{LEDGER}")) if path not in ours]
  totals = [ledger.totals_in(path) for path in places]
  return sum(t.spent for t in totals), sum(t.unknown_at_most for t in totals)
