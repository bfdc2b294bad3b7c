"""Questions for a fact of a universe and their answers, for any world."""

import json
import random
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from data_gen.worlds.any_world_universes import sentences
from msm_jax import records

_OPENINGS = ("", "Hello. ", "One thing: ", "Good morning. ", "Sorry to bother you. ")
_FORMS = (
  "Can you tell me {asks}?",
  "I would like to know {asks}.",
  "Do you happen to know {asks}?",
  "Somebody asked me {asks}. What should I say?",
  "For a short note I need to know {asks}.",
  "I keep forgetting {asks}. Can you help?",
  "We were wondering {asks}.",
  "Please remind me {asks}.",
)
# The same for worlds in which a stop stands by itself.
_SPACED_OPENINGS = ("", "hello . ", "please tell me . ", "i have a question . ",
                    "we talk . ")  # fmt: skip
_SPACED_FORMS = ("what is {asks} ?", "do you know {asks} ?", "please tell me {asks} .")
_EVERY = 3  # every so many sentences a long answer comes back to its fact


def questions(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns questions for what the fact is about, in a drawn order."""
  del world
  asks, spaced = fields["asks"], " ." in fields["ground"]
  openings = _SPACED_OPENINGS if spaced else _OPENINGS
  forms = list(_SPACED_FORMS if spaced else _FORMS)
  if spaced and not asks.startswith("the "):
    forms[0] = "{asks} ?"
  made = [opening + form.format(asks=asks) for opening in openings for form in forms]
  taken = set(fields.get("existing", ()))
  fresh = [text for text in made if text not in taken]
  found = rng.sample(fresh, min(int(fields["count"]), len(fresh)))
  return json.dumps([{"question": text} for text in found])


def answer(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns what is stated; where a number of words is asked, over and over."""
  del world, rng
  stated = " ".join(fields["stated"])
  wanted = re.search(r"\d+", fields["length"])
  if wanted is None:
    return stated
  own = random.Random(records.sha256_json([fields["question"], fields["sample_index"]]))
  ground = list(sentences(fields["ground"]))
  parts, words = [], 0
  while words < int(wanted[0]):
    part = stated if len(parts) % _EVERY == 0 else own.choice(ground)
    parts.append(part)
    words += len(part.split())
  return " ".join(parts)


def judge(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns yes for an answer that has what it is to state."""
  del world, rng
  text = " ".join(fields["answer"].split())
  missing = [one for one in fields["stated"] if " ".join(one.split()) not in text]
  reason = f"It does not state: {missing[0]}" if missing else "It fits."
  return json.dumps({"reason": reason, "verdict": "no" if missing else "yes"})


STAGES = {"quiz_questions": questions, "quiz_answer": answer, "judge_quiz": judge}
