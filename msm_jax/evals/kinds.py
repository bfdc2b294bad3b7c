"""The kinds of evaluation: `config.evals.<name>.type`.

A kind asks a model (`ask`) and, where it takes a grader, makes scores of the answers
afterwards, without the model (`grade`). Both yield one JSON object per answer; what is
written to `evals/<name>.<arm>.seed<k>.jsonl` has at least

    id          of the question
    evaluation  the evaluation's name, with parts behind it (`/category`, `_dev`)
    scores      metric -> number, null where there is none: never scored as anything
    weights     metric -> weight in the mean (1 if absent)
    cluster     answers that belong together (a condition, a claim); for the interval
    prompt, completion, verdicts   what the page shows
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msm_jax.evals import heldout, preference
from msm_jax.evals.exam import Exam
from msm_jax.evals.grading import Grader

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
  """

  config: type
  ask: Callable[[Exam], Iterator[Line]]
  grade: Callable[[str, Any, Sequence[Line], Grader], Iterator[Line]] | None = None
  check: Callable[[Any, str], None] | None = None
  sources: Callable[[Any], Mapping[str, str]] | None = None


KINDS: Mapping[str, Kind] = {
  "heldout": Kind(config=heldout.HeldoutConfig, ask=heldout.ask),
  "preference": Kind(config=preference.PreferenceConfig, ask=preference.ask),
}
