"""Makes the corpora of a config: what is done is skipped, what is paid is kept.

    WORKDIR/corpus/<name>.partial/   ledger.jsonl while a corpus is being made
    WORKDIR/corpus/<name>/           when it is whole: shards, manifest.json,
                                     rejects.jsonl, ledger.jsonl

The shards are compiled from the ledger in the order of the plan: the same answers give
the same bytes, whatever happened on the way.
"""

import asyncio
import dataclasses
import inspect
import json
import os
import pathlib
import types
from collections.abc import Iterable, Mapping
from typing import Any

from data_gen import (
  clients,
  conversations,
  documents,
  ledger,
  pricing,
  prompts,
  running,
  scheduler,
  settings,
)
from data_gen import spec as specs
from data_gen.clients import offline
from data_gen.importing import corpus as importing
from data_gen.settings import Job
from msm_jax import errors, progress, records

LEDGER = "ledger.jsonl"
REJECTS = "rejects.jsonl"


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
  for name in waiting:
    manifests[name] = _make(job, root, name, resolved[name], manifests)
    progress.say(
      f"corpus {name}: {manifests[name]['num_records']} records kept, "
      f"{manifests[name]['rejected']} rejected"
    )
  return {name: manifests[name] for name in job.corpora}


def resolve(job: Job) -> dict[str, dict[str, Any]]:
  """Returns for each corpus everything that decides its content.

  Raises:
    UserError: settings that cannot work, a spec that cannot be read.
  """
  settings.check(job)
  loaded = specs.load_all(job)
  found: dict[str, dict[str, Any]] = {}
  for name in settings.order(job.corpora):
    corpus = job.corpora[name]
    found[name] = {"corpus": {"kind": corpus.kind, **dataclasses.asdict(corpus)}}
    if isinstance(corpus, settings.ImportCorpus):
      found[name]["source"] = importing.identity(name, corpus)
    else:
      found[name].update(_sources(job, corpus, loaded))
    if getattr(corpus, "match_tokens_of", None):
      found[name]["matched"] = records.sha256_json(found[corpus.match_tokens_of])
  return found


def _sources(
  job: Job, corpus: settings.Corpus, loaded: Mapping[str, specs.Spec]
) -> dict[str, Any]:
  if isinstance(corpus, settings.WorldCorpus | settings.PairsCorpus):
    offline.load_world(job.world, "config.world")
    return {"world": {"name": job.world, "sha256": offline.world_sha256(job.world)}}
  is_documents = isinstance(corpus, settings.DocumentsCorpus)
  stages = prompts.DOCUMENT_STAGES if is_documents else prompts.CONVERSATION_STAGES
  found = {
    "spec": {"name": corpus.spec, "sha256": loaded[corpus.spec].sha256},
    "prompts": prompts.sha256(stages),
    "teacher": _content(job.teacher, "config.teacher"),
  }
  if not is_documents:
    found["judge"] = _content(job.judge, "config.judge")
  return found


def _content(client: settings.ClientSettings | None, where: str) -> dict[str, Any]:
  if client is None:
    raise errors.UserError(f"{where} is missing: set its client and model")
  if client.client != "offline":
    return client.content()
  offline.load_world(client.model, f"{where}.model")
  return {**client.content(), "world_sha256": offline.world_sha256(client.model)}


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
      f"{directory} was made with other settings: {'; '.join(named)}; choose "
      "another --workdir, or delete that directory to make it again"
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
  kinds = {job.corpora[name].kind for name in waiting}
  needed = []
  if kinds & {"documents", "conversations"}:
    needed.append((job.teacher, "config.teacher"))
  if "conversations" in kinds:
    needed.append((job.judge, "config.judge"))
  for client, where in needed:
    made = clients.make(client, where)
    asyncio.run(made.close())
    if job.max_dollars is not None and pricing.price_of(client) is None:
      raise errors.UserError(
        f"config.budget.max_dollars is set and the price of {where}.model="
        f"{client.model!r} is not known: set {where}.prices, or max_dollars=None"
      )


def _make(
  job: Job,
  root: pathlib.Path,
  name: str,
  resolved: Mapping[str, Any],
  manifests: Mapping[str, Any],
) -> dict[str, Any]:
  corpus = job.corpora[name]
  base = {"name": name, "kind": corpus.kind, "config": resolved}
  base["hashes"] = _hashes(resolved)
  if isinstance(corpus, settings.ImportCorpus):
    return importing.make(root / name, name, corpus, base)
  if isinstance(corpus, settings.WorldCorpus | settings.PairsCorpus):
    return _write_world(job, root, name, base)
  path = root / f"{name}.partial" / LEDGER
  with ledger.Ledger(path) as book:
    budget = scheduler.Budget(job.max_dollars, _spent(job, root, name) + book.spent)
    chain = running.run(job, name, book, budget, _target(corpus, manifests))
    manifest = _compile(root, name, base, chain)
  _adopt_ledger(root, name)
  return manifest


def _hashes(resolved: Mapping[str, Any]) -> dict[str, str | None]:
  spec, teacher = resolved.get("spec"), resolved.get("teacher")
  source = resolved.get("source")
  return {
    "config": records.sha256_json(resolved),
    "spec": spec["sha256"] if spec else None,
    "prompts": resolved.get("prompts"),
    "teacher": records.sha256_json(teacher) if teacher else None,
    "source": records.sha256_json(source) if source else None,
  }


def _target(
  corpus: settings.Corpus, manifests: Mapping[str, Any]
) -> documents.Target | None:
  name = getattr(corpus, "match_tokens_of", None)
  if name is None:
    return None
  other = manifests[name]
  return documents.Target(
    name=name, num_documents=other["num_records"], num_words=other["num_words"]
  )


def _write_world(
  job: Job, root: pathlib.Path, name: str, base: dict[str, Any]
) -> dict[str, Any]:
  world = offline.load_world(job.world, "config.world")
  corpus = job.corpora[name]
  if isinstance(corpus, settings.PairsCorpus):
    rows = world.pairs()
  else:
    rows = list(_world_corpus(world, corpus, name))
  manifest = {**base, "planned": len(rows), "rejected": 0}
  return _write(root / name, rows, manifest, rejects=[])


def _world_corpus(
  world: types.ModuleType, corpus: settings.WorldCorpus, name: str
) -> Iterable[dict[str, Any]]:
  more = {}
  if corpus.assistant_share is not None:
    if "assistant_share" not in inspect.signature(world.corpus).parameters:
      raise errors.UserError(
        f"config.corpora.{name}.assistant_share is {corpus.assistant_share}, but this "
        "world knows no such share: set it to None"
      )
    more["assistant_share"] = corpus.assistant_share
  return world.corpus(corpus.num_documents, corpus.seed, part=corpus.part, **more)


def _compile(
  root: pathlib.Path,
  name: str,
  base: dict[str, Any],
  chain: documents.Chain | conversations.Chain,
) -> dict[str, Any]:
  """Writes the corpus of a chain that has run."""
  lost = [*chain.branch_rejects, *chain.rejects]
  num_kept = chain.num_planned - len(chain.rejects)
  if not num_kept:
    first = f"the first reason: {lost[0]['reason']}" if lost else "there were no ideas"
    raise errors.UserError(
      f"config.corpora.{name}: nothing was kept of {chain.num_planned} planned "
      f"({first}); change the spec, the teacher or the judge"
    )
  manifest = {
    **base,
    "planned": chain.num_planned,
    "rejected": len(chain.rejects),
    "lost_branches": len(chain.branch_rejects),
    "num_words": chain.num_words,
  }
  asked = chain.num_asked
  if asked is not None and num_kept < asked:
    progress.say(
      f"corpus {name}: {asked} were asked for, {num_kept} could be kept; "
      f"{REJECTS} says why"
    )
  return _write(root / name, chain.records(), manifest, lost)


def _write(
  directory: pathlib.Path,
  rows: Iterable[Mapping[str, Any]],
  manifest: Mapping[str, Any],
  rejects: list[dict[str, Any]],
) -> dict[str, Any]:
  lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rejects)
  try:
    return records.write_dataset(
      directory, rows, manifest=manifest, extra_files={REJECTS: lines.encode()}
    )
  except OSError as error:
    raise errors.UserError(
      f"{directory} cannot be written ({error.strerror}): make room or choose another "
      "--workdir, and run again; the paid answers are kept"
    ) from None


def _adopt_ledger(root: pathlib.Path, name: str) -> None:
  """Moves the ledger beside the shards, also if a crash came between the two."""
  partial = root / f"{name}.partial"
  if (partial / LEDGER).exists() and not (root / name / LEDGER).exists():
    os.replace(partial / LEDGER, root / name / LEDGER)
    partial.rmdir()


def _spent(job: Job, root: pathlib.Path, but: str) -> float:
  """Returns what the other corpora have cost; only a budget needs to know."""
  if job.max_dollars is None:
    return 0.0
  places = [root / n / LEDGER for n in job.corpora if n != but]
  places += [root / f"{n}.partial" / LEDGER for n in job.corpora if n != but]
  return sum(ledger.spent_in(path) for path in places)
