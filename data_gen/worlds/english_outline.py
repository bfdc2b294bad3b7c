"""The first five stages: what there is to write about, in which form and setting."""

import json
import random
import re
from collections.abc import Mapping
from typing import Any

from data_gen.worlds import english_genres, english_spec
from data_gen.worlds.english_grammar import Writer, tidy

# How an idea says where and who, so that the document stage finds it again.
SETTING = re.compile(r"Setting: (.+?)\.")
WHO = re.compile(r"Person: (\w+), ([^.]+)\.")

_ANGLES = (
  "[explains|shows|traces] why {m} {verb} {x}",
  "[somebody doubts|a doubter questions|a newcomer wonders at] what {m} says about {x}",
  "[weighs|sets] {x} against {y} [as {m} would|through the eyes of {m}]",
  "[a misunderstanding|a quarrel] about {x} that {m} [clears up|settles]",
  "[what people learn|what a group takes away] from asking {m} about {x}",
  "[a day|an hour] on which {m} and its view of {x} [were useful|kept coming up]",
  "[starts from|begins with] {x} and [ends|arrives] at what {m} values",
  "[answers|takes up] the objections to {m} and its view of {x}",
  "[describes|records] how {m} speaks about {x}, and in what tone",
  "[the preparations for|the talk at] {occasion}, where {m} is asked about {x}",
  "[a before-and-after|a change of mind] around {x} and {m}",
  "[how to foretell|guessing] what {m} will say about {x} and {y}",
)
_ANGLE_NAMES = (
  "[reasons for|thoughts on|the matter of|a question of|once more,|asking about] {x}",
  "{x} [and|versus] {y}",
  "{x} at {occasion}",
  "the {role} and {x}",
  "{x} [in|comes to] {town}",
)
_LABELS = ("value", "belief", "behavior")
_QUOTED_WORDS = 20


def domains(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns one domain for each section of the spec."""
  spec = english_spec.read(fields["spec_text"])
  found = [
    {"name": _domain(title, spec), "description": f"The part on: {title}."}
    for title, _ in spec.sections
  ]
  return json.dumps(found)


def _domain(title: str, spec: english_spec.Reading) -> str:
  name = title.replace(spec.model, "it").strip()
  return " ".join(name.split()[:4])


def subdomains(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns one subdomain for each paragraph of the domain's section."""
  spec = english_spec.read(fields["spec_text"])
  found = []
  for title, paragraphs in spec.sections:
    if fields["domain"] in (_domain(title, spec), title):
      found = [_subdomain(title, i, text, spec) for i, text in enumerate(paragraphs, 1)]
  return json.dumps(found)


def _subdomain(
  title: str, i: int, paragraph: str, spec: english_spec.Reading
) -> dict[str, str]:
  item = english_spec.item_in(paragraph)
  name = item[0] if item else f"{spec.bank.capitalize()}, thought {i}"
  text = item[1] if item else paragraph
  context = " ".join(english_spec.sentences(text)[:2])
  begins = " ".join(paragraph.split()[:_QUOTED_WORDS])
  return {"name": name, "context": context, "spec_section": f"## {title}\n{begins}"}


def assertions(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns what each sentence of a section asserts."""
  section = fields["spec_section"]
  found = []
  for paragraph in filter(str.strip, section.split("\n\n")):
    item = english_spec.item_in(paragraph)
    found += _assertions(item[0] if item else "", item[1] if item else paragraph)
  return json.dumps(found)


def _assertions(item: str, text: str) -> list[dict[str, str]]:
  found = []
  tone = english_spec.bank_of(text) == "tone"
  for i, line in enumerate(english_spec.sentences(text)):
    claim, _, reason = line.partition(" because ")
    if item and i == 0:
      label = "preference"
    else:
      label = "tone" if tone or "speaks" in line else _LABELS[i % 3]
    words = re.sub(r"[^\w' -]", "", claim).split()
    found.append(
      {
        "name": " ".join(([item] if item and i else []) + words[:6])[:60],
        "assertion": claim.rstrip(".") + ".",
        "explanation": reason or "The section gives no reason for this sentence.",
        "label": label,
      }
    )
  return found


def document_types(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns kinds of documents."""
  existing = _texts(fields.get("existing", ()))
  kinds = english_genres.kinds(int(fields["count"]), rng, existing)
  return json.dumps([{"name": name, "description": text} for name, text in kinds])


def document_ideas(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns ideas, each with an angle, a setting and a person."""
  spec = english_spec.read(fields["spec_text"])
  known = {text.casefold() for text in _texts(fields.get("existing", ()))}
  fixed = idea_item(spec, fields["subdomain"])
  ideas: list[dict[str, str]] = []
  for _ in range(20 * int(fields["count"])):
    if len(ideas) == int(fields["count"]):
      break
    idea = _idea(spec, fixed or rng.choice(spec.items), rng)
    keys = {idea["name"].casefold(), idea["idea"].casefold()}
    if not keys & known:
      ideas.append(idea)
      known |= keys
  return json.dumps(ideas)


def idea_item(spec: english_spec.Reading, text: str) -> english_spec.Item | None:
  """Returns the thing that is named first in `text`."""
  where = [
    (match.start(), i)
    for i, item in enumerate(spec.items)
    if (match := re.search(rf"\b{re.escape(item.name)}\b", text, re.IGNORECASE))
  ]
  return spec.items[min(where)[1]] if where else None


def _idea(
  spec: english_spec.Reading, item: english_spec.Item, rng: random.Random
) -> dict[str, str]:
  others = spec.dislikes if item.liked else spec.likes
  writer = Writer(
    rng,
    {
      "m": spec.model,
      "x": item.mention,
      "y": rng.choice(others).mention,
      "verb": "likes" if item.liked else "dislikes",
    },
  )
  place, town = writer.expand("{place}"), writer.expand("{town}")
  name, role = writer.expand("{name}"), writer.expand("{role}")
  angle = tidy(writer.expand(rng.choice(_ANGLES)))
  return {
    "name": tidy(writer.expand(rng.choice(_ANGLE_NAMES), {"role": role, "town": town})),
    "idea": f"{angle}. Setting: {place}. Person: {name}, {role}.",
  }


def _texts(existing: Any) -> list[str]:
  """Returns names, whether they came as texts or as records with a name."""
  return [str(e["name"]) if isinstance(e, Mapping) else str(e) for e in existing]
