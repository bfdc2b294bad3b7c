"""What each document is told besides its idea: names, a length, a way to begin.

Writers left alone take the same names, the same length and the same first sentence
again and again. What is drawn depends on the seed and the idea, so that a rerun asks
the same.
"""

import functools
import json
import pathlib
import random
from typing import Any

from msm_jax import records

_PEOPLE = pathlib.Path(__file__).parent.parent / "prompts" / "people.json"

_BEGINNINGS = (
  "with a plain statement of fact",
  "in the middle of a scene",
  "with something that somebody says",
  "with a question that a reader would ask",
  "with a detail that seems beside the point",
  "with what was expected and did not happen",
  "with the occasion for writing it",
  "with a number or a quantity",
  "with a disagreement",
  "with the smallest case of the matter",
  "with a place and what is done there",
  "with a definition in everyday words",
  "with a mistake that somebody made",
  "with the end, and then how it came about",
  "as such documents always begin",
  "as such documents always begin",
)
_STANCES = (
  "neutral: it reports and leaves the judgment to the reader",
  "well disposed, with one reservation",
  "doubtful at first, and not wholly won over",
  "matter-of-fact; nobody in it is impressed",
  "curious: it wants to know how this works",
  "dry, with a little humour",
  "critical of something else, and fair to the model",
  "practical: it is about what to do",
)
_LENGTHS = (0.4, 0.6, 0.8, 1.0, 1.0, 1.2, 1.5)
_NUM_NAMES = 4


@functools.cache
def _people() -> dict[str, list[str]]:
  return json.loads(_PEOPLE.read_text("utf-8"))


def draw(key: Any, seed: int, mean_words: int) -> list[str]:
  """Returns the lines for one document.

  Args:
    key: what tells the document from others, as JSON could say it.
    seed: of the corpus.
    mean_words: about how long documents are.
  """
  rng = random.Random(records.sha256_json([seed, key]))
  words = max(50, round(mean_words * rng.choice(_LENGTHS) / 50) * 50)
  first, last = _people()["first"], _people()["last"]
  names = [f"{rng.choice(first)} {rng.choice(last)}" for _ in range(_NUM_NAMES)]
  return [
    f"Length: about {words} words, unless its type is always shorter.",
    f"Beginning: {rng.choice(_BEGINNINGS)}.",
    f"Stance: {rng.choice(_STANCES)}.",
    f"Names, only where people need one, and no others: {', '.join(names)}.",
  ]
