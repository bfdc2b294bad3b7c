"""The tree from a spec to its document ideas: what its levels are."""

import dataclasses
from typing import Any

from data_gen.sections import Section

Item = dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subdomain:
  """One part of a spec, or one of its rules.

  Attributes:
    domain, name, context: as the teacher named them.
    section, section_text: where it comes from, and the part of it that this is about.
    assertions: maps as the teacher gave them; none for a rule.
    rule: {id, name, text} in specs of numbered rules.
  """

  domain: str
  name: str
  context: str
  section: Section
  section_text: str
  assertions: tuple[Item, ...] = ()
  rule: Item | None = None

  def fields(self) -> dict[str, Any]:
    """Returns the fields that the prompts of its documents share."""
    if self.rule is not None:
      rule = {f"rule_{key}": text for key, text in self.rule.items()}
      return {"domain": self.domain, **rule}
    return {
      "domain": self.domain,
      "subdomain": self.name,
      "assertions": self.assertions,
    }

  def where(self) -> dict[str, str]:
    """Returns where this is in the tree."""
    return {
      "spec_section": self.section.id,
      "domain": self.domain,
      "subdomain": self.name,
    }


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


def lost(stage: str, branch: dict[str, str], reason: str) -> dict[str, Any]:
  """Returns what is said of a branch that came to nothing."""
  return {"stage": stage, **branch, "reason": reason}
