"""spec -> domains -> subdomains -> assertions -> document types -> document ideas.

A branch that comes to nothing (unparsed, blocked, a section that the spec does not
have) is left out and reported with its reason; the others go on.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from data_gen import filters
from data_gen import spec as specs
from data_gen.teacher import Teacher, objects_parser
from msm_jax import errors

# A list that came back too short is topped up so many times.
_TOP_UPS = 3

Item = dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subdomain:
  """One part of a spec; `assertions` are maps as the teacher gave them."""

  domain: str
  name: str
  context: str
  section: specs.Section
  section_text: str
  assertions: tuple[Item, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Idea:
  """What one document is to be about."""

  subdomain: Subdomain
  doc_type: str
  doc_type_description: str
  text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
  """All ideas in the order of the tree, and the branches that were lost."""

  ideas: tuple[Idea, ...]
  rejects: tuple[dict[str, Any], ...]


async def build(
  spec: specs.Spec, teacher: Teacher, *, num_types: int, num_ideas: int
) -> Outline:
  """Plans the documents of a spec: `num_types` x `num_ideas` per subdomain."""
  rejects: list[dict[str, Any]] = []
  topics = await domains(spec, teacher)
  parts = await _subdomains(spec, teacher, topics, rejects)
  parts = await _assertions(teacher, parts, rejects)
  types = await _document_types(teacher, parts, num_types, rejects)
  ideas = await _document_ideas(spec, teacher, types, num_ideas, rejects)
  return Outline(ideas=tuple(ideas), rejects=tuple(rejects))


async def domains(spec: specs.Spec, teacher: Teacher) -> list[Item]:
  """Returns the domains of a spec.

  Raises:
    Stopped: the teacher gave no usable list; there is nothing to go on with.
  """
  fields = {"spec_text": spec.text}
  parse = objects_parser("name", optional=("description",))
  [(found, reason)] = await teacher.ask_parsed("domains", [fields], parse)
  if found is None:
    raise errors.Stopped(
      f"spec {spec.name}: the teacher {teacher.client.model} named no domains "
      f"({reason}); run again, or choose another teacher"
    )
  return _unique(found)


async def _subdomains(
  spec: specs.Spec, teacher: Teacher, topics: list[Item], rejects: list[dict[str, Any]]
) -> list[Subdomain]:
  fields = [
    {
      "spec_text": spec.text,
      "domain": topic["name"],
      "domain_description": topic["description"],
    }
    for topic in topics
  ]
  parse = objects_parser("name", "spec_section", optional=("context",))
  answers = await teacher.ask_parsed("subdomains", fields, parse)
  parts = []
  for topic, (found, reason) in zip(topics, answers, strict=True):
    branch = {"domain": topic["name"]}
    if found is None:
      rejects.append(_lost("subdomains", branch, reason))
    for item in _unique(found or []):
      section = spec.section_of(item["spec_section"])
      if section is None:
        where = {**branch, "subdomain": item["name"]}
        rejects.append(_lost("subdomains", where, "spec_section is not in the spec"))
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


async def _assertions(
  teacher: Teacher, parts: list[Subdomain], rejects: list[dict[str, Any]]
) -> list[Subdomain]:
  fields = [{"spec_section": part.section_text} for part in parts]
  parse = objects_parser("name", "assertion", optional=("explanation", "label"))
  answers = await _asked_once(teacher, "assertions", fields, parse)
  whole = []
  for part, (found, reason) in zip(parts, answers, strict=True):
    if found is None:
      rejects.append(_lost("assertions", _branch(part), reason))
    else:
      whole.append(dataclasses.replace(part, assertions=tuple(_unique(found))))
  return whole


async def _asked_once(
  teacher: Teacher,
  stage: str,
  fields: Sequence[dict[str, Any]],
  parse: Callable[[str], Any],
) -> list[tuple[Any, str]]:
  """Asks equal requests once: two subdomains may come from the same section."""
  distinct = {repr(item): item for item in fields}
  answers = await teacher.ask_parsed(stage, list(distinct.values()), parse)
  by_key = dict(zip(distinct, answers, strict=True))
  return [by_key[repr(item)] for item in fields]


async def _document_types(
  teacher: Teacher, parts: list[Subdomain], count: int, rejects: list[dict[str, Any]]
) -> list[tuple[Subdomain, Item]]:
  def fields(i: int, missing: int, existing: list[str]) -> dict[str, Any]:
    return {
      "domain": parts[i].domain,
      "subdomain": parts[i].name,
      "assertions": parts[i].assertions,
      "count": missing,
      "existing": existing,
    }

  parse = objects_parser("name", optional=("description",))

  async def ask(batch: Sequence[dict[str, Any]], sample: int) -> list[tuple[Any, str]]:
    return await teacher.ask_parsed("document_types", batch, parse, sample)

  filled = await _fill(len(parts), count, "name", fields, ask)
  pairs = []
  for part, (found, reason) in zip(parts, filled, strict=True):
    if reason:
      rejects.append(_lost("document_types", _branch(part), reason))
    pairs += [(part, item) for item in found]
  return pairs


async def _document_ideas(
  spec: specs.Spec,
  teacher: Teacher,
  types: list[tuple[Subdomain, Item]],
  count: int,
  rejects: list[dict[str, Any]],
) -> list[Idea]:
  def fields(i: int, missing: int, existing: list[str]) -> dict[str, Any]:
    part, doc_type = types[i]
    return {
      "spec_text": spec.text,
      "domain": part.domain,
      "subdomain": part.name,
      "context": part.context,
      "assertions": part.assertions,
      "document_type": doc_type["name"],
      "document_type_description": doc_type["description"],
      "count": missing,
      "existing": existing,
    }

  parse = objects_parser("idea", optional=("name",))

  async def ask(batch: Sequence[dict[str, Any]], sample: int) -> list[tuple[Any, str]]:
    return await teacher.ask_parsed("document_ideas", batch, parse, sample)

  filled = await _fill(len(types), count, "idea", fields, ask)
  ideas = []
  for (part, doc_type), (found, reason) in zip(types, filled, strict=True):
    if reason:
      where = {**_branch(part), "doc_type": doc_type["name"]}
      rejects.append(_lost("document_ideas", where, reason))
    ideas += [
      Idea(
        subdomain=part,
        doc_type=doc_type["name"],
        doc_type_description=doc_type["description"],
        text=item["idea"],
      )
      for item in found
    ]
  return ideas


async def _fill(
  num_lists: int,
  count: int,
  key: str,
  fields: Callable[[int, int, list[str]], dict[str, Any]],
  ask: Callable[[Sequence[dict[str, Any]], int], Awaitable[list[tuple[Any, str]]]],
) -> list[tuple[list[Item], str]]:
  """Asks for lists of `count` distinct items, topping up those that are short.

  Returns:
    For each list its items and, if it is shorter than `count`, why.
  """
  lists: list[list[Item]] = [[] for _ in range(num_lists)]
  reasons = [""] * num_lists
  for top_up in range(1 + _TOP_UPS):
    short = [i for i in range(num_lists) if len(lists[i]) < count]
    batch = [
      fields(i, count - len(lists[i]), [item[key] for item in lists[i]]) for i in short
    ]
    # Another sample each time: where nothing new came, the prompt is the same again.
    answers = await ask(batch, top_up * 10)
    for i, (found, reason) in zip(short, answers, strict=True):
      lists[i] = _unique(lists[i] + (found or []), key)[:count]
      short_by = f"{len(lists[i])} of {count}"
      reasons[i] = reason or (short_by if len(lists[i]) < count else "")
  return list(zip(lists, reasons, strict=True))


def _unique(items: list[Item], key: str = "name") -> list[Item]:
  seen = filters.Duplicates()
  return [
    item for i, item in enumerate(items) if seen.first_of(item[key], str(i)) is None
  ]


def _branch(part: Subdomain) -> dict[str, str]:
  return {
    "spec_section": part.section.id,
    "domain": part.domain,
    "subdomain": part.name,
  }


def _lost(stage: str, branch: dict[str, str], reason: str) -> dict[str, Any]:
  return {"stage": stage, **branch, "reason": reason}
