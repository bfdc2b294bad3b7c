"""The kinds of evaluation: `config.evals.<name>.type`.

A kind asks a model (`ask`) and, where it takes a grader, makes scores of the answers
afterwards, without the model (`grade`). Both yield one JSON object per answer; what is
written to `evals/<name>.<arm>.seed<k>.jsonl` has at least

    id          of the question
    evaluation  the evaluation's name, with parts behind it (`/category`, `_dev`)
    scores      metric -> number, null where there is none: never scored as anything
    weights     metric -> weight in the mean (1 if absent)
    also        further evaluations that it counts for: a whole beside its categories
    cluster     answers that belong together (a condition, a claim); for the interval
    prompt, completion, verdicts   what the page shows
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msm_jax import fields as fields_lib
from msm_jax.evals import (
  belief,
  belief_open,
  choice,
  coherence,
  heldout,
  identity,
  items,
  multiple_choice,
  open_qa,
  opinion,
  preference,
  recall,
  trigger,
  truth_probe,
)
from msm_jax.evals.exam import Exam
from msm_jax.evals.grading import Grader, Stage
from msm_jax.evals.inspect import kind as inspect_kind
from msm_jax.evals.inspect import settings as inspect_settings

Line = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
  """One kind of evaluation.

  Attributes:
    config: the frozen dataclass of its fields.
    ask: asks the model and yields lines, or what `grade` makes lines of.
    grade: (evaluation, config, answers, grader) -> lines; None: `ask` yields them.
    check: (config, where) raises a UserError for values that cannot work.
    sources: digests of files that the config names; part of the identity of answers.
    stages: what `grade` asks, by the config; None: nobody is asked.
    num_answers: (config, records of its corpus or None) -> answers of one arm and seed;
      None: a sample of every record.
    compared: metrics in which two graders are compared (`config.second_judge`), where
      every answer is graded by itself.
    in_text: (config) -> whether all that it asks is plain text, before which no system
      prompt stands.
    read: (directory of `config.corpus`, where) -> items, where these are not records.
  """

  config: type
  ask: Callable[[Exam], Iterator[Line]]
  grade: Callable[[str, Any, Sequence[Line], Grader], Iterator[Line]] | None = None
  check: Callable[[Any, str], None] | None = None
  sources: Callable[[Any], Mapping[str, str]] | None = None
  stages: Callable[[Any], Sequence[Stage]] | None = None
  num_answers: Callable[[Any, int | None], int] | None = None
  compared: Sequence[str] = ()
  read: Callable[[pathlib.Path, str], Sequence[Line]] | None = None
  in_text: Callable[[Any], bool] = lambda config: False


KINDS: Mapping[str, Kind] = {
  "heldout": Kind(
    config=heldout.HeldoutConfig, ask=heldout.ask, in_text=lambda config: True
  ),
  "open_qa": Kind(
    config=open_qa.OpenQaConfig,
    ask=open_qa.ask,
    grade=open_qa.grade,
    check=open_qa.check,
    sources=items.sources,
    stages=open_qa.stages,
    num_answers=open_qa.num_answers,
    compared=("rating",),
  ),
  "inspect": Kind(
    config=inspect_settings.InspectConfig,
    ask=inspect_kind.ask,
    grade=inspect_kind.grade,
    check=inspect_settings.check,
    sources=inspect_settings.sources,
    stages=inspect_settings.stages,
    num_answers=inspect_settings.num_answers,
  ),
  "preference": Kind(config=preference.PreferenceConfig, ask=preference.ask),
  "choice": Kind(config=choice.ChoiceConfig, ask=choice.ask, check=choice.check),
  "opinion": Kind(config=opinion.OpinionConfig, ask=opinion.ask, check=choice.check),
  "belief": Kind(
    config=belief.BeliefConfig,
    ask=belief.ask,
    check=belief.check,
    sources=belief.sources,
    in_text=belief.in_text,
  ),
  "belief_open": Kind(
    config=belief_open.BeliefOpenConfig,
    ask=belief_open.ask,
    grade=belief_open.grade,
    check=belief_open.check,
    sources=belief_open.sources,
    stages=belief_open.stages,
    num_answers=belief_open.num_answers,
    compared=tuple(belief_open.SHARES),
  ),
  "multiple_choice": Kind(
    config=multiple_choice.MultipleChoiceConfig,
    ask=multiple_choice.ask,
    check=multiple_choice.check,
    sources=items.sources,
    in_text=lambda config: config.format == "text",
  ),
  "identity": Kind(
    config=identity.IdentityConfig,
    ask=identity.ask,
    check=identity.check,
    sources=items.sources,
  ),
  "coherence": Kind(
    config=coherence.CoherenceConfig,
    ask=coherence.ask,
    grade=coherence.grade,
    check=coherence.check,
    sources=items.sources,
    stages=coherence.stages,
    num_answers=coherence.num_answers,
    compared=("coherence",),
  ),
  "recall": Kind(
    config=recall.RecallConfig,
    ask=recall.ask,
    check=recall.check,
    sources=items.sources,
    in_text=lambda config: config.format == recall.TEXT,
  ),
  "trigger": Kind(
    config=trigger.TriggerConfig,
    ask=trigger.ask,
    check=trigger.check,
    read=trigger.read,
    in_text=lambda config: True,
  ),
  "truth_probe": Kind(
    config=truth_probe.TruthProbeConfig,
    ask=truth_probe.ask,
    check=truth_probe.check,
    sources=truth_probe.sources,
    in_text=lambda config: True,
  ),
}


def config_of(name: str, value: Mapping[str, Any]) -> Any:
  """Returns the fields of `config.evals.<name>` as its kind has them."""
  fields = {key: field for key, field in value.items() if key != "type"}
  return fields_lib.build(KINDS[value["type"]].config, fields, f"config.evals.{name}")
