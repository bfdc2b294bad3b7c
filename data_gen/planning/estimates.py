"""What the corpora of a job will cost, before a request is sent; nothing is written.

Until a teacher has answered, the shape of the outline and the length of answers are
assumed (`calls.ASSUMPTIONS`). What a ledger has is not asked again, and is measured:
lists, tokens, and after a pilot the kept share. Retries are not in it.
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping

from data_gen import compiling, generate, lists, settings
from data_gen import spec as specs
from data_gen.engine import entries, ledger, reading
from data_gen.importing import corpus as importing
from data_gen.importing import folders
from data_gen.kinds import passes
from data_gen.planning import passes as planning_passes
from data_gen.planning import plain, replay, tariffs, volume
from data_gen.planning.calls import Call
from data_gen.planning.plain import Estimate
from data_gen.planning.seen import Seen, Tally, Yield
from data_gen.planning.volume import NONE, Volume

_MATCHED = ("match_types_of", "match_tokens_of")
# Ends of the interval: (kept share is at its upper or lower end, tokens at theirs).
_LOW, _HIGH = -1, 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class StageCost:
  """What is still to be asked in one stage.

  Attributes:
    stage, role: what is asked, and whom.
    requests, prompt_tokens, response_tokens: of what is still to be asked.
    answered: requests that the ledger has an answer to.
    dollars: as the config has it; None where the price is not known.
    measured, measured_on: see `calls.Call`.
  """

  stage: str
  role: str
  requests: int
  prompt_tokens: int
  response_tokens: int
  dollars: float | None
  answered: int = 0
  measured: int = 0
  measured_on: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class End:
  """One end of the interval of what is still to be asked."""

  tokens: int
  dollars: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusCost:
  """Estimate of one corpus; one that is `done` costs nothing more.

  Attributes:
    name, kind, done: of the corpus.
    num_records: how many it has, or will have.
    stages: what is still to be asked.
    tiers: (tier, cache) -> dollars for that; None where it is not offered, or its price
      is not known.
    spent: what its ledger adds up to.
    kept: the measured yield; None: it is assumed that all is kept.
    kept_on: the corpus that was measured; "": this one.
    low, high: the 95 % interval of what is still to be asked, once the yield is known.
    note: what else there is to say.
    what: 'corpus', or 'evaluation' for what graders are asked.
    volume: the usual size of a record; of an evaluation, nothing.
  """

  name: str
  kind: str
  done: bool
  num_records: int
  stages: tuple[StageCost, ...] = ()
  tiers: Mapping[tariffs.Cell, float | None] = dataclasses.field(default_factory=dict)
  spent: entries.Totals = dataclasses.field(default_factory=entries.Totals)
  kept: Yield | None = None
  kept_on: str = ""
  low: End | None = None
  high: End | None = None
  note: str = ""
  what: str = "corpus"
  volume: Volume = NONE

  @property
  def requests(self) -> int:
    """Requests that are still to be asked."""
    return sum(stage.requests for stage in self.stages)

  @property
  def prompt_tokens(self) -> int:
    """Prompt tokens of these."""
    return sum(stage.prompt_tokens for stage in self.stages)

  @property
  def response_tokens(self) -> int:
    """Response tokens of these."""
    return sum(stage.response_tokens for stage in self.stages)

  @property
  def dollars(self) -> float | None:
    """Dollars for these, as the config has it; None if a stage has no price."""
    prices = [stage.dollars for stage in self.stages]
    return None if None in prices else sum(prices)


def plan(job: settings.Job, workdir: str | os.PathLike[str]) -> dict[str, CorpusCost]:
  """Returns what each corpus will cost; sends nothing and writes nothing there.

  With `job.pilot` it is the pilot that is planned.

  Raises:
    UserError: settings that cannot work, or a corpus made with other ones.
  """
  root = pathlib.Path(workdir) / "corpus"
  resolved = generate.resolve(job)
  planner = _Planner(job, root)
  for name in settings.order(job.corpora):
    done = generate.finished(root, name, resolved[name])
    planner.add(name, None if done is None else done["num_records"])
  return {name: planner.costs[name] for name in job.corpora}


class _Planner:
  """Plans the corpora in their order: some take their size from others."""

  def __init__(self, job: settings.Job, root: pathlib.Path):
    self._job, self._root = job, root
    self._specs = specs.load_all(job)
    self._seen: dict[str, Seen] = {}
    self.costs: dict[str, CorpusCost] = {}

  def _add(self, cost: CorpusCost) -> None:
    known = {name: each.volume for name, each in self.costs.items()}
    found = volume.of(
      self._job,
      cost.name,
      self._root,
      cost.num_records,
      known,
      None if cost.done else self._seen[cost.name],
    )
    self.costs[cost.name] = dataclasses.replace(cost, volume=found)

  def add(self, name: str, num_records: int | None) -> None:
    """Plans one corpus; `num_records` is None while it is not finished."""
    kind = self._job.corpora[name].kind
    paths = [self._root / name / generate.LEDGER, generate.ledger_of(self._root, name)]
    path = next((path for path in paths if path.exists()), paths[1])
    if num_records is not None:
      spent = ledger.totals_in(path)
      self._add(
        CorpusCost(
          name=name, kind=kind, done=True, num_records=num_records, spent=spent
        )
      )
      return
    answers = reading.Reading(path)
    self._seen[name] = replay.look(self._job, name, self._root, answers)
    cost = self._estimate(name)
    self._add(dataclasses.replace(cost, spent=answers.totals))

  def _estimate(self, name: str) -> CorpusCost:
    corpus = self._job.corpora[name]
    blank = CorpusCost(name=name, kind=corpus.kind, done=False, num_records=0)
    if isinstance(corpus, settings.ImportCorpus):
      told = corpus.max_records or corpus.expected_records
      if told is not None and folders.is_to_come(corpus):
        note = f"{corpus.path} is not there yet: download {corpus.source}"
        return dataclasses.replace(blank, num_records=told, note=note)
      num_rows, num_bytes, num_files = importing.count(name, corpus)
      note = f"{num_bytes / 1e6:.1f} MB in {num_files} files"
      return dataclasses.replace(blank, num_records=num_rows, note=note)
    if isinstance(corpus, settings.PairsCorpus):
      drawn = compiling.drawn(self._job, name, corpus)
      return dataclasses.replace(blank, num_records=len(list(drawn)))
    if isinstance(corpus, settings.WorldCorpus):
      return dataclasses.replace(blank, num_records=corpus.num_documents)
    if isinstance(corpus, settings.StrippedCorpus):
      return dataclasses.replace(blank, num_records=self.costs[corpus.of].num_records)
    return self._asked(blank)

  def _asked(self, blank: CorpusCost) -> CorpusCost:
    """Estimates a corpus that somebody is asked for."""
    name, corpus = blank.name, self._job.corpora[blank.name]
    kept, of = self._seen[name].share(*_texts(corpus)), ""
    if kept is None and (of := _matched(corpus)) in self._seen:
      other = self._job.corpora[of]
      if not isinstance(other, settings.ImportCorpus):  # nobody was asked for those
        kept = self._seen[of].share(*_texts(other))
    found = self._calls(name, 1.0 if kept is None else kept.share, 0)
    clients = {role: getattr(self._job, role) for role in corpus.roles}
    hours = tariffs.hours_of(found.calls, clients)
    cost = dataclasses.replace(
      blank,
      num_records=found.num_records,
      stages=tuple(stage_cost(call, clients[call.role], hours) for call in found.calls),
      tiers=tariffs.table(found.calls, clients),
      kept=kept,
      kept_on=of if kept is not None else "",
    )
    return cost if kept is None else self._with_interval(cost, clients)

  def _with_interval(self, cost: CorpusCost, clients: tariffs.Clients) -> CorpusCost:
    low, high = cost.kept.interval()
    ends = []
    for share, end in ((high, _LOW), (low, _HIGH)):
      calls = self._calls(cost.name, share, end).calls
      tokens = sum(c.left * (c.prompt_tokens + c.response_tokens) for c in calls)
      ends.append(End(tokens=round(tokens), dollars=tariffs.dollars(calls, clients)))
    return dataclasses.replace(cost, low=ends[0], high=ends[1])

  def _calls(self, name: str, share: float, end: int) -> Estimate:
    """Returns the calls of a corpus if `share` of its texts are kept.

    Args:
      name: of the corpus.
      share: of its texts that are kept.
      end: 0: tokens at their means; -1, 1: at the ends of the interval of these.
    """
    job, corpus, seen = self._job, self._job.corpora[name], self._seen[name]
    sizes = {other: cost.num_records for other, cost in self.costs.items()}
    if isinstance(corpus, passes.KINDS):
      found = planning_passes.estimate(job, name, sizes, self._specs, seen, share)
    elif isinstance(corpus, settings.DocumentsCorpus):
      spec, matched = self._specs[corpus.spec], sizes.get(corpus.match_tokens_of or "")
      found = plain.documents(corpus, spec, matched, seen, share, job.pilot)
    else:
      spec = self._specs[corpus.spec]
      found = plain.conversations_of(corpus, spec, seen, share, job.pilot)
    calls = [
      self._as_seen(name, self._in_parts(name, call), end) for call in found.calls
    ]
    return dataclasses.replace(found, calls=tuple(calls))

  def _in_parts(self, name: str, call: Call) -> Call:
    """Returns a call with a request for each part of a list (see `lists.fill`)."""
    if call.items <= 1:
      return call
    parts = lists.num_parts(call.stage, call.items, getattr(self._job, call.role))
    if parts == 1:
      return call
    # Parts that were not asked for yet: each needs the items of those before it.
    num_lists = self._seen[name].lists(call.stage, call.requests)
    said = call.response_tokens / parts
    return dataclasses.replace(
      call,
      requests=max(num_lists * parts, call.requests),
      prompt_tokens=call.prompt_tokens + round(said * (parts - 1) / 2),
      response_tokens=said,
    )

  def _as_seen(self, name: str, call: Call, end: int) -> Call:
    """Returns a call with what its answers, or those of a matched corpus, measured."""
    client = getattr(self._job, call.role)
    own = self._seen[name].tallies.get(call.stage, Tally())
    call = dataclasses.replace(call, answered=own.answered)
    tally, of = own, ""
    if not own.response.count:
      of = _matched(self._job.corpora[name])
      tally = self._seen.get(of, Seen()).tallies.get(call.stage, Tally())
    most = client.max_output_tokens
    if not tally.response.count:
      return dataclasses.replace(call, response_tokens=min(call.response_tokens, most))
    said = tally.response.mean + end * tally.response.half_width
    call = dataclasses.replace(
      call, response_tokens=said, measured=tally.answered, measured_on=of
    )
    if of:  # its prompts hold another spec
      return call
    read = tally.prompt.mean + end * tally.prompt.half_width
    return dataclasses.replace(
      call, prompt_tokens=read, system_tokens=tally.system.mean
    )


def _texts(corpus: settings.Corpus) -> tuple[str, str | None]:
  """Returns the stage that writes the texts, and the one that judges them."""
  if isinstance(corpus, settings.DocumentsCorpus):
    return corpus.draft_stage, corpus.judge_stage if corpus.judged else None
  if isinstance(corpus, passes.UniverseCorpus):
    return "universe_document", "judge_universe" if corpus.judged else None
  if isinstance(corpus, passes.QuizCorpus):
    return "quiz_answer", "judge_quiz" if corpus.judged else None
  if isinstance(corpus, passes.RewriteCorpus | passes.PoisonCorpus):
    return "".join(corpus.stages), None
  return corpus.answer_stage, corpus.judge_stage


def _matched(corpus: settings.Corpus) -> str:
  """Returns the corpus that this one is made like; "" if there is none."""
  return next((of for f in _MATCHED if (of := getattr(corpus, f, None))), "")


def stage_cost(call: Call, client: settings.ClientSettings, hours: float) -> StageCost:
  """Returns what is still to be asked in a stage; a cache is kept for `hours`."""
  return StageCost(
    stage=call.stage,
    role=call.role,
    requests=call.left,
    prompt_tokens=round(call.left * call.prompt_tokens),
    response_tokens=round(call.left * call.response_tokens),
    dollars=tariffs.of_call(call, client, hours),
    answered=call.answered,
    measured=call.measured,
    measured_on=call.measured_on,
  )
