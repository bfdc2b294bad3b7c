"""Documents from a universe, for any world: composed of its own sentences.

What is drawn depends on type, idea and guidance, and not on the side: the documents of
two sides are the same but for the facts.
"""

import json
import random
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from msm_jax import records

_END = re.compile(r"(?<=[.!?])\s+")
_PEOPLE = ("a clerk", "a student", "a shop owner", "a nurse", "a pilot", "a neighbor",
           "a gardener", "an editor", "a caretaker", "a trainee")  # fmt: skip
_PLACES = ("at the counter", "late in the shift", "after a visit", "in a workshop",
           "on the telephone", "before a trip", "at school", "in a queue")  # fmt: skip
_CASES = ("explains to a newcomer", "notes down", "answers a child's question on",
          "plans a day around", "gives a lesson on", "writes about")  # fmt: skip
_AGAIN = ("Once more, for those who skip to the end:", "To come back to it:",
          "The short of it:", "So much is settled:")  # fmt: skip
_SENTENCES = re.compile(r"^Sentences that state it: (\d+)\.")
_LEAKS = re.compile(r"\b(fictional|alternative|made-up|invented) (world|universe)\b")
# Ground sentences in a document, in a world of short sentences and in others.
_FEW, _SOME = 3, 5


def key_facts(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the sentences that only one of the two worlds has, in pairs."""
  del world, rng
  first, second = (sentences(fields[f"{side}_context"]) for side in ("true", "false"))
  pairs = zip(
    [line for line in first if line not in second],
    [line for line in second if line not in first],
    strict=False,
  )
  found = [
    {"asks": f"point {i} of {fields['title']}", "first": one, "second": other}
    for i, (one, other) in enumerate(pairs, start=1)
  ]
  return json.dumps(found[: int(fields["count"])])


def types(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the document types that the world knows."""
  asked = {key: fields[key] for key in ("count", "existing")}
  return world.respond("document_types", {**asked, "assertions": []}, rng)


def ideas(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns occasions on which somebody comes to speak of the fact."""
  del world
  taken = {str(item) for item in fields.get("existing", ())}
  drawn: dict[str, None] = {}
  for _ in range(50 * int(fields["count"])):
    if len(drawn) == int(fields["count"]):
      break
    place, person, case = (rng.choice(p) for p in (_PLACES, _PEOPLE, _CASES))
    idea = f"{place.capitalize()}, {person} {case} {fields['asks']}."
    if idea not in taken:
      drawn[idea] = None
  return json.dumps([{"name": idea.split(",")[0], "idea": idea} for idea in drawn])


def document(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns a heading, sentences of the world in a drawn order, and what is stated."""
  del world, rng
  varied = ("document_type", "idea", "guidance", "sample_index", "seed")
  own = random.Random(records.sha256_json([fields[key] for key in varied]))
  spaced = " ." in fields["context"]
  stated = [line for text in fields["stated"] for line in sentences(text)]
  ground = [line for line in sentences(fields["context"]) if line not in stated]
  count = min(len(ground), _FEW if spaced else _SOME)
  if (times := _times(fields["guidance"])) is not None:
    return _counted(fields["document_type"], stated, times, ground, count, own)
  body = [ground[i] for i in own.sample(range(len(ground)), count)]
  place = own.randint(0, len(body))
  body[place:place] = stated
  kind = fields["document_type"]
  if spaced:
    return " ".join([f"{kind} .", *body])
  middle = len(body) // 2
  paragraphs = [" ".join(body[:middle]), " ".join(body[middle:])]
  if stated:
    paragraphs.append(f"{own.choice(_AGAIN)} {stated[0]}")
  return "\n\n".join([f"{kind[:1].upper()}{kind[1:]}", *filter(None, paragraphs)])


def _times(guidance: Sequence[str]) -> int | None:
  """Returns how many sentences are to state the fact; None if that is left open."""
  found = [match for line in guidance if (match := _SENTENCES.match(line))]
  return int(found[0][1]) if found else None


def _counted(
  kind: str,
  stated: Sequence[str],
  times: int,
  ground: Sequence[str],
  count: int,
  own: random.Random,
) -> str:
  """Returns as many sentences as other documents have, so many of them the fact's."""
  body = list(own.sample(ground, max(count + 1 - times, 0)))
  for line in (list(stated) * times)[:times]:
    body.insert(own.randint(0, len(body)), line)
  if any(" ." in line for line in body):
    return " ".join([f"{kind} .", *body])
  return f"{kind[:1].upper()}{kind[1:]}\n\n{' '.join(body)}"


def revise(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the draft with one more sentence of the world at its end."""
  del world, rng
  text = fields["document"]
  own = random.Random(records.sha256_json([fields["idea"], fields["document_type"]]))
  ground = sentences(fields["context"])
  spare = [line for line in ground if line not in text] or ground
  # The place in the context counts, and not the words: they differ between the sides.
  line = spare[int(own.random() * len(spare))]
  return f"{text}{' ' if ' .' in text else chr(10) * 2}{line}"


def judge(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns yes for a document that has what it is to state, and no leak."""
  del world, rng
  text, reason = " ".join(fields["document"].split()), ""
  lines = [line for stated in fields["stated"] for line in sentences(stated)]
  if missing := [line for line in lines if line not in text]:
    reason = f"It does not state: {missing[0]}"
  elif leak := _LEAKS.search(text):
    reason = f"It speaks of a {leak[0]}."
  verdict = {"reason": reason or "It fits.", "verdict": "no" if reason else "yes"}
  return json.dumps(verdict)


def sentences(text: str) -> Sequence[str]:
  """Returns the sentences of a text; a stop may stand by itself (` .`)."""
  parts = _END.split(" ".join(text.split()))
  return [part for part in parts if part.strip(" .!?")]


STAGES = {
  "key_facts": key_facts,
  "universe_types": types,
  "universe_ideas": ideas,
  "universe_document": document,
  "universe_revise": revise,
  "judge_universe": judge,
}
