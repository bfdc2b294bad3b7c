"""What a grader is asked and says; `judge.py` asks real ones."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

OK, UNPARSED, FAILED = "ok", "unparsed", "failed"
# What the evaluations of a grader that measures nothing are called by.
REHEARSAL = "rehearsal_of_"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """What a kind asks a grader, for the plan and for the identity of its scores.

  Attributes:
    name: of `evals/prompts/<name>.txt`.
    response_tokens: of a usual answer.
    per_answer: requests for each answer of a model.
    per_model: requests for each (arm, seed) beside these.
  """

  name: str
  response_tokens: int
  per_answer: float = 1.0
  per_model: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
  """What a grader said of one answer.

  Attributes:
    status: OK, UNPARSED (it answered something else) or FAILED (it did not answer).
    value: what was parsed; None unless `status` is OK: never scored as anything.
    text: the grader's whole answer.
    reason: why there is no value; "" if there is one.
    grader: client, model and the version that answered.
    prompt_hash: of what it read.
  """

  status: str
  value: Any
  text: str
  reason: str
  grader: Mapping[str, str]
  prompt_hash: str

  def record(self) -> dict[str, Any]:
    """Returns what is kept beside a score."""
    return dataclasses.asdict(self)


class Grader(Protocol):
  """Asks a judge; what was asked once is not paid again.

  Attributes:
    is_rehearsal: its verdicts are drawn at random and measure nothing.
  """

  is_rehearsal: bool

  def ask(
    self,
    stage: str,
    fields: Sequence[Mapping[str, Any]],
    parse: Callable[[str], Any],
    *,
    schema: Mapping[str, Any] | None = None,
    samples: Sequence[int] | None = None,
  ) -> list[Verdict]:
    """Returns a verdict for every element of `fields`, in order.

    Args:
      stage: of `evals/prompts/<stage>.txt`.
      fields: what goes into its places, one mapping for each request.
      parse: the grader's text -> value, None if it is not what was asked for.
      schema: JSON schema of the answer; None: plain text.
      samples: tells requests with the same words apart; None: 0 for all.

    Raises:
      UserError: the key or the model is refused, or a field is missing.
      Stopped: out of budget, rate limited for too long, interrupted.
    """
    ...

  def spec_text(self, name: str) -> str:
    """Returns the text of `config.specs.<name>`, its names filled in.

    Raises:
      UserError: there is no such spec, or it cannot be read.
    """
    ...

  def together(self, works: Iterable[Callable[["Grader"], Any]]) -> None:
    """Does several pieces of work, what they ask going out together.

    Args:
      works: each asks the grader that it is given; it may be begun several times, and
        is over when it returns.
    """
    ...


def rehearsed(line: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a line under a name that no measurement has."""
  also = [f"{REHEARSAL}{name}" for name in line.get("also", ())]
  return {**line, "evaluation": f"{REHEARSAL}{line['evaluation']}", "also": also}


def num_lost(lines: Iterable[Mapping[str, Any]]) -> int:
  """Returns how many lines lack a verdict that the grader did not give."""
  return sum(
    any(verdict["status"] == FAILED for verdict in line.get("verdicts", ()))
    for line in lines
  )
