"""A grader that reads nothing: it draws its verdicts, so that a flow can be rehearsed.

The rule: wherever the JSON schema of an answer leaves a choice, one is drawn at random,
always the same one for the same prompt; every text says that it is a rehearsal. What
comes of it measures nothing.
"""

import json
import random
from collections.abc import Mapping
from typing import Any

TEXT = "rehearsal: drawn at random, nobody read the answer"
# It answers all stages itself: those of evaluations are not those of chains.
ANSWERS_ALL = True


def respond(stage: str, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns an answer that fits `fields["schema"]`; without one, a text with a verdict
  in the marks that graders of text are asked for.
  """
  del stage
  if fields["schema"] is None:
    return f"{TEXT}\n<answer>{rng.choice(('yes', 'no'))}</answer>"
  return json.dumps(_draw(fields["schema"], rng))


def _draw(schema: Mapping[str, Any], rng: random.Random) -> Any:
  if "enum" in schema:
    return rng.choice(list(schema["enum"]))
  kind = schema.get("type")
  if kind == "object":
    return {name: _draw(inner, rng) for name, inner in schema["properties"].items()}
  if kind == "array":
    low = schema.get("minItems", 1)
    count = rng.randint(low, schema.get("maxItems", max(low, 3)))
    return [_draw(schema["items"], rng) for _ in range(count)]
  if kind == "integer":
    return rng.randint(schema.get("minimum", 0), schema.get("maximum", 10))
  if kind == "number":
    return rng.uniform(schema.get("minimum", 0), schema.get("maximum", 1))
  if kind == "boolean":
    return rng.random() < 0.5
  return TEXT
