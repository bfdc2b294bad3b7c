"""A pilot: the whole outline and the first few texts of each part, to look at.

    WORKDIR/corpus/<name>.partial/   ledger.jsonl: the same as of the whole corpus
    WORKDIR/corpus/<name>.pilot/     kept.jsonl, rejects.jsonl, audit.html, audit.json,
                                     pilot.json

What is asked is among what the whole corpus asks, so that nothing is paid twice; and no
corpus is made, so that nothing takes the pilot for one.
"""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from data_gen import audit, compiling, generate, running, settings, unfinished
from data_gen.chains import Chain
from data_gen.engine import entries, ledger
from data_gen.planning import calls, estimates, replay, tree
from data_gen.planning.seen import Sums, Yield
from msm_jax import errors, records

KEPT = "kept.jsonl"


@dataclasses.dataclass
class Costs:
  """What the ledger of a corpus has on its texts, the outline left out.

  Attributes:
    outline, texts: dollars.
    num_texts: texts that were written, kept or not.
    read, said: tokens of a request and its answer, as billed.
  """

  outline: float = 0.0
  texts: float = 0.0
  num_texts: int = 0
  read: Sums = dataclasses.field(default_factory=Sums)
  said: Sums = dataclasses.field(default_factory=Sums)


def pilot(job: settings.Job, workdir: str | os.PathLike[str]) -> Iterator[str]:
  """Tries `job.pilot` texts of each part of every corpus that is not made yet.

  A part is a subdomain of documents, a topic of conversations, a key fact of a
  universe; of second passes a subdomain of their source, which has to be there.

  Yields:
    Lines for people: the measured yield of each corpus while it is made, then the plan
    of the whole corpora by what was measured.

  Raises:
    UserError, Stopped: as `generate.generate`; what was paid is kept.
  """
  assert job.pilot is not None
  root = pathlib.Path(workdir) / "corpus"
  resolved = generate.resolve(job)
  waiting: dict[str, settings.Job] = {}
  for name in settings.order(job.corpora):
    if generate.finished(root, name, resolved[name]) is not None:
      yield f"pilot of {name}: skipped, the corpus is done"
      continue
    try:
      waiting[name] = unfinished.alone(job, name, root)
    except errors.UserError as reason:
      yield f"pilot of {name}: skipped, {reason}"
  generate.check_clients(job, list(waiting))
  generate.say_empty_sections(job, list(waiting))
  for name, alone in waiting.items():
    if alone is not job:
      of = job.corpora[name].match_tokens_of
      yield f"pilot of {name}: the size of {of} is not known yet; its own measures"
    yield from _try(alone, root, name)
  yield "the whole corpora, by what was measured:"
  whole = dataclasses.replace(job, pilot=None)
  costs = estimates.plan(whole, workdir)
  yield from tree.lines(whole, tree.whole(whole, workdir, costs))


def _try(job: settings.Job, root: pathlib.Path, name: str) -> list[str]:
  """Runs the pilot of one corpus, writes what came of it and says what to know."""
  with (
    unfinished.sources(job, name, root) as place,
    ledger.Ledger(generate.ledger_of(root, name)) as book,
  ):
    budget = generate.budget_for(job, root, name, book.totals)
    chain = running.run(job, name, book, budget, place)
    directory = replay.pilot_of(root, name)
    found = _write(job, name, directory, chain)
    made = Yield(chain.num_planned - chain.num_rejected, chain.num_planned)
    lines = [_yield_line(name, made, _costs(book), chain.num_words)]
    lines += _reason_lines(chain)  # reads the ledger
  for violation in found.figures["violations"]:
    lines.append(f"  config.audit would not be kept: {violation}")
  where = directory / audit.HTML
  return [*lines, f"  look at {where}, {KEPT} and {compiling.REJECTS} beside it"]


def _write(
  job: settings.Job, name: str, directory: pathlib.Path, chain: Chain
) -> audit.Audit:
  """Writes texts, rejects and audit of a pilot; what tells its size comes last."""
  auditor = audit.Auditor(
    compiling.audit_settings(job, name, chain.manifest().get("leakage"))
  )
  rows = {
    KEPT: auditor.watch(chain.records()),
    compiling.REJECTS: auditor.watch_rejects(compiling.all_rejects(chain)),
  }
  files = {file: _jsonl(records_) for file, records_ in rows.items()}
  found = auditor.audit()
  told = {"corpus": name, "pilot": job.pilot, "planned": chain.num_planned}
  told |= {"kept": chain.num_planned - chain.num_rejected}
  files |= found.files()
  files[replay.PILOT_FILE] = json.dumps(told, indent=1).encode() + b"\n"
  try:
    directory.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
      records.write_file(directory / file, data)
  except OSError as error:
    raise errors.UserError(
      f"{directory} cannot be written ({error.strerror}): make room or choose another "
      "--workdir, and run again; the paid answers are kept"
    ) from None
  return found


def _jsonl(rows: Iterable[Mapping[str, Any]]) -> bytes:
  return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def _costs(book: ledger.Ledger) -> Costs:
  found = Costs()
  for row in book.rows():
    if row["status"] == entries.JOB:
      continue
    dollars = row["dollars"] or 0.0
    if row["stage"] in calls.LISTS:
      found.outline += dollars
      continue
    found.texts += dollars
    if row["status"] in entries.OUTCOMES and row["stage"] in calls.WRITERS:
      found.num_texts += 1
      usage = row["usage"]
      found.read.add(usage.get("prompt_tokens", 0))
      thoughts = usage.get("thought_tokens", 0)
      found.said.add(usage.get("response_tokens", 0) + thoughts)
  return found


def _yield_line(name: str, made: Yield, costs: Costs, num_words: int) -> str:
  low, high = made.interval()
  line = (
    f"pilot of {name}: {made.kept} of {made.made} texts kept, {made.share:.0%} (95 % "
    f"interval {low:.0%} to {high:.0%})"
  )
  if made.kept:
    line += f", {num_words / made.kept:,.0f} words each"
  if costs.read.total:
    line += f", {costs.read.mean:,.0f} tokens in and {costs.said.mean:,.0f} out"
  if costs.texts and made.kept:
    each = costs.texts / max(costs.num_texts, 1) / made.share
    line += (
      f"; outline {tree.money(costs.outline)}, {tree.money(each)} per kept text "
      "with its critique, revision and verdict"
    )
  return line


def _reason_lines(chain: Chain) -> Iterator[str]:
  if chain.num_rejected:
    yield f"  not kept: {compiling.main_reasons(chain)}"
  if chain.branch_rejects:
    lost = collections.Counter(row["stage"] for row in chain.branch_rejects)
    told = ", ".join(f"{stage} ({count})" for stage, count in lost.items())
    yield f"  lost before a text was begun: {told}"
  if chain.num_planned == chain.num_rejected:
    yield "  nothing was kept: change the spec, the teacher or the judge"
