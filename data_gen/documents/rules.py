"""Domains -> rules, for a spec that is a list of numbered rules.

What the teacher lists has to stand in the spec, id and words; what it leaves out of the
rules that can be found there is asked for once more, then reported.
"""

import dataclasses
import difflib
import re
from collections.abc import Sequence

from data_gen import sections as sections_lib
from data_gen import spec as specs
from data_gen.documents import division
from data_gen.documents.division import Rejects
from data_gen.documents.tree import Item, Subdomain, lost
from data_gen.filters import words as words_lib
from data_gen.sections import Section
from data_gen.teacher import Teacher, objects_parser

_LABEL = r"(?:Rule|Principle|Article|规则|規則|原则|原則)"
_COUNT = "一二三四五六七八九十百零〇两兩\\d"
_STOP = r"(?=[*_]*(?:\.(?!\d)|[:)\]\uff09\u3011\u3001\uff0e\uff1a]))"
# `R1.`, `**R1. Name.**`, `[R1]`, `- R-1:`, `R1 Text`, `r1 : text`, `1)`, `1.2 Text`,
# `Rule 1:`.
_RULE = re.compile(
  rf"^\ ?(?:[-*+>]\ +)*(?:\#+\ +)?[*_\[(\uff08\u3010]*(?P<label>{_LABEL}\s*)?"
  rf"(?P<id>(?P<number>\d+(?:\.\d+)*{_STOP}|\d+(?:\.\d+)+(?=\s+(?![a-z])))"
  rf"|[A-Za-z]{{1,4}}-?\d+(?:[.-]\d+)*{_STOP}"
  rf"|[A-Z]{{1,4}}-?\d+(?:\.\d+)*(?=\s)"
  rf"|[a-z]{{1,4}}-?\d+(?:\.\d+)*(?=\ :\ )"
  rf"|第[{_COUNT}]+[条條款](?=\W))",
  re.MULTILINE | re.VERBOSE,
)
_HEADING = re.compile(r"^ {0,3}#{1,6} ", re.MULTILINE)
_ID_LABEL = re.compile(rf"^[\W_]*(?:{_LABEL}\s*)?", re.IGNORECASE)
# So many of a rule's words may be copied wrongly: one, or a tenth of them.
_SLIPS = 0.1
_NOT_THERE = "the rule is not in the spec"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """A rule as it stands in the spec; `text` is all of it, with its id."""

  id: str
  text: str
  section: Section

  @property
  def key(self) -> tuple[str, str]:
    """What tells it from others: sections may number their rules anew."""
    return self.section.id, _folded(self.id)


def read(spec: specs.Spec) -> list[Rule]:
  """Returns the rules whose numbers can be found in the spec.

  Where a section has numbers with a sign or a word, bare ones are steps of its rules.
  """
  found = []
  for section in spec.sections:
    text = f"{section.title}\n\n{section.text}"
    matches = list(_RULE.finditer(text))
    signed = [match for match in matches if match["label"] or not match["number"]]
    bounds = {match.start() for match in signed or matches}
    bounds |= {match.start() for match in _HEADING.finditer(text)} | {len(text)}
    for match in signed or matches:
      end = min(at for at in bounds if at > match.start())
      block = text[match.start() : end].strip()
      found.append(Rule(id=match["id"], text=block, section=section))
  return found


async def rules(
  spec: specs.Spec, teacher: Teacher, topics: Sequence[Item], rejects: Rejects
) -> list[Subdomain]:
  """Returns every rule once: a rule stands for a subdomain and its assertions."""
  register = _Register(spec, rejects)
  await register.ask(teacher, topics)
  if late := register.missing_topics():
    await register.ask(teacher, late, again=True)
  register.note_missing()
  division.note_uncovered(spec, register.parts, rejects)
  return register.parts


class _Register:
  """The rules that were listed so far."""

  def __init__(self, spec: specs.Spec, rejects: Rejects):
    self._spec, self._rejects = spec, rejects
    self._rules = read(spec)
    self._taken: dict[str, str] = {}
    self.parts: list[Subdomain] = []

  async def ask(
    self, teacher: Teacher, topics: Sequence[Item], *, again: bool = False
  ) -> None:
    """Asks for the rules of all domains; `again`: those that are there are no news."""
    parse = objects_parser("id", "text", optional=("name",))
    fields = division.topic_fields(self._spec, topics)
    answers = await teacher.ask_parsed("rules", fields, parse)
    for topic, (found, reason) in zip(topics, answers, strict=True):
      if found is None:
        self._rejects.append(lost("rules", {"domain": topic["name"]}, reason))
      for item in found or []:
        if fault := self._take(topic["name"], item, again):
          where = {"domain": topic["name"], "rule": item["id"]}
          self._rejects.append(lost("rules", where, fault))

  def missing_topics(self) -> list[Item]:
    """Returns what to ask once more."""
    if not self._rules:
      left = division.uncovered(self._spec, self.parts)
      return [division.of_section(s, "All rules under this heading.") for s in left]
    by_section: dict[Section, list[str]] = {}
    for rule in self._missing():
      by_section.setdefault(rule.section, []).append(rule.id)
    return [
      division.of_section(section, f"Of its rules these: {', '.join(ids)}.")
      for section, ids in by_section.items()
    ]

  def note_missing(self) -> None:
    """Reports the rules of the spec that nobody listed."""
    for rule in self._missing():
      where = {"spec_section": rule.section.id, "rule": rule.id}
      self._rejects.append(lost("rules", where, "no domain lists this rule"))

  def _missing(self) -> list[Rule]:
    return [rule for rule in self._rules if rule.key not in self._taken]

  def _take(self, domain: str, item: Item, again: bool) -> str:
    """Adds a rule to the parts; returns why not, if so."""
    rule = self._found(item)
    if rule is None:
      return _NOT_THERE
    if rule.key in self._taken:
      earlier = self._taken[rule.key]
      return "" if again else f"the rule is in the domain {earlier!r} already"
    self._taken[rule.key] = domain
    self.parts.append(_part(domain, item, rule))
    return ""

  def _found(self, item: Item) -> Rule | None:
    """Returns the rule that a teacher's copy is of."""
    for rule in self._rules:
      if _folded(rule.id) == _folded(item["id"]) and _is_copy(item["text"], rule):
        return rule
    place = None if self._rules else self._spec.place_of(item["text"])
    if place is None:
      return None
    # Numbers of a kind that is not known: sign and words have to be there as they are.
    quoted = (item["id"], item["text"])
    if not all(sections_lib.contains(self._spec.text, text) for text in quoted):
      return None
    return Rule(id=item["id"], text=item["text"], section=place.section)


def _part(domain: str, item: Item, rule: Rule) -> Subdomain:
  return Subdomain(
    domain=domain,
    name=f"{rule.id} {item['name']}".strip(),
    context="",
    section=rule.section,
    section_text=rule.text,
    rule={"id": rule.id, "name": item["name"] or rule.id, "text": rule.text},
  )


def _folded(sign: str) -> str:
  """Returns an id as others may write it: `[F-1]`, `f1.`, `Rule F-1`."""
  sign = _ID_LABEL.sub("", sign.casefold()).rstrip(
    "*_.:)]\uff09\u3011\u3001\uff0e\uff1a "
  )
  return re.sub(r"(?<=[a-z])[\W_]+(?=\d)", "", sign)


def _is_copy(text: str, rule: Rule) -> bool:
  """Whether a text is in a rule word for word, or nearly; its id may be left out."""
  words, sign = words_lib.words(text), words_lib.words(rule.id)
  at = next((i for i in range(3) if words[i : i + len(sign)] == sign), None)
  words = words if at is None else words[at + len(sign) :]
  there = words_lib.words(rule.text)
  if not words or sections_lib.contains(rule.text, " ".join(words)):
    return True
  matcher = difflib.SequenceMatcher(None, there, words, autojunk=False)
  same = [match for match in matcher.get_matching_blocks() if match.size]
  if not same:
    return False
  span = same[-1].a + same[-1].size - same[0].a
  edits = max(len(words), span) - sum(match.size for match in same)
  return edits <= max(1, _SLIPS * len(words))
