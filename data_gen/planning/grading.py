"""What the graders of evaluations will cost: answers of models times stages.

Until their ledger has answers, the size of a prompt and of a verdict is assumed. What
the ledger has beyond the evaluations that are finished is subtracted from the others
that ask the same grader the same stage, in their order.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_gen import settings, spending
from data_gen.engine import entries, ledger
from data_gen.planning import calls, estimates, tariffs
from data_gen.planning.estimates import CorpusCost
from data_gen.planning.seen import Sums
from data_gen.teacher import PARSE_ATTEMPTS

ASSUMPTIONS = (
  "answers of models as long as their max_new_tokens",
  "verdicts of the usual size",
  "every verdict read at the first attempt",
  "four characters per token",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
  """The requests of one stage for an evaluation.

  Attributes:
    evaluation: its name, as the plan shows it.
    about: what else the plan says of it.
    role: who grades: a field of `settings.Job`.
    stage, directory: the prompt.
    requests, answered: all of them, and those whose evaluations are finished.
    fields: what is known of the prompt's fields.
    response_tokens: of a usual answer.
  """

  evaluation: str
  about: str
  role: str
  stage: str
  directory: pathlib.Path
  requests: int
  answered: int
  fields: Mapping[str, Any]
  response_tokens: int


def costs(
  job: settings.Job, workdir: pathlib.Path, asked: Sequence[Asked]
) -> list[CorpusCost]:
  """Returns what each evaluation will cost, all stages of it together."""
  book = spending.grader_ledger(workdir)
  measured = _measured(book)
  asked = _without_answered(job, asked, _num_answered(book))
  names = dict.fromkeys(one.evaluation for one in asked)
  return [
    _cost(job, [one for one in asked if one.evaluation == name], measured)
    for name in names
  ]


def spent(workdir: pathlib.Path) -> entries.Totals:
  """Returns what the graders have cost so far."""
  return ledger.totals_in(spending.grader_ledger(workdir))


def _without_answered(
  job: settings.Job, asked: Sequence[Asked], there: Mapping[tuple[str, str], int]
) -> list[Asked]:
  """Returns what is asked, with what a ledger has of unfinished evaluations."""
  spare = dict(there)
  for one in asked:
    key = (one.stage, getattr(job, one.role).model)
    spare[key] = spare.get(key, 0) - one.answered
  found = []
  for one in asked:
    key = (one.stage, getattr(job, one.role).model)
    more = max(min(spare[key], one.requests - one.answered), 0)
    spare[key] -= more
    found.append(dataclasses.replace(one, answered=one.answered + more))
  return found


def _num_answered(path: pathlib.Path) -> dict[tuple[str, str], int]:
  """Returns (stage, model) -> questions with an answer.

  Asking again because a verdict could not be read counts once.
  """
  found: dict[tuple[str, str], set[Any]] = {}
  for row in _rows(path):
    if row["status"] == entries.OK and "stage" in row:
      key = (row["stage"], row["client"].get("model", ""))
      asked = (row["prompt_hash"], row["sample_index"] // PARSE_ATTEMPTS)
      found.setdefault(key, set()).add(asked)
  return {key: len(asked) for key, asked in found.items()}


_Measured = Mapping[tuple[str, str], tuple[Sums, Sums]]


def _cost(job: settings.Job, asked: Sequence[Asked], measured: _Measured) -> CorpusCost:
  clients = {one.role: getattr(job, one.role) for one in asked}
  found = [_call(one, clients[one.role], measured) for one in asked]
  hours = tariffs.hours_of(found, clients)
  return CorpusCost(
    what="evaluation",
    name=asked[0].evaluation,
    kind=asked[0].about,
    done=not any(call.left for call in found),
    num_records=0,
    stages=tuple(
      estimates.stage_cost(call, clients[call.role], hours) for call in found
    ),
    tiers=tariffs.table(found, clients),
  )


def _call(
  one: Asked, client: settings.ClientSettings, measured: _Measured
) -> calls.Call:
  call = calls.call(
    one.stage,
    one.requests,
    one.fields,
    min(one.response_tokens, client.max_output_tokens),
    one.role,
    one.directory,
  )
  call = dataclasses.replace(call, answered=one.answered)
  if (one.stage, client.model) not in measured:
    return call
  read, said = measured[one.stage, client.model]
  return dataclasses.replace(
    call,
    prompt_tokens=read.mean,
    response_tokens=said.mean,
    measured=said.count,
  )


def _measured(path: pathlib.Path) -> dict[tuple[str, str], tuple[Sums, Sums]]:
  """Returns (stage, model) -> tokens of prompts and of answers, as billed."""
  found: dict[tuple[str, str], tuple[Sums, Sums]] = {}
  for row in _rows(path):
    usage = row.get("usage") or {}
    if row["status"] != entries.OK or not usage.get("prompt_tokens"):
      continue
    key = (row["stage"], row["client"].get("model", ""))
    read, said = found.setdefault(key, (Sums(), Sums()))
    read.add(usage["prompt_tokens"])
    said.add(usage["response_tokens"] + usage["thought_tokens"])
  return found


def _rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  if not path.exists():
    return
  with path.open("rb") as file:
    for line in file:
      if line.endswith(b"\n"):  # else it is being written, or torn by a crash
        yield json.loads(line)
