"""Samples of Inspect's logs -> our lines. Needs no Inspect: a log is JSON.

A sample in error, one that was cut off before it said anything, and one whose grader
did not answer, contradicted itself or could not be read, has null scores.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax.evals.agentic import actions, verdicts
from msm_jax.evals.grading import OK, Grader, Verdict
from msm_jax.evals.inspect.settings import COHERENCE, InspectConfig

Line = dict[str, Any]
_LETTERS = {"C": 1.0, "I": 0.0, "P": 0.5, "N": 0.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scored:
  """What the task's scorers made of a sample.

  Attributes:
    values: scorer -> its value, as the log has it.
    problem: why there are none; "" if there are.
    verdicts: what graders said meanwhile.
  """

  values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  problem: str = ""
  verdicts: Sequence[Verdict] = ()


def problem_of(sample: Mapping[str, Any]) -> str:
  """Returns why a sample must not be scored, "" if it may."""
  if sample.get("error"):
    return f"in error: {sample['error'].get('message', '')}"
  if not sample["output"]["choices"]:
    return "no answer"
  if stop_reason(sample) == "max_tokens" and not answer_of(sample):
    return "cut off before it said anything"
  return ""


def answer_of(sample: Mapping[str, Any]) -> str:
  """Returns what a sample's model said last, its kept-apart reasoning left out."""
  choices = sample["output"]["choices"]
  return _text(choices[0]["message"]["content"]) if choices else ""


def prompt_of(sample: Mapping[str, Any]) -> str:
  """Returns what it was asked: the last user's turn before the answer."""
  if isinstance(sample["input"], str):
    return sample["input"]
  turns = [turn for turn in sample["input"] if turn["role"] == "user"]
  return _text(turns[-1]["content"]) if turns else ""


def stop_reason(sample: Mapping[str, Any]) -> str:
  """Returns Inspect's word for how the answer ended."""
  choices = sample["output"]["choices"]
  return choices[0].get("stop_reason", "unknown") if choices else "unknown"


def numbers(values: Mapping[str, Any]) -> dict[str, float | None]:
  """Returns metric -> number of what scorers gave; one that is none is None.

  A scorer with several values gives each under its own name, behind the scorer's where
  two scorers share one.
  """
  found: dict[str, float | None] = {}
  for scorer, value in values.items():
    parts = value if isinstance(value, Mapping) else {_bare(scorer): value}
    for name, one in parts.items():
      found[name if name not in found else f"{_bare(scorer)}.{name}"] = _number(one)
  return found


def lines(
  name: str,
  config: InspectConfig,
  answers: Sequence[Mapping[str, Any]],
  scored: Sequence[Scored],
  grader: Grader,
) -> list[Line]:
  """Returns the lines of all answers of one evaluation of a model.

  Args:
    name: the evaluation's.
    config: its fields.
    answers: with `id`, `condition`, `dev` and `sample`.
    scored: what the task's scorers made of each.
    grader: asked for coherence.
  """
  each = [numbers(one.values) for one in scored]
  metrics = dict.fromkeys(metric for one in each for metric in one)
  coherent = _coherence(config, answers, grader)
  made = []
  for answer, one, found, verdict in zip(answers, scored, each, coherent, strict=True):
    sample, said = answer["sample"], answer_of(answer["sample"])
    scores = {metric: found.get(metric) for metric in metrics}
    answered = not problem_of(sample)
    graded = not one.problem and None not in scores.values()
    scores["graded_rate"] = float(graded) if answered else None
    scores["answered_rate"] = float(answered)
    scores["truncated_rate"] = float(stop_reason(sample) == "max_tokens")
    if "inactive" in config.beside:
      scores["inactive"] = float(not actions.actions(said)) if answered else None
    if "coherent" in config.beside:
      scores["coherent"] = _coherent(said, answered, verdict)
    heard = [*one.verdicts, *([] if verdict is None else [verdict])]
    made.append(
      {
        "id": answer["id"],
        "evaluation": _evaluation(name, config, answer),
        "scores": scores,
        "cluster": answer["cluster"],
        "condition": answer["condition"],
        "prompt": prompt_of(sample),
        "completion": said,
        "stop_reason": stop_reason(sample),
        "problem": one.problem,
        "checkpoint": answer["checkpoint"],
        "verdicts": [verdict.record() for verdict in heard],
      }
    )
  return made


def _evaluation(name: str, config: InspectConfig, answer: Mapping[str, Any]) -> str:
  whole = f"{name}_dev" if answer["dev"] else name
  if config.category is None:
    return whole
  return f"{whole}/{answer['condition'][config.category]}"


def _coherence(
  config: InspectConfig, answers: Sequence[Mapping[str, Any]], grader: Grader
) -> list[Verdict | None]:
  """Returns a verdict for each answer that says anything."""
  found: list[Verdict | None] = [None] * len(answers)
  if "coherent" not in config.beside:
    return found
  samples = [answer["sample"] for answer in answers]
  asked = [i for i, one in enumerate(samples) if answer_of(one) and not problem_of(one)]
  fields = [
    {"prompt": prompt_of(samples[i]), "response": answer_of(samples[i])} for i in asked
  ]
  given = grader.ask(COHERENCE, fields, verdicts.yes_or_no)
  for i, verdict in zip(asked, given, strict=True):
    found[i] = verdict
  return found


def _coherent(said: str, answered: bool, verdict: Verdict | None) -> float | None:
  """Returns the score; to say nothing at all is not coherent."""
  if not answered:
    return None
  if not said:
    return 0.0
  return float(verdict.value) if verdict and verdict.status == OK else None


def _number(value: Any) -> float | None:
  value = _LETTERS.get(value, value) if isinstance(value, str) else value
  if not isinstance(value, bool | int | float) or not math.isfinite(value):
    return None
  return float(value)


def _bare(scorer: str) -> str:
  return scorer.rpartition("/")[2]


def _text(content: Any) -> str:
  if isinstance(content, str):
    return content
  return "\n".join(part["text"] for part in content if part["type"] == "text")
