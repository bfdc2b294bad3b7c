"""Graders behind the clients of generation: paid once, within the budget.

    WORKDIR/evals/grader/ledger.jsonl   every attempt of every grader, as it lands

The only door from here to data_gen: its clients, scheduler, ledger, budget and prompt
templates. A killed run repays at most what was in flight. The offline client grades by
the world `rehearsal`, whatever world its section names: that one makes corpora.
"""

import asyncio
import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from data_gen import checks, context, prompts, running, settings, spending
from data_gen import spec as specs
from data_gen.clients import offline, protocol
from data_gen.clients import settings as client_settings
from data_gen.engine import entries, ledger
from data_gen.planning import grading as planning
from data_gen.teacher import PARSE_ATTEMPTS, Teacher
from msm_jax import fields as fields_lib
from msm_jax import progress, records
from msm_jax.errors import UserError
from msm_jax.evals import grading
from msm_jax.evals.grading import FAILED, OK, UNPARSED, Grader, Verdict

__all__ = [
  "PROMPTS",
  "Judge",
  "asked",
  "check",
  "identity",
  "is_rehearsal",
  "load_spec",
  "open_grader",
  "who",
]

PROMPTS = pathlib.Path(__file__).parent / "prompts"
OFFLINE, REHEARSAL = "offline", "rehearsal"  # a client and a world of data_gen
# So many requests are held at a time, at most, before they go out.
_MOST_AT_ONCE = 20_000
# Fields of prompts that hold what a model said.
_ANSWERS = ("answer", "completion", "transcript", "response")
_BUDGET = "config.budget.max_dollars"


class _NotYetError(Exception):
  """What a piece of work asks has not been answered; it will be asked for."""


class Judge:
  """Asks one grader; see `grading.Grader`. Made by `open_grader`."""

  def __init__(
    self,
    teacher: Teacher,
    runner: asyncio.Runner,
    role: str,
    config: Mapping[str, Any],
  ):
    self._teacher = teacher
    self._runner = runner
    self._role = role
    self._config = config
    self.is_rehearsal = teacher.client.client == OFFLINE

  def ask(
    self,
    stage: str,
    fields: Sequence[Mapping[str, Any]],
    parse: Callable[[str], Any],
    *,
    schema: Mapping[str, Any] | None = None,
    samples: Sequence[int] | None = None,
  ) -> list[Verdict]:
    """See `grading.Grader`: what cannot be parsed is asked for again, three times."""
    while True:
      verdicts, open_ = self._look(stage, fields, parse, schema, samples)
      if not open_:
        return verdicts
      self._send(open_)

  def spec_text(self, name: str) -> str:
    """See `grading.Grader`."""
    return load_spec(self._config, name).text

  def together(self, works: Iterable[Callable[[Grader], Any]]) -> None:
    """See `grading.Grader`: each is begun again once what it asked is answered."""
    waiting = list(works)
    while waiting:
      gatherer, later = _Gatherer(self), []
      for i, work in enumerate(waiting):
        if len(gatherer.requests) >= _MOST_AT_ONCE:
          later += waiting[i:]
          break
        try:
          work(gatherer)
        except _NotYetError:
          later.append(work)
      self._send(gatherer.requests)
      waiting = later

  def _look(
    self, stage, fields, parse, schema, samples
  ) -> tuple[list[Verdict], list[protocol.Request]]:
    """Returns the verdicts as far as they are known, and what has to be asked."""
    verdicts, open_ = [], []
    numbers = [0] * len(fields) if samples is None else samples
    for given, number in zip(fields, numbers, strict=True):
      for attempt in range(PARSE_ATTEMPTS):
        sample = number * PARSE_ATTEMPTS + attempt
        request = self._teacher.request(stage, given, sample, schema)
        entry = self._teacher.find(request)
        if entry is None:
          open_.append(request)
          break
        verdict = self._verdict(request, entry, parse)
        if verdict.status == OK:
          break
      if entry is not None:
        verdicts.append(verdict)
    return verdicts, open_

  def _verdict(
    self,
    request: protocol.Request,
    entry: entries.Entry,
    parse: Callable[[str], Any],
  ) -> Verdict:
    client, failure = self._teacher.client, entries.failure_of(entry)
    value = None if failure else parse(entry.text)
    status = FAILED if failure else UNPARSED if value is None else OK
    return Verdict(
      status=status,
      value=value,
      text=entry.text,
      reason=failure or ("unparsed" if value is None else ""),
      grader={
        "client": client.client,
        "model": client.model,
        "model_version": entry.model_version or "",
      },
      prompt_hash=request.prompt_hash,
    )

  def _send(self, requests: Iterable[protocol.Request]) -> None:
    """Sends what is open; how far it is shows with the time that is left."""
    wanted = {self._teacher.identity(request): request for request in requests}
    if not wanted:
      return

    async def send() -> None:
      with running.interruptible([self._teacher]):
        await self._teacher.ask_all(wanted.values(), self._role, len(wanted))

    running.complete(self._runner, send())


class _Gatherer:
  """Notes what is asked and has no answer yet."""

  def __init__(self, judge: Judge):
    self._judge = judge
    self.is_rehearsal = judge.is_rehearsal
    self.spec_text = judge.spec_text
    self.requests: list[protocol.Request] = []

  def ask(self, stage, fields, parse, *, schema=None, samples=None) -> list[Verdict]:
    """See `grading.Grader`."""
    verdicts, open_ = self._judge._look(stage, fields, parse, schema, samples)
    self.requests += open_
    if open_:
      raise _NotYetError
    return verdicts

  def together(self, works: Iterable[Callable[[Grader], Any]]) -> None:
    """See `grading.Grader`."""
    waiting = False
    for work in works:
      try:
        work(self)
      except _NotYetError:
        waiting = True
    if waiting:
      raise _NotYetError


@contextlib.contextmanager
def open_grader(
  config: Mapping[str, Any], workdir: pathlib.Path, role: str = "judge"
) -> Iterator[Judge]:
  """Yields the grader of a role; one process asks at a time.

  Args:
    config: a whole config as plain dicts; of it `role`, `budget` and `specs` are read.
    workdir: of the study.
    role: the section that names the client: 'judge' or 'second_judge'.

  Raises:
    UserError: a section or key is missing, a price is not known, the ledger is in use.
  """
  clients = {role: _client(config, role)}
  _check_clients(config, clients)
  path = spending.grader_ledger(workdir)
  with ledger.Ledger(path) as book, asyncio.Runner() as runner:
    dollars = _max_dollars(config)
    budget = spending.budget_for(dollars, workdir, (path,), book.totals)
    made = running.answering(clients, book, budget, directory=PROMPTS)
    teachers = runner.run(made.__aenter__())
    try:
      yield Judge(teachers[role], runner, role, config)
    finally:
      runner.run(made.__aexit__(None, None, None))


def check(config: Mapping[str, Any], roles: Sequence[str], used: Iterable[str]) -> None:
  """Refuses, before a model is asked, what could not be graded.

  Args:
    config: a whole config.
    roles: who will be asked.
    used: names of `config.specs` that graders will read.

  Raises:
    UserError: as `open_grader`; or a spec cannot be read, or is too long for them.
  """
  clients = {role: _client(config, role) for role in roles}
  _check_clients(config, clients)
  for name in used:
    spec = load_spec(config, name)
    for role, client in clients.items():
      context.check(spec, client, f"config.{role}")
  for role, client in clients.items():
    if client.client == OFFLINE:
      progress.say(
        f"config.{role}.client is 'offline': a rehearsal, its verdicts are drawn at "
        f"random and measure nothing; they stand under '{grading.REHEARSAL}...'"
      )


def load_spec(config: Mapping[str, Any], name: str) -> specs.Spec:
  """Returns a spec of `config.specs`, its names filled in."""
  if name not in config.get("specs", {}):
    known = ", ".join(config.get("specs", {})) or "none"
    raise UserError(f"config.specs has no {name!r}: it has {known}")
  given = fields_lib.build(
    settings.SpecSettings, config["specs"][name], f"config.specs.{name}"
  )
  return specs.load(given.path, given.model_name, given.provider_name, name=name)


def identity(
  config: Mapping[str, Any], role: str, stages: Sequence[str], spec: str | None
) -> str:
  """Returns a digest of all that verdicts depend on, but for what is graded.

  Args:
    config: a whole config.
    role: who grades.
    stages: the prompts that it reads.
    spec: name of the spec in them, if there is one.
  """
  client = _client(config, role)
  found: list[Any] = [client.content(), prompts.sha256(stages, PROMPTS)]
  if client.client == OFFLINE:
    found.append(offline.world_sha256(client.model))
  if spec is not None:
    found.append(load_spec(config, spec).sha256)
  return records.sha256_json(found)[:16]


def asked(
  config: Mapping[str, Any],
  stage: grading.Stage,
  *,
  evaluation: str,
  about: str,
  role: str,
  requests: int,
  answered: int,
  spec: str | None,
  answer_tokens: int,
  more: Mapping[str, str] | None = None,
) -> planning.Asked:
  """Returns the requests of a stage as `plan` counts them.

  Args:
    config: a whole config.
    stage: what is asked.
    evaluation, about: its name, and what the plan says of it.
    role: who grades.
    requests, answered: all of them, and those of finished evaluations.
    spec: name of the spec in the prompt, if there is one.
    answer_tokens: what an answer of a model has at most.
    more: what else is known of the prompt's fields.
  """
  fields = dict.fromkeys(_ANSWERS, "x" * (4 * answer_tokens)) | dict(more or {})
  if spec is not None:
    fields["spec_text"] = load_spec(config, spec).text
  return planning.Asked(
    evaluation=evaluation,
    about=about,
    role=role,
    stage=stage.name,
    directory=PROMPTS,
    requests=requests,
    answered=answered,
    fields=fields,
    response_tokens=stage.response_tokens,
  )


def who(config: Mapping[str, Any], role: str) -> dict[str, str]:
  """Returns client and model of a grader."""
  client = _client(config, role)
  return {"client": client.client, "model": client.model}


def is_rehearsal(config: Mapping[str, Any], role: str) -> bool:
  """Returns whether the verdicts of a grader measure nothing."""
  return _client(config, role).client == OFFLINE


def _client(config: Mapping[str, Any], role: str) -> client_settings.ClientSettings:
  where = f"config.{role}"
  if config.get(role) is None:
    raise UserError(f"{where} is missing: set the client and model of the grader")
  client = fields_lib.build(client_settings.ClientSettings, config[role], where)
  settings.check_client(where, client)
  if client.client == OFFLINE:
    client = dataclasses.replace(client, model=REHEARSAL)
  return client


def _check_clients(
  config: Mapping[str, Any], clients: Mapping[str, client_settings.ClientSettings]
) -> None:
  for role, client in clients.items():
    spending.check_client(client, f"config.{role}", _max_dollars(config))


def _max_dollars(config: Mapping[str, Any]) -> float | None:
  dollars = config.get("budget", {}).get("max_dollars")
  if dollars is not None:
    checks.number(_BUDGET, dollars)
  return dollars
