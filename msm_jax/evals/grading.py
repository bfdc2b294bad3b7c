"""What a grader is asked and says; `judge.py` asks real ones."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

OK, UNPARSED, FAILED = "ok", "unparsed", "failed"


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
  """Asks a judge; what was asked once is not paid again."""

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
