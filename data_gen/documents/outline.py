"""spec -> domains -> subdomains -> assertions (or rules) -> types -> document ideas.

A branch that comes to nothing (unparsed, blocked, a section that the spec does not
have) is left out and reported with its reason; the others go on.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from data_gen import lists
from data_gen import spec as specs
from data_gen.documents import division, ideas, matching, rules
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
    parts = await rules.rules(spec, teacher, topics, rejects)
  else:
    parts = await division.subdomains(spec, teacher, topics, rejects)
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
