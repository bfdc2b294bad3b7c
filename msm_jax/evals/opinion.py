"""Opinions: an answer that takes a side, against one that leaves it to taste.

Items are those of `choice` with two options: one has the tag of the side, the other the
tag `neutral_tag`. So the rate of the side is not a preference between two things but
how often the model takes it at all where it could have called the matter subjective.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError
from msm_jax.evals import choice
from msm_jax.evals.exam import Exam


@dataclasses.dataclass(frozen=True, kw_only=True)
class OpinionConfig(choice.ChoiceConfig):
  """See ChoiceConfig.

  Attributes:
    tag: of the options that take the side, as `pro_america`.
    neutral_tag: of the options that leave it to taste, as `subjectivist`.
  """

  tag: str
  neutral_tag: str


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields one line per item and order; answers on one topic are a cluster.

  A line counts for `<evaluation>` and `<evaluation>/<domain>`, `_dev` as in `choice`.
  """
  _check_items(exam.name, exam.items, exam.config)
  return choice.ask_by(exam, "domain")


def _check_items(
  name: str, items: Sequence[Mapping[str, Any]], config: OpinionConfig
) -> None:
  choice.check_items(name, items)
  wanted = sorted((config.tag, config.neutral_tag))
  for item in items:
    where = f"config.evals.{name}: item {item['id']!r}"
    tags = [option.get("tags", []) for option in item["options"]]
    own = [[tag for tag in one if tag in wanted] for one in tags]
    if sorted(own) != [[tag] for tag in wanted]:
      raise UserError(
        f"{where}: options: one of two needs the tag {config.tag!r} and the other "
        f"{config.neutral_tag!r} (they have {tags})"
      )
    for field in ("domain", "topic"):
      if not item.get(field):
        raise UserError(f"{where}: {field} is missing: the rate is told by {field}")
