"""Subdomains (or rules) -> document types -> document ideas."""

from collections.abc import Sequence
from typing import Any

from data_gen import lists
from data_gen import spec as specs
from data_gen.documents import matching
from data_gen.documents.tree import Idea, Item, Subdomain, lost
from data_gen.teacher import Teacher, objects_parser

Typed = list[tuple[Subdomain, Item]]


async def ask_types(
  teacher: Teacher,
  parts: list[Subdomain],
  count: int,
  rejects: list[dict[str, Any]],
) -> Typed:
  """Returns (subdomain, type), `count` types for each subdomain."""
  parse = objects_parser("name", optional=("description",))
  fields = [part.fields() for part in parts]
  stage = "rule_types" if parts and parts[0].rule else "document_types"
  counts = [count] * len(parts)
  filled = await lists.fill(teacher, stage, fields, counts, "name", parse)
  pairs = []
  for part, (found, reason) in zip(parts, filled, strict=True):
    if reason:
      rejects.append(lost(stage, part.where(), reason))
    pairs += [(part, item) for item in found]
  return pairs


def spread_types(
  parts: list[Subdomain], types: Sequence[matching.TypeShare], num_ideas: int
) -> Typed:
  """Returns (subdomain, type): each type in as many subdomains as its share needs.

  The subdomains take turns, so that all get as many ideas as the others.
  """
  pairs: Typed = []
  turn = 0
  for kind in types if parts else ():
    item = {"name": kind.name, "description": kind.description}
    for _ in range(min(len(parts), matching.lists_needed(kind.count, num_ideas))):
      pairs.append((parts[turn % len(parts)], item))
      turn += 1
  return pairs


async def ask_ideas(
  spec: specs.Spec,
  teacher: Teacher,
  types: Typed,
  count: int,
  rejects: list[dict[str, Any]],
) -> list[Idea]:
  """Returns `count` ideas for each subdomain and type."""
  parse = objects_parser("idea", optional=("name",))
  by_rules = bool(types) and types[0][0].rule is not None
  stage = "rule_ideas" if by_rules else "document_ideas"
  fields = [_idea_fields(spec, part, doc_type) for part, doc_type in types]
  counts = [count] * len(types)
  filled = await lists.fill(teacher, stage, fields, counts, "idea", parse)
  found_ideas = []
  for (part, doc_type), (found, reason) in zip(types, filled, strict=True):
    if reason:
      where = {**part.where(), "doc_type": doc_type["name"]}
      rejects.append(lost(stage, where, reason))
    found_ideas += [_idea(part, doc_type, item["idea"]) for item in found]
  return found_ideas


def _idea(part: Subdomain, doc_type: Item, text: str) -> Idea:
  return Idea(
    subdomain=part,
    doc_type=doc_type["name"],
    doc_type_description=doc_type["description"],
    text=text,
  )


def _idea_fields(spec: specs.Spec, part: Subdomain, doc_type: Item) -> dict[str, Any]:
  context = {} if part.rule else {"context": part.context}
  return {
    "spec_text": spec.text,
    **part.fields(),
    **context,
    "document_type": doc_type["name"],
    "document_type_description": doc_type["description"],
  }
