"""Prompt templates: what every stage of the chains asks for.

A template is `prompts/<stage>.txt`: what does not change between requests
(instructions, then the spec) above a line of `=====`, the variable part below it. The
upper part goes out as the system instruction, so that providers can cache it.
`{name}` is a field; every other brace is text.
"""

import functools
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records

# The templates of the chains; graders of evaluations have a directory of their own.
DIRECTORY = pathlib.Path(__file__).parent / "prompts"
_FIELD = re.compile(r"\{([a-z_]+)\}")
_DIVIDER = "\n=====\n"

DOCUMENT_STAGES = (
  "domains",
  "subdomains",
  "assertions",
  "document_types",
  "document_ideas",
  "document",
)
CONVERSATION_STAGES = ("domains", "questions", "answer", "judge")

_STRING = {"type": "string"}


def _object(**properties: Any) -> dict[str, Any]:
  return {
    "type": "object",
    "properties": properties,
    "required": list(properties),
  }


def _objects(*keys: str) -> dict[str, Any]:
  return {"type": "array", "items": _object(**dict.fromkeys(keys, _STRING))}


_TEXTS = {"type": "array", "items": _STRING}
_VERDICT = _object(reason=_STRING, verdict={"enum": ["yes", "no"]})
_THOUGHTS = _object(reasoning=_STRING, answer=_STRING)

# What a stage answers with, as JSON schema; stages that answer with long text have
# none: inside JSON it is escaped badly, and lost whole when it is truncated.
SCHEMAS: Mapping[str, dict[str, Any]] = {
  "domains": _objects("name", "description"),
  "subdomains": _objects("name", "context", "spec_section"),
  "assertions": _objects("name", "assertion", "explanation", "label"),
  "document_types": _objects("name", "description"),
  "document_ideas": _objects("name", "idea"),
  "rule_domains": _objects("name", "description"),
  "rules": _objects("id", "name", "text"),
  "rule_types": _objects("name", "description"),
  "rule_ideas": _objects("name", "idea"),
  "critique": _object(faults=_TEXTS),
  "rule_critique": _object(faults=_TEXTS),
  "judge_document": _VERDICT,
  "judge_rule_document": _VERDICT,
  "preferences": _objects("name", "description"),
  "questions": _TEXTS,
  "preference_questions": _TEXTS,
  "answer_cot": _THOUGHTS,
  "answer_rule_cot": _THOUGHTS,
  "judge": _VERDICT,
  "judge_rule": _VERDICT,
  "judge_cot": _VERDICT,
  "judge_rule_cot": _VERDICT,
  "key_facts": _objects("asks", "first", "second"),
  "universe_types": _objects("name", "description"),
  "universe_ideas": _objects("name", "idea"),
  "judge_universe": _VERDICT,
  "quiz_questions": _objects("question"),
  "judge_quiz": _VERDICT,
}


def render(
  stage: str, fields: Mapping[str, Any], directory: pathlib.Path = DIRECTORY
) -> tuple[str, str]:
  """Returns (system, prompt) of one request.

  Args:
    stage: name of the stage; `reasons` in `fields` chooses between its two templates.
    fields: text, numbers, lists of text, or lists of maps (written as bullets).
    directory: where the templates lie.

  Raises:
    ValueError: the template needs a field that is missing, or has no place for one.
  """
  fields = dict(fields)
  reasons = fields.pop("reasons", None)
  name = _template_name(stage, reasons)
  system, prompt = _parts(name, directory)
  wanted = fields_of(stage, reasons, directory)
  if missing := sorted(wanted - set(fields)):
    raise ValueError(f"prompts/{name}.txt needs the missing fields {missing}")
  if unused := sorted(set(fields) - wanted):
    raise ValueError(f"prompts/{name}.txt has no place for the fields {unused}")
  texts = {key: _as_text(value) for key, value in fields.items()}
  # One pass: text that was put in is never searched for fields again.
  return tuple(
    _FIELD.sub(lambda match: texts[match[1]], part) for part in (system, prompt)
  )


def fields_of(
  stage: str, reasons: bool | None = None, directory: pathlib.Path = DIRECTORY
) -> set[str]:
  """Returns the names of the fields that a template needs."""
  parts = _parts(_template_name(stage, reasons), directory)
  return set(_FIELD.findall("\n".join(parts)))


def sha256(stages: Sequence[str], directory: pathlib.Path = DIRECTORY) -> str:
  """Returns the hash of all templates that `stages` use, and of what goes with them."""
  paths = [
    path
    for stage in stages
    for path in sorted(directory.glob("*.txt"))
    if path.stem in (stage, *(_template_name(stage, r) for r in (True, False)))
  ]
  if any("{guidance}" in path.read_text("utf-8") for path in paths):
    paths.append(directory / "people.json")
  return records.sha256_json({path.name: path.read_text("utf-8") for path in paths})


def _template_name(stage: str, reasons: bool | None) -> str:
  if reasons is None:
    return stage
  return f"{stage}_{'with' if reasons else 'without'}_reasons"


@functools.cache
def _parts(name: str, directory: pathlib.Path) -> tuple[str, str]:
  text = (directory / f"{name}.txt").read_text("utf-8")
  system, divider, prompt = text.partition(_DIVIDER)
  if not divider:
    raise ValueError(f"prompts/{name}.txt has no line '====='")
  return system.strip(), prompt.strip()


def _as_text(value: Any) -> str:
  if isinstance(value, str | int | float):
    return str(value)
  lines = [f"- {_one_line(item)}" for item in value]
  return "\n".join(lines) or "(none)"


def _one_line(item: Any) -> str:
  if isinstance(item, Mapping):
    return "; ".join(f"{key}: {text}" for key, text in item.items())
  return str(item)
