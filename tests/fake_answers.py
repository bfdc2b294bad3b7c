"""Answers that fit the prompts of the generation chains, well enough for a corpus."""

import hashlib
import json
import re
from typing import Any


def stage_of(prompt: str) -> str:
  """Returns the stage that a prompt belongs to."""
  starts = {
    "Divide the specification": "domains",
    "Divide the domain": "subdomains",
    "<section>": "assertions",
    "<message>": "judge",
  }
  for start, stage in starts.items():
    if prompt.startswith(start):
      return stage
  marks = {
    "Write the document.": "document",
    "further types of document": "document_types",
    "further ideas for documents": "document_ideas",
    "further messages of this kind": "questions",
    "further questions": "quiz_questions",
  }
  return next((stage for mark, stage in marks.items() if mark in prompt), "answer")


def answer(system: str, prompt: str) -> str:
  """Returns an answer in the format that the prompt asks for."""
  stage = stage_of(prompt)
  tag = hashlib.sha256((system + prompt).encode()).hexdigest()[:8]
  if stage in ("document", "answer"):
    return f"{stage} {tag} about the assistant and its reasons."
  return (
    "Here it is:\n```json\n" + json.dumps(_value(stage, system, prompt, tag)) + "\n```"
  )


def _value(stage: str, system: str, prompt: str, tag: str) -> Any:
  if stage == "judge":
    return {"reason": "fits", "verdict": "yes"}
  if stage == "domains":
    return [{"name": name, "description": "d"} for name in ("what", "why")]
  if stage == "subdomains":
    spec = system.split("<specification>\n")[1].split("\n</specification>")[0]
    return [
      {"name": f"part {i} {tag}", "context": "c", "spec_section": _beginning(part)}
      for i, part in enumerate(spec.split("## ")[1:])
    ]
  if stage == "assertions":
    item = {"name": f"a {tag}", "assertion": "It cares.", "explanation": "because"}
    return [{**item, "label": "value"}]
  count = int(re.search(r"exactly (\d+)", prompt)[1])
  names = [f"{stage} {i} {tag}" for i in range(count)]
  if stage == "questions":
    return names
  if stage == "quiz_questions":
    return [{"question": name} for name in names]
  return [{"name": name, "description": "d", "idea": f"idea {name}"} for name in names]


def _beginning(section: str) -> str:
  """Returns the heading of a section and its first words."""
  heading, _, body = section.partition("\n")
  return f"## {heading}\n{' '.join(body.split()[:20])}"
