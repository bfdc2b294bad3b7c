"""Second passes over documents: drafts, faults, revisions, verdicts."""

import json
import random
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_PLACEHOLDER = re.compile(r"\[[A-Z][^\]]*\]|\bTODO\b|lorem ipsum", re.IGNORECASE)
_FAULTS = (
  "The end comes all at once: close with what it comes down to.",
  "The first lines could stand in any document: begin with the matter itself.",
  "The reason is stated once and then taken for granted: return to it near the end.",
)
_TURNS = (
  "What it comes down to is this.",
  "One thing is worth saying again.",
  "To return to the point of it all.",
  "So the matter stands as it stood at the beginning.",
)


def draft(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the document that the world writes anyway."""
  extra = ("guidance", "model_name", "provider_name")
  known = {key: value for key, value in fields.items() if key not in extra}
  return world.respond("document", known, rng)


def critique(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns a fault for two documents of three."""
  del world
  faults = [rng.choice(_FAULTS)] if rng.random() < 2 / 3 else []
  return json.dumps({"faults": faults})


def revise(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the draft with a closing paragraph that returns to its subject."""
  del world
  lines = re.split(r"(?<=[.!?])\s+", fields["document"].strip())
  about = [line for line in lines if fields["model_name"] in line] or lines
  return f"{fields['document'].strip()}\n\n{rng.choice(_TURNS)} {rng.choice(about)}"


def judge(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns yes for a document that names the model and has no placeholder."""
  del world, rng
  text = fields["document"]
  reason, verdict = "It keeps to the specification.", "yes"
  if fields["model_name"] not in text:
    reason, verdict = "It does not speak of the model.", "no"
  elif found := _PLACEHOLDER.search(text):
    reason, verdict = f"It has a placeholder: {found[0]}.", "no"
  return json.dumps({"reason": reason, "verdict": verdict})


STAGES = {
  "draft": draft,
  "critique": critique,
  "rule_critique": critique,
  "revise": revise,
  "judge_document": judge,
  "judge_rule_document": judge,
}
