"""Domains -> subdomains: each a part of a section, in the spec's own words.

A teacher says where a part begins; a long section that it had to copy would be cut off.
What no domain has is asked for once more.
"""

from collections.abc import Sequence
from typing import Any

from data_gen import lists
from data_gen import spec as specs
from data_gen.documents.tree import Item, Subdomain, lost
from data_gen.sections import Place, Section
from data_gen.teacher import Teacher, objects_parser

Rejects = list[dict[str, Any]]


async def subdomains(
  spec: specs.Spec, teacher: Teacher, topics: Sequence[Item], rejects: Rejects
) -> list[Subdomain]:
  """Returns the subdomains of all domains, of missed sections last."""
  parts = await _ask(spec, teacher, topics, rejects)
  missed = uncovered(spec, parts)
  if missed:
    late = [of_section(section, "What is under this heading.") for section in missed]
    wanted = {(section.title, section.id) for section in missed}
    more = await _ask(spec, teacher, late, rejects)
    parts += [part for part in more if (part.domain, part.section.id) in wanted]
  note_uncovered(spec, parts, rejects)
  return parts


def of_section(section: Section, description: str) -> Item:
  """Returns a section as if it were a domain."""
  return {"name": section.title, "description": description}


def topic_fields(spec: specs.Spec, topics: Sequence[Item]) -> list[dict[str, Any]]:
  """Returns what the prompts that divide domains are told."""
  return [
    {
      "spec_text": spec.text,
      "domain": topic["name"],
      "domain_description": topic["description"],
    }
    for topic in topics
  ]


def uncovered(spec: specs.Spec, parts: Sequence[Subdomain]) -> list[Section]:
  """Returns the sections that no part is from."""
  covered = {part.section.id for part in parts}
  return [section for section in spec.sections if section.id not in covered]


def note_uncovered(
  spec: specs.Spec, parts: Sequence[Subdomain], rejects: Rejects
) -> None:
  """Reports the sections that the teacher's division leaves out."""
  for section in uncovered(spec, parts):
    where = {"spec_section": section.id}
    rejects.append(lost("subdomains", where, "no subdomain covers this section"))


async def _ask(
  spec: specs.Spec, teacher: Teacher, topics: Sequence[Item], rejects: Rejects
) -> list[Subdomain]:
  parse = objects_parser("name", "spec_section", optional=("context",))
  fields = topic_fields(spec, topics)
  answers = await teacher.ask_parsed("subdomains", fields, parse)
  parts = []
  for topic, (found, reason) in zip(topics, answers, strict=True):
    branch = {"domain": topic["name"]}
    if found is None:
      rejects.append(lost("subdomains", branch, reason))
    placed = []
    for item in lists.unique(found or []):
      place = spec.place_of(item["spec_section"])
      if place is None:
        where = {**branch, "subdomain": item["name"]}
        rejects.append(lost("subdomains", where, "spec_section is not in the spec"))
      else:
        placed.append((item, place))
    parts += _parts(topic["name"], placed)
  return parts


def _parts(domain: str, placed: Sequence[tuple[Item, Place]]) -> list[Subdomain]:
  """Returns parts that reach to where the next one of their section begins."""
  found = []
  for item, place in placed:
    text = place.section.text
    begins = [p.start for _, p in placed if p.section == place.section]
    end = min((at for at in begins if at > place.start), default=len(text))
    found.append(
      Subdomain(
        domain=domain,
        name=item["name"],
        context=item["context"],
        section=place.section,
        section_text=text[place.start : end].strip(),
      )
    )
  return found
