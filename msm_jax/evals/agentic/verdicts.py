"""What a grader is asked of an agent's answer, and how its answer is read."""

import pathlib
import re
from collections.abc import Mapping

from msm_jax import records

_PROMPTS = pathlib.Path(__file__).parents[1] / "prompts"
_FIELD = re.compile(r"\{([a-z_]+)\}")
_ANSWER = re.compile(r"<answer>\s*(yes|no)\s*</answer>", re.IGNORECASE)


def render(stage: str, fields: Mapping[str, str]) -> tuple[str, str]:
  """Returns (system, prompt): the two parts of `prompts/<stage>.txt`, filled."""
  upper, _, lower = (
    (_PROMPTS / f"{stage}.txt").read_text("utf-8").partition("\n=====\n")
  )
  return tuple(_FIELD.sub(lambda m: fields[m[1]], part) for part in (upper, lower))


def yes_or_no(text: str) -> bool | None:
  """Returns a grader's verdict; None unless it gave exactly one, or the same twice."""
  found = {answer.lower() for answer in _ANSWER.findall(text)}
  return found.pop() == "yes" if len(found) == 1 else None


def sha256(stage: str) -> str:
  """Returns the digest of a stage's prompt."""
  return records.sha256_text((_PROMPTS / f"{stage}.txt").read_text("utf-8"))
