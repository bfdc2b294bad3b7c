"""Who graded what, and how often in vain."""

import collections
import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.evals.grading import FAILED, OK, REHEARSAL, UNPARSED

_JUDGE_NOTHING = ("offline", "stub")  # clients that judge nothing
_REMEDY = "delete the file and run `evaluate` again"


@dataclasses.dataclass(kw_only=True)
class Graded:
  """The verdicts on the answers of one (arm, seed, evaluation), or of several.

  Attributes:
    statuses: status -> verdicts.
    graders: 'client/model' -> verdicts.
    prompts: hashes of what was read, one for each answer and question about it.
    gradings: digests of grader, prompt templates and spec, as the lines state them.
    is_rehearsal: whether some verdict is of a client that judges nothing.
  """

  statuses: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  graders: collections.Counter[str] = dataclasses.field(
    default_factory=collections.Counter
  )
  prompts: set[str] = dataclasses.field(default_factory=set)
  gradings: set[str] = dataclasses.field(default_factory=set)
  is_rehearsal: bool = False

  def add(self, line: Mapping[str, Any], where: str) -> None:
    """Counts the verdicts of one answer; raises a UserError for what is none."""
    if line.get("grading"):
      self.gradings.add(str(line["grading"]))
    verdicts = line["verdicts"]
    for verdict in verdicts if isinstance(verdicts, list) else [verdicts]:
      if not isinstance(verdict, Mapping) or verdict.get("status") not in (
        OK,
        UNPARSED,
        FAILED,
      ):
        raise UserError(f"{where} has the verdict {verdict!r}: {_REMEDY}")
      grader = verdict.get("grader") or {}
      self.statuses[verdict["status"]] += 1
      self.graders[name(grader)] += 1
      self.prompts.add(str(verdict.get("prompt_hash", "")))
      self.is_rehearsal |= is_rehearsal(grader)

  @property
  def total(self) -> int:
    return self.statuses.total()

  @property
  def prompt_hash(self) -> str:
    """The hash of what was read; of all the hashes where there are several."""
    if len(self.prompts) == 1:
      return next(iter(self.prompts))[:16]
    return records.sha256_json(sorted(self.prompts))[:16]

  def in_vain(self) -> str:
    """Returns '3 unparsed, 1 failed', '' if every verdict was parsed."""
    parts = [(UNPARSED, "unparsed"), (FAILED, "failed")]
    return ", ".join(f"{self.statuses[k]} {w}" for k, w in parts if self.statuses[k])

  def to_json(self) -> dict[str, Any]:
    """Returns the counts as plain JSON values."""
    return {
      "graders": dict(sorted(self.graders.items())),
      "gradings": sorted(self.gradings),
      "prompt_hash": self.prompt_hash,
      "num_prompts": len(self.prompts),
      "verdicts": self.total,
      "unparsed": self.statuses[UNPARSED],
      "failed": self.statuses[FAILED],
      "rehearsal": self.is_rehearsal,
    }


def name(grader: Mapping[str, Any]) -> str:
  """Returns 'client/model', with the version that answered where it is another one."""
  parts = [str(grader.get(key) or "") for key in ("client", "model", "model_version")]
  shown = "/".join(part for part in parts[:2] if part) or "unnamed"
  return f"{shown} ({parts[2]})" if parts[2] not in ("", parts[1]) else shown


def is_rehearsal(grader: Mapping[str, Any]) -> bool:
  """Whether a grader only stands in for one."""
  return str(grader.get("client")) in _JUDGE_NOTHING


def merged(found: Iterable[Graded]) -> Graded:
  """Returns the counts of several together."""
  whole = Graded()
  for each in found:
    whole.statuses += each.statuses
    whole.graders += each.graders
    whole.prompts |= each.prompts
    whole.gradings |= each.gradings
    whole.is_rehearsal |= each.is_rehearsal
  return whole


def is_rehearsed(evaluation: str, graded: Graded | None) -> bool:
  """Whether the numbers of an evaluation measure nothing."""
  return evaluation.startswith(REHEARSAL) or (
    graded is not None and graded.is_rehearsal
  )


def by_evaluation(
  graded: Mapping[tuple[str, int, str], Graded],
) -> dict[str, Graded]:
  """Returns evaluation -> all of its verdicts."""
  names = dict.fromkeys(sorted(key[2] for key in graded))
  return {
    name: merged(value for key, value in graded.items() if key[2] == name)
    for name in names
  }
