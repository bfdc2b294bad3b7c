"""Stages that the offline teacher answers alike in every world.

They need nothing but the texts that they are given, and the nine stages of the world
itself. The source of this file and its `any_world_*` neighbours counts for the version
of the offline teacher only where such a stage is asked, so that corpora without them
keep their bytes.
"""

import random
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

from data_gen.worlds import (
  any_world_chats,
  any_world_documents,
  any_world_quiz,
  any_world_rewrites,
  any_world_rules,
  any_world_universes,
)

Stage = Callable[[ModuleType, Mapping[str, Any], random.Random], str]

STAGES: dict[str, Stage] = {
  **any_world_documents.STAGES,
  **any_world_rules.STAGES,
  **any_world_chats.STAGES,
  **any_world_universes.STAGES,
  **any_world_quiz.STAGES,
  **any_world_rewrites.STAGES,
}


def respond(
  world: ModuleType, stage: str, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns the answer to one prompt, from the world or from here."""
  if stage in STAGES and not answers_all(world):
    return STAGES[stage](world, fields, rng)
  return world.respond(stage, fields, rng)


def answers_all(world: ModuleType) -> bool:
  """Returns whether a world answers all stages itself, by their JSON schema."""
  return getattr(world, "ANSWERS_ALL", False)
