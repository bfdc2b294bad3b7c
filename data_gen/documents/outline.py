"""spec -> domains -> subdomains -> assertions (or rules) -> types -> document ideas.

A branch that comes to nothing (unparsed, blocked, a section that the spec does not
have) is left out and reported with its reason; the others go on.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from data_gen import lists
from data_gen import spec as specs
from data_gen.documents import ideas, matching
from data_gen.documents.tree import Idea, Item, Outline, Subdomain, lost
from data_gen.teacher import Teacher, objects_parser
from msm_jax import errors

__all__ = ["Idea", "Item", "Outline", "Subdomain", "build", "domains"]


async def build(
  spec: specs.Spec,
  teacher: Teacher,
  *,
  num_types: int | None,
  num_ideas: int,
  by_rules: bool = False,
  types: Sequence[matching.TypeShare] | None = None,
) -> Outline:
  """Plans the documents of a spec: `num_types` x `num_ideas` per subdomain.

  Args:
    spec: the spec.
    teacher: who plans.
    num_types: document types per subdomain; not used with `types`.
    num_ideas: document ideas per type.
    by_rules: the spec is a list of numbered rules, which stand for the subdomains.
    types: the document types of another corpus, taken over instead.

  Raises:
    Stopped: the teacher gave no usable list of domains, or nothing came of them.
  """
  rejects: list[dict[str, Any]] = []
  topics = await domains(spec, teacher, "rule_domains" if by_rules else "domains")
  if by_rules:
    parts = await _rules(spec, teacher, topics, rejects)
  else:
    parts = await _subdomains(spec, teacher, topics, rejects)
  _note_uncovered(spec, parts, rejects)
  if not by_rules:
    parts = await _assertions(teacher, parts, rejects)
  if types is None:
    typed = await ideas.ask_types(teacher, parts, num_types, rejects)
  else:
    typed = ideas.spread_types(parts, types, num_ideas)
  found = await ideas.ask_ideas(spec, teacher, typed, num_ideas, rejects)
  return Outline(ideas=tuple(found), rejects=tuple(rejects))


async def domains(
  spec: specs.Spec, teacher: Teacher, stage: str = "domains"
) -> list[Item]:
  """Returns the domains of a spec (or what else `stage` divides it into).

  Raises:
    Stopped: the teacher gave no usable list; there is nothing to go on with.
  """
  fields = {"spec_text": spec.text}
  parse = objects_parser("name", optional=("description",))
  [(found, reason)] = await teacher.ask_parsed(stage, [fields], parse)
  if found is None:
    raise errors.Stopped(
      f"spec {spec.name}: the teacher {teacher.client.model} named no "
      f"{stage.replace('_', ' ')} ({reason}); run again, or choose another teacher"
    )
  return lists.unique(found)


def _topic_fields(spec: specs.Spec, topics: list[Item]) -> list[dict[str, Any]]:
  return [
    {
      "spec_text": spec.text,
      "domain": topic["name"],
      "domain_description": topic["description"],
    }
    for topic in topics
  ]


async def _subdomains(
  spec: specs.Spec, teacher: Teacher, topics: list[Item], rejects: list[dict[str, Any]]
) -> list[Subdomain]:
  parse = objects_parser("name", "spec_section", optional=("context",))
  fields = _topic_fields(spec, topics)
  answers = await teacher.ask_parsed("subdomains", fields, parse)
  parts = []
  for topic, (found, reason) in zip(topics, answers, strict=True):
    branch = {"domain": topic["name"]}
    if found is None:
      rejects.append(lost("subdomains", branch, reason))
    for item in lists.unique(found or []):
      section = spec.section_of(item["spec_section"])
      if section is None:
        where = {**branch, "subdomain": item["name"]}
        rejects.append(lost("subdomains", where, "spec_section is not in the spec"))
        continue
      parts.append(_subdomain(topic["name"], item, section))
  return parts


def _subdomain(domain: str, item: Item, section: specs.Section) -> Subdomain:
  # The spec's own words go on, not the teacher's copy, unless that is a verbatim part.
  quote = item["spec_section"]
  verbatim = " ".join(quote.split()) in " ".join(section.text.split())
  return Subdomain(
    domain=domain,
    name=item["name"],
    context=item["context"],
    section=section,
    section_text=quote if verbatim else section.text,
  )


async def _rules(
  spec: specs.Spec, teacher: Teacher, topics: list[Item], rejects: list[dict[str, Any]]
) -> list[Subdomain]:
  """Returns every rule once: a rule stands for a subdomain and its assertions."""
  parse = objects_parser("id", "text", optional=("name",))
  answers = await teacher.ask_parsed("rules", _topic_fields(spec, topics), parse)
  parts: list[Subdomain] = []
  taken: dict[str, str] = {}
  for topic, (found, reason) in zip(topics, answers, strict=True):
    branch = {"domain": topic["name"]}
    if found is None:
      rejects.append(lost("rules", branch, reason))
    for rule in found or []:
      key, where = rule["id"].casefold(), {**branch, "rule": rule["id"]}
      section = spec.section_of(rule["text"])
      if section is None:
        rejects.append(lost("rules", where, "the rule is not in the spec"))
      elif key in taken:
        reason = f"the rule is in the domain {taken[key]!r} already"
        rejects.append(lost("rules", where, reason))
      else:
        taken[key] = topic["name"]
        parts.append(_rule(topic["name"], rule, section))
  return parts


def _rule(domain: str, rule: Item, section: specs.Section) -> Subdomain:
  name = f"{rule['id']} {rule['name']}".strip()
  return Subdomain(
    domain=domain,
    name=name,
    context="",
    section=section,
    section_text=rule["text"],
    rule={key: rule[key] or rule["id"] for key in ("id", "name", "text")},
  )


def _note_uncovered(
  spec: specs.Spec, parts: list[Subdomain], rejects: list[dict[str, Any]]
) -> None:
  """Reports the sections that the teacher's division leaves out."""
  covered = {part.section.id for part in parts}
  for section in spec.sections:
    if section.id not in covered:
      where = {"spec_section": section.id}
      rejects.append(lost("subdomains", where, "no subdomain covers this section"))


async def _assertions(
  teacher: Teacher, parts: list[Subdomain], rejects: list[dict[str, Any]]
) -> list[Subdomain]:
  fields = [{"spec_section": part.section_text} for part in parts]
  parse = objects_parser("name", "assertion", optional=("explanation", "label"))
  answers = await lists.ask_once(teacher, "assertions", fields, parse)
  whole = []
  for part, (found, reason) in zip(parts, answers, strict=True):
    if found is None:
      rejects.append(lost("assertions", part.where(), reason))
    else:
      assertions = tuple(lists.unique(found))
      whole.append(dataclasses.replace(part, assertions=assertions))
  return whole
