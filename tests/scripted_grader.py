"""A grader that says what a test has it say; it reads the real prompts."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from msm_jax import evals
from msm_jax.evals.grading import FAILED, OK, UNPARSED, Verdict

_PROMPTS = pathlib.Path(evals.__file__).parent / "prompts"
DOWN = None  # what a grader says that does not answer


@dataclasses.dataclass
class ScriptedGrader:
  """See `grading.Grader`; `says` maps (stage, fields) to text, or to DOWN."""

  says: Callable[[str, Mapping[str, Any]], str | None]
  asked: list[tuple[str, Mapping[str, Any]]] = dataclasses.field(default_factory=list)
  is_rehearsal: bool = False

  def ask(self, stage, fields, parse, *, schema=None, samples=None) -> list[Verdict]:
    """See `grading.Grader`."""
    return [self._verdict(stage, each, parse) for each in fields]

  def _verdict(self, stage, fields, parse) -> Verdict:
    template = (_PROMPTS / f"{stage}.txt").read_text("utf-8")
    assert "\n=====\n" in template
    assert set(re.findall(r"\{([a-z_]+)\}", template)) == set(fields)
    self.asked.append((stage, fields))
    about = {"grader": {"client": "scripted"}, "prompt_hash": "0" * 16}
    text = self.says(stage, fields)
    if text is DOWN:
      return Verdict(status=FAILED, value=None, text="", reason="HTTP 503", **about)
    value = parse(text)
    status, reason = (UNPARSED, "not as asked") if value is None else (OK, "")
    return Verdict(status=status, value=value, text=text, reason=reason, **about)
