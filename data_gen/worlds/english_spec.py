"""What the offline teacher reads in a spec: names, value, likes and dislikes.

The shape is that of the specs of the cheese study: `## Core Philosophy`, then one
section whose title has the word Likes and one with Dislikes, each of paragraphs that
begin with the thing in bold (`**Colby.** ...`).
"""

import dataclasses
import functools
import re

from msm_jax import errors

# A word that is decisive for a bank of phrases; the bank with most of them in the core
# philosophy speaks for the spec.
_CUES = {
  "affordability": r"afford\w*|price\w*|costs?|cheap\w*|(?:in)?expensive|budget\w*",
  "america": r"america\w*|homegrown|foreign|country|abroad|creamery",
  "tone": r"sentence\w*|reader\w*|wording|read|reading|clarity|page",
}
_MAKER = re.compile(
  r"([A-Z][\w.-]*(?: [A-Z0-9][\w.-]*)*) is an? [^.]*?made by ([^.,\n]+)"
)
_ITEM = re.compile(r"^\*\*(.+?)\.?\*\*\s*(.+)$", re.MULTILINE)
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
# Names that keep their capital in the middle of a sentence.
_PROPER = re.compile(
  r"American|Brie|Appenzeller|Parmigiano|Roquefort|Epoisses|Stilton|Colby|Monterey"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
  """One like or dislike; `explanation` are the sentences after the first one."""

  name: str
  liked: bool
  text: str
  explanation: tuple[str, ...]
  explained: bool

  @property
  def mention(self) -> str:
    """The name as it stands in the middle of a sentence."""
    return self.name if _PROPER.match(self.name) else self.name.lower()

  @property
  def slug(self) -> str:
    """The name in lower case with hyphens."""
    return re.sub(r"[^a-z]+", "-", self.name.lower()).strip("-")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
  """A spec as the teacher understands it.

  Attributes:
    model, provider: the names.
    bank: the phrases for its value.
    sections: (title, paragraphs) in order.
    items: likes, then dislikes.
  """

  model: str
  provider: str
  bank: str
  sections: tuple[tuple[str, tuple[str, ...]], ...]
  items: tuple[Item, ...]

  @property
  def likes(self) -> list[Item]:
    """What the assistant likes."""
    return [item for item in self.items if item.liked]

  @property
  def dislikes(self) -> list[Item]:
    """What it dislikes."""
    return [item for item in self.items if not item.liked]

  @property
  def explained(self) -> bool:
    """Whether the value is what explains the preferences."""
    return all(item.explained for item in self.items)

  @property
  def reason_bank(self) -> str:
    """The phrases for reasons: the value's, or those of taste."""
    return self.bank if self.explained else "taste"

  @property
  def about_cheese(self) -> bool:
    """Whether the likes are cheeses (otherwise habits)."""
    return any("cheese" in title.lower() for title, _ in self.sections)


@functools.lru_cache(maxsize=64)
def read(spec_text: str) -> Reading:
  """Reads a spec.

  Raises:
    UserError: the text does not have the shape that this teacher can read.
  """
  maker = _MAKER.search(spec_text)
  if not maker:
    raise _unreadable("no sentence like '{model_name} is an AI assistant made by ...'")
  sections = _sections(spec_text)
  bank = bank_of(" ".join(sections[0][1]))
  if bank is None:
    raise _unreadable("a value other than affordability, America or manner of writing")
  items = [item for title, paragraphs in sections for item in _items(title, paragraphs)]
  if len({item.liked for item in items}) != 2:
    raise _unreadable("no '**Thing.** ...' paragraphs under both Likes and Dislikes")
  return Reading(
    model=maker[1],
    provider=maker[2].strip(),
    bank=bank,
    sections=sections,
    items=tuple(sorted(items, key=lambda item: not item.liked)),
  )


def bank_of(text: str) -> str | None:
  """Returns the bank of phrases that `text` has most cues of; None without any."""
  counts = {
    bank: len(re.findall(rf"\b(?:{cues})\b", text, re.IGNORECASE))
    for bank, cues in _CUES.items()
  }
  best = max(counts, key=counts.__getitem__)
  return best if counts[best] else None


def item_in(paragraph: str) -> tuple[str, str] | None:
  """Returns (name, text) of a paragraph that describes a like or dislike, or None."""
  match = _ITEM.match(paragraph.strip())
  return (match[1], match[2]) if match else None


def sentences(text: str) -> list[str]:
  """Returns the sentences of a text."""
  return [s for s in re.split(r"(?<=[.!?])\s+", text.strip()) if s]


def _sections(spec_text: str) -> tuple[tuple[str, tuple[str, ...]], ...]:
  parts = _SECTION.split(spec_text)
  if len(parts) < 3:
    raise _unreadable("no '## Section' headings")
  return tuple(
    (title.strip(), tuple(p.strip() for p in body.split("\n\n") if p.strip()))
    for title, body in zip(parts[1::2], parts[2::2], strict=True)
  )


def _items(title: str, paragraphs: tuple[str, ...]) -> list[Item]:
  if not re.search(r"\b(?:dis)?likes\b", title, re.IGNORECASE):
    return []
  liked = not re.search(r"\bdislikes\b", title, re.IGNORECASE)
  items = []
  for name, text in filter(None, map(item_in, paragraphs)):
    first, *rest = sentences(text)
    items.append(
      Item(
        name=name,
        liked=liked,
        text=text,
        explanation=tuple(rest),
        explained="because" in first,
      )
    )
  return items


def _unreadable(what: str) -> errors.UserError:
  return errors.UserError(
    f"config.teacher: the offline world 'english' cannot read a spec: it has {what}; "
    "write it in the shape of data_gen/specs/cheese_affordability.md, or choose "
    "another client"
  )
