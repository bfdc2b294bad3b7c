"""Has the scorers of an Inspect task read answers; needs neither model nor accelerator.

What they ask a grader is noted first, asked all at once, and then they run again with
the answers at hand (`judge_api.Desk`).
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from inspect_ai import score_async
from inspect_ai.log import EvalLog
from inspect_ai.scorer import Scorer

from msm_jax.errors import Stopped, UserError
from msm_jax.evals.grading import OK, Grader
from msm_jax.evals.inspect import judge_api, logs, providers, running
from msm_jax.evals.inspect.logs import Scored
from msm_jax.evals.inspect.settings import InspectConfig

Answer = Mapping[str, Any]


def grade(
  name: str, config: InspectConfig, answers: Sequence[Answer], grader: Grader
) -> Iterator[dict[str, Any]]:
  """Yields the lines: what the task's scorers find, and what is measured beside."""
  problems = [logs.problem_of(answer["sample"]) for answer in answers]
  scored = [Scored(problem=problem) for problem in problems]
  cases = _cases(name, config, answers)
  open_ = [i for i, problem in enumerate(problems) if not problem]
  desk = judge_api.Desk()
  with judge_api.at(desk) as judge, providers.grading_by(judge):
    while open_:
      found = asyncio.run(_score_all([cases[i] for i in open_], judge))
      for i, one in zip(open_, found, strict=True):
        scored[i] = one or scored[i]
      open_ = [i for i, one in zip(open_, found, strict=True) if one is None]
      if open_:
        desk.ask(grader)
  yield from logs.lines(name, config, answers, scored, grader)


def _cases(
  name: str, config: InspectConfig, answers: Sequence[Answer]
) -> list[tuple[EvalLog, Sequence[Scorer]]]:
  """Returns for each answer a log with it alone, and the scorers of its task."""
  heads: dict[str, Any] = {}
  scorers: dict[str, Sequence[Scorer]] = {}
  found = []
  for answer in answers:
    key = json.dumps(answer["condition"], sort_keys=True)
    if answer["log"] is not None:
      heads[key] = answer["log"]
      task = running.task_of(config.task, answer["arguments"], f"config.evals.{name}")
      scorers[key] = task.scorer or []
    whole = {**heads[key], "samples": [answer["sample"]]}
    found.append((EvalLog.model_validate(whole), scorers[key]))
  return found


async def _score_all(cases, judge: str) -> list[Scored | None]:
  """Returns what the scorers make of each; None where the grader is to be asked."""
  return await asyncio.gather(*(_score(log, scorers, judge) for log, scorers in cases))


async def _score(log: EvalLog, scorers: Sequence[Scorer], judge: str) -> Scored | None:
  """Returns what the scorers make of the one sample of a log.

  Whatever goes wrong in them leaves it without a score, with the reason. So does a
  grader that did not answer, even where a scorer goes on without it.
  """
  hearing = judge_api.Hearing()
  judge_api.hearing.set(hearing)  # each sample has a task, and so a context, of its own
  values: dict[str, Any] = {}
  problem = ""
  try:
    done = await score_async(
      log,
      list(scorers),
      model="none/none",
      model_roles={"grader": judge},
      action="overwrite",
      display="none",
    )
    values = {name: one.value for name, one in (done.samples[0].scores or {}).items()}
  except (UserError, Stopped):
    raise
  except Exception as error:  # a scorer's own; it must not end the others
    problem = f"{type(error).__name__}: {error}"
  if hearing.waits:
    return None
  silent = [verdict for verdict in hearing.verdicts if verdict.status != OK]
  if silent:
    problem = f"the grader did not answer: {silent[0].reason}"
  if problem:
    values = {}
  return Scored(values=values, problem=problem, verdicts=tuple(hearing.verdicts))
