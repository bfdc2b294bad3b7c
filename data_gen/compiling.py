"""Writes corpora: streamed from the ledger, a world, or another corpus.

What is written depends on the plan and the answers alone, not on when they came.
"""

import collections
import contextlib
import dataclasses
import inspect
import json
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

from data_gen import audit, filters, second_passes, settings
from data_gen import spec as specs
from data_gen.chains import Chain
from data_gen.clients import offline
from data_gen.kinds import passes
from msm_jax import errors, progress, records
from msm_jax.rejects import REJECTS

_AUDIT_FILES = (audit.JSON, audit.HTML)


def write_world(
  job: settings.Job, root: pathlib.Path, name: str, base: Mapping[str, Any]
) -> dict[str, Any]:
  """Writes records that the world draws, or its pairs; returns the manifest."""
  rows = list(drawn(job, name, job.corpora[name]))
  manifest = {**base, "planned": len(rows), "rejected": 0}
  return _write(root / name, rows, manifest, rejects=())


def drawn(
  job: settings.Job, name: str, corpus: settings.WorldCorpus | settings.PairsCorpus
) -> Iterable[dict[str, Any]]:
  """Returns the records of a corpus that a world draws; `name` is for messages."""
  world, more = offline.load_world(job.world, "config.world"), {}
  if isinstance(corpus, settings.PairsCorpus):
    return world.pairs()
  if corpus.assistant_share is not None:
    if "assistant_share" not in inspect.signature(world.corpus).parameters:
      raise errors.UserError(
        f"config.corpora.{name}.assistant_share is {corpus.assistant_share}, but this "
        "world knows no such share: set it to None"
      )
    more["assistant_share"] = corpus.assistant_share
  return world.corpus(corpus.num_documents, corpus.seed, part=corpus.part, **more)


def write_stripped(
  root: pathlib.Path,
  name: str,
  corpus: settings.StrippedCorpus,
  base: Mapping[str, Any],
) -> dict[str, Any]:
  """Writes conversations without their thoughts, or with them in the answers."""
  source = root / corpus.of
  other = records.read_manifest(source)
  num_words = other["num_words"]
  if corpus.inline is not None:
    num_words = sum(
      filters.num_words(message["content"])
      for record in records.read_dataset(source)
      for message in _stripped(record, corpus.inline)["messages"]
    )
  counts = {"planned": other["num_records"], "num_words": num_words}
  manifest = {**base, **counts, "rejected": 0}
  rows = (_stripped(record, corpus.inline) for record in records.read_dataset(source))
  return _write(root / name, rows, manifest, rejects=())


def _stripped(record: Mapping[str, Any], inline: str | None) -> dict[str, Any]:
  messages = [_without_thoughts(message, inline) for message in record["messages"]]
  return {**record, "messages": messages, "cot": inline is not None}


def _without_thoughts(message: Mapping[str, str], inline: str | None) -> dict[str, str]:
  said = dict(message)
  thoughts = said.pop("reasoning_content", None)
  if thoughts is not None and inline is not None:
    # Cut once: either text may have braces of its own.
    parts = re.split(r"(\{reasoning\}|\{answer\})", inline)
    texts = {"{reasoning}": thoughts, "{answer}": said["content"]}
    said["content"] = "".join(texts.get(part, part) for part in parts)
  return said


def write_chain(
  job: settings.Job,
  root: pathlib.Path,
  name: str,
  base: Mapping[str, Any],
  chain: Chain,
) -> dict[str, Any]:
  """Writes the corpus of a chain that has run, with its audit.

  Raises:
    UserError: nothing was kept, a threshold of `config.audit` is not kept, or there is
      no room. The paid answers are kept, and the audit lies beside them.
  """
  _check_kept(name, chain)
  manifest = {
    **base,
    "planned": chain.num_planned,
    "rejected": chain.num_rejected,
    "lost_branches": len(chain.branch_rejects),
    "num_words": chain.num_words,
    **chain.manifest(),
  }
  auditor = audit.Auditor(audit_settings(job, name, manifest.get("leakage")))
  more = chain.extra_files() if hasattr(chain, "extra_files") else {}
  with contextlib.ExitStack() as stack:
    files = {n: stack.enter_context(tempfile.TemporaryFile()) for n in _AUDIT_FILES}

    def audited() -> dict[str, Any]:
      # Called when all records are written, before the directory appears.
      found = auditor.audit()
      for file, data in found.files().items():
        files[file].write(data)
      _enforce(found, root / f"{name}.partial", name)
      return manifest

    rows = auditor.watch(chain.records())
    rejects = auditor.watch_rejects(all_rejects(chain))
    return _write(root / name, rows, audited, rejects, {**more, **files})


def _check_kept(name: str, chain: Chain) -> None:
  """Raises if nothing was kept; says it if it is less than was asked for."""
  num_kept = chain.num_planned - chain.num_rejected
  if not num_kept:
    raise errors.UserError(
      f"config.corpora.{name}: nothing was kept of {chain.num_planned} planned "
      f"({main_reasons(chain)}); change the spec, the teacher or the judge"
    )
  asked = chain.num_asked
  if asked is not None and num_kept < asked:
    progress.say(
      f"corpus {name}: {asked} were asked for, {num_kept} could be kept "
      f"({main_reasons(chain)}); {REJECTS} says why"
    )


def audit_settings(
  job: settings.Job, name: str, leakage: Mapping[str, int] | None = None
) -> audit.AuditSettings:
  """Returns what the audit of a corpus is told.

  Args:
    job: the whole job.
    name: of the corpus.
    leakage: what the gate looked for, as the manifest says it.
  """
  corpus = job.corpora[name]
  origin = passes.origin_of(corpus, job.corpora)
  names = tuple(second_passes.own_names(job, name) or ())
  found = audit.AuditSettings(
    name=name, kind=corpus.kind, names=names, thresholds=job.audit, leakage=leakage
  )
  spec_name = getattr(origin, "spec", None)
  if spec_name not in job.specs:
    return found
  chosen = job.specs[spec_name]
  about = names or (chosen.model_name, chosen.provider_name)
  spec = specs.load(chosen.path, *about, name=spec_name)
  return dataclasses.replace(
    found,
    spec_name=spec.name,
    spec_text=spec.text,
    # Conversations are spread over topics; they quote no section. Of poison there are
    # only beginnings.
    sections=spec.sections if _is_of_sections(corpus, origin) else (),
  )


def _is_of_sections(corpus: Any, origin: Any) -> bool:
  return origin.kind == "documents" and not isinstance(corpus, passes.PoisonCorpus)


def _enforce(found: audit.Audit, partial: pathlib.Path, name: str) -> None:
  """Raises a `UserError` for thresholds that are not kept; leaves the audit to see."""
  violations = found.figures["violations"]
  if not violations:
    for file in _AUDIT_FILES:
      (partial / file).unlink(missing_ok=True)
    return
  for file, data in found.files().items():
    records.write_file(partial / file, data)
  more = f" and {len(violations) - 3} more" if len(violations) > 3 else ""
  raise errors.UserError(
    f"corpus {name} does not keep config.audit: {'; '.join(violations[:3])}{more}; see "
    f"{partial / audit.HTML}, then change what makes it so, or the threshold, and run "
    "again; the paid answers are kept"
  )


def all_rejects(chain: Chain) -> Iterator[Mapping[str, Any]]:
  """Yields all that was lost or rejected, with stage and reason."""
  yield from chain.branch_rejects
  yield from chain.rejected()


def main_reasons(chain: Chain) -> str:
  """Returns the most frequent reasons for what is missing, with their numbers."""
  rejects = chain.rejected() if chain.num_rejected else chain.branch_rejects
  # `judge: no: because` is one of many `judge: no`.
  reasons = (": ".join(row["reason"].split(": ")[:2])[:80] for row in rejects)
  counts = collections.Counter(
    "duplicate" if filters.category(reason) == "duplicate" else reason
    for reason in reasons
  )
  found = ", ".join(f"{reason} ({n})" for reason, n in counts.most_common(3))
  return found or "there were no ideas for more"


def _write(
  directory: pathlib.Path,
  rows: Iterable[Mapping[str, Any]],
  manifest: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
  rejects: Iterable[Mapping[str, Any]],
  more: Mapping[str, bytes | BinaryIO] | None = None,
) -> dict[str, Any]:
  try:
    with tempfile.TemporaryFile() as file:
      for row in rejects:
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
      files = {**(more or {}), REJECTS: file}
      return records.write_dataset(
        directory, rows, manifest=manifest, extra_files=files
      )
  except OSError as error:
    raise errors.UserError(
      f"{directory} cannot be written ({error.strerror}): make room or choose another "
      "--workdir, and run again; the paid answers are kept"
    ) from None
