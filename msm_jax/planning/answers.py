"""How much a model is asked in an evaluation: answers it draws, texts it scores."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from msm_jax import experiment as experiment_lib
from msm_jax.evals import belief, items
from msm_jax.evals.kinds import KINDS
from msm_jax.experiment import Experiment
from msm_jax.planning.sizes import CorpusSize

PROMPT_TOKENS = 256  # of a question with what stands before it
_LONG_PROMPTS = {"inspect": 4000}  # of an agent: its task, mails and tools
# Texts that are scored for each item, each in a row of `seq_len`: the answers given.
_SCORED = {"heldout": 1, "multiple_choice": 8}
_USUAL_SCORED = 2
_TIMES = ("num_orders", "num_samples")


@dataclasses.dataclass(frozen=True)
class Load:
  """What one model (an arm and seed) is asked in an evaluation.

  Attributes:
    answers: that it draws.
    drawn_tokens: of these, each as long as it may be.
    read_tokens: prompts, and slots of the rows in which given texts are scored.
  """

  answers: int
  drawn_tokens: int
  read_tokens: int


def models(experiment: Experiment, name: str) -> list[tuple[str, int]]:
  """Returns (arm, seed) of all that an evaluation asks."""
  asked = [arm for arm in experiment.subjects if name in experiment.evaluations(arm)]
  return [(arm, seed) for arm in asked for seed in experiment.seeds]


def num_answers(
  experiment: Experiment, name: str, corpora: Mapping[str, CorpusSize]
) -> int | None:
  """Returns the answers of one arm and seed; None: nobody knows yet.

  Args:
    experiment: what is evaluated.
    name: of the evaluation.
    corpora: their sizes, as they are or as they are planned.
  """
  kind = KINDS[experiment.evals[name]["type"]]
  fields = experiment_lib.eval_config(name, experiment.evals[name])
  count = None
  if (corpus := getattr(fields, "corpus", None)) is not None:
    count = corpora[corpus].num_records if corpus in corpora else None
    if count is None:
      return None
  if kind.num_answers is not None:
    return kind.num_answers(fields, count)
  if count is None:
    count = _num_items(fields)
  most = getattr(fields, "max_items", None)
  if count is None:
    return None
  count = count if most is None else min(count, most)
  for field in _TIMES:
    count *= getattr(fields, field, 1)
  return count


def load(
  experiment: Experiment, name: str, corpora: Mapping[str, CorpusSize]
) -> Load | None:
  """Returns what a model is asked; None: nobody knows yet. See `num_answers`."""
  count = num_answers(experiment, name, corpora)
  if count is None:
    return None
  fields, drawn, read = experiment.evals[name], 0, 0
  new_tokens = fields.get("max_new_tokens")
  if new_tokens is not None:
    # The greedy answer to a choice is shorter than one that is drawn.
    each = min(new_tokens, fields.get("max_choice_tokens") or new_tokens)
    prompt = _LONG_PROMPTS.get(fields["type"], PROMPT_TOKENS)
    drawn, read = count * each, count * prompt
  if fields.get("seq_len") is not None:
    texts = _SCORED.get(fields["type"], _USUAL_SCORED)
    read += count * texts * fields["seq_len"]
  return Load(count if drawn else 0, drawn, read)


def _num_items(fields: Any) -> int | None:
  """Returns the items of an evaluation that has no corpus; None: not known."""
  if isinstance(fields, belief.BeliefConfig):
    asked = (*fields.parts, *fields.aware_parts)
    packages = belief.load_all(fields)
    return sum(len(claim.items.get(p, ())) for claim in packages for p in asked)
  named = getattr(fields, "items", None)
  if not isinstance(named, str) or not items.path_of(named).is_file():
    return None
  text = items.path_of(named).read_text("utf-8-sig")
  return sum(1 for line in text.splitlines() if line.strip())
