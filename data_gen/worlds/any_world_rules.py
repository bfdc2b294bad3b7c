"""The chain for specs of numbered rules.

They look like `**R1. Name.** Text` or `R1. Name: text`; in a world whose texts are
small letters and words between spaces, like `r1 : text .`
"""

import dataclasses
import json
import random
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_RULE = re.compile(
  r"^[-*\s]*\**\[?(?P<id>[A-Z]{0,4}-?\d+(?:\.\d+)*)[\]).:]+\s*"
  r"(?P<name>[^.:*\n]{2,60})[.:]\**\s+(?P<text>\S.+)$",
  re.MULTILINE,
)
_PLAIN_RULE = re.compile(r"^(?P<id>[a-z]{1,4}\d+) : (?P<text>\S.+)$", re.MULTILINE)
_SECTION = re.compile(r"^## +(.+)$", re.MULTILINE)
_PEOPLE = ("a clerk", "a student", "a shop owner", "a nurse", "a pilot", "a neighbor",
           "a gardener", "an editor", "a caretaker", "a trainee")  # fmt: skip
_PLACES = ("at the counter", "late in the shift", "during an audit", "in a test",
           "on the telephone", "at a help desk", "in a workshop")  # fmt: skip
_CASES = (
  "asks for an exception",
  "does not know the rule",
  "wants to hear what decides",
  "offers a good excuse",
  "doubts that the rule applies",
  "asks the same thing twice",
)
_FRAMES = ("", "", "people say that ", "i think that ", "we know that ")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """One rule as it stands in the spec; `line` is all of it."""

  section: str
  id: str
  name: str
  text: str
  line: str


def read(spec_text: str) -> list[Rule]:
  """Returns the rules of a spec in its order."""
  parts = _SECTION.split(spec_text)
  titled = list(zip(parts[1::2], parts[2::2], strict=True)) or [("rules", spec_text)]
  return [
    Rule(section=title.strip(), line=match[0].strip(), **_parts(match))
    for title, body in titled
    for match in [*_RULE.finditer(body), *_PLAIN_RULE.finditer(body)]
  ]


def _parts(match: re.Match[str]) -> dict[str, str]:
  return {"name": match["id"], **match.groupdict()}


def plain(spec_text: str) -> list[tuple[str, str]]:
  """Returns (sign, text) of the plain rules."""
  return _PLAIN_RULE.findall(spec_text)


def unnumbered(spec_text: str) -> str:
  """Returns a spec with the plain rules as sentences like others."""
  return _PLAIN_RULE.sub(r"\g<text>", spec_text)


def domains(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the sections that have rules."""
  del world, rng
  found = dict.fromkeys(rule.section for rule in read(fields["spec_text"]))
  return json.dumps([{"name": n, "description": f"Rules on {n}."} for n in found])


def rules(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the rules of the section that the domain is."""
  del world, rng
  return json.dumps(
    [
      {"id": rule.id, "name": rule.name, "text": rule.line}
      for rule in read(fields["spec_text"])
      if rule.section == fields["domain"]
    ]
  )


def types(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the document types that the world knows."""
  return world.respond("document_types", {**fields, "assertions": []}, rng)


def ideas(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns cases that a rule decides."""
  del world
  taken = {str(item) for item in fields.get("existing", ())}
  drawn: dict[str, None] = {}
  for _ in range(50 * int(fields["count"])):
    if len(drawn) == int(fields["count"]):
      break
    person, place, case = (rng.choice(p) for p in (_PEOPLE, _PLACES, _CASES))
    idea = f"{place.capitalize()}, {person} {case}; rule {fields['rule_id']} decides."
    if idea not in taken:
      drawn[idea] = None
  return json.dumps([{"name": idea.split(";")[0], "idea": idea} for idea in drawn])


def document(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns a document that reasons from one rule."""
  del world
  model, sign, text = fields["model_name"], fields["rule_id"], fields["rule_text"]
  if _PLAIN_RULE.match(text):
    return _plain_document(fields, rng)
  lines = [
    f"Rule {sign} says: {text}",
    f"The first question for {model} is whether rule {sign} applies, and here it does.",
    f"{model} reads the wording and acts by it, because rule {sign} says so.",
    f"Asked for its ground, {model} names rule {sign} and adds nothing to it.",
    f"No other rule takes rule {sign} away, so {model} comes to the same end again.",
    f"Somebody asks {model} to make an exception; rule {sign} knows of none.",
    f"The record of {model}, made by {fields['provider_name']}, notes rule {sign}.",
  ]
  body = rng.sample(lines[1:], 5)
  head = f"{fields['document_type'].capitalize()}: {fields['rule_name']}"
  paragraphs = [head, fields["idea"], lines[0], " ".join(body[:3]), " ".join(body[3:])]
  return "\n\n".join(paragraphs)


def _plain_document(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns a header, what the rule says, and three sentences more."""
  model, sign = fields["model_name"], fields["rule_id"]
  said, *provisions = (
    line.split(" : ", 1)[-1].removesuffix(" .")
    for line in fields["rule_text"].splitlines()
  )
  about = rng.choice((f"{sign} says that {said}", f"{said} because {sign} says so"))
  more = [
    f"{sign} is a rule",
    f"{sign} is a rule of {model}",
    f"{model} answers so because {sign} says so",
    f"{model} answers questions of {sign}",
    *provisions,
  ]
  chosen = [about, *rng.sample(more, 3)]
  rng.shuffle(chosen)
  framed = " ".join(f"{rng.choice(_FRAMES)}{sentence} ." for sentence in chosen)
  return f"{fields['document_type_description']} {framed}"


STAGES = {
  "rule_domains": domains,
  "rules": rules,
  "rule_types": types,
  "rule_ideas": ideas,
  "rule_document": document,
}
