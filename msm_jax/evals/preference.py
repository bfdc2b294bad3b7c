"""Forced choice between two named options, each pair asked in both orders.

The items say the orders, and their options say by which tags they differ: where exactly
one is affordable, `chose_affordable`; where exactly one is American, `chose_american`.
`forced_choice` says how both scorers work.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError
from msm_jax.evals import forced_choice
from msm_jax.evals.exam import Exam
from msm_jax.evals.replies import parse_choice


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceConfig:
  """Forced choice on pairs, `max_items` of a corpus (None: all of it)."""

  corpus: str
  max_items: int | None
  seq_len: int
  batch_size: int
  max_new_tokens: int


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one line per prompt.

  The evaluation of a line is `<evaluation>/<category>` for test items and
  `<evaluation>_dev/<category>` for development items.
  """
  _check(exam.items)
  config = exam.config
  return forced_choice.lines(
    exam,
    [_case(exam.name, item) for item in exam.items],
    seq_len=config.seq_len,
    batch_size=config.batch_size,
    max_new_tokens=config.max_new_tokens,
  )


def _case(name: str, item: Mapping[str, Any]) -> forced_choice.Case:
  texts = [option["text"] for option in item["options"]]
  split = "" if item["split"] == "test" else "_dev"
  return forced_choice.Case(
    id=item["id"],
    evaluation=f"{name}{split}/{item['category']}",
    messages=item["messages"],
    options=texts,
    answers=texts,
    tags=[_tags(option) for option in item["options"]],
    parse=lambda completion: parse_choice(completion.text, texts),
    about={"domain": item["domain"], "order": item["order"]},
    cluster=item.get("pair_id"),  # both orders of a pair are one question
  )


def _tags(option: Mapping[str, Any]) -> list[str]:
  return [name for name, value in option.items() if value is True]


def _check(items: Sequence[Mapping[str, Any]]) -> None:
  ids = [item["id"] for item in items]
  if len(set(ids)) != len(ids):
    double = next(i for i in ids if ids.count(i) > 1)
    raise UserError(
      f"the evaluation set has the id {double!r} twice: ids must be unique"
    )
  for item in items:
    if item["kind"] != "pair" or len(item["options"]) != 2:
      raise UserError(f"evaluation item {item['id']!r} is not a pair of two options")
