"""The sections of a Markdown text: where they begin, and which one a quote is from."""

import bisect
import dataclasses
import functools
import itertools
import re
from collections.abc import Iterator, Sequence

from data_gen.filters import words as words_lib
from msm_jax import errors

_PREAMBLE = "preamble"
_HEADING = re.compile(r" {0,3}(#{1,2})[ \t]+(.*)")
_CLOSING = re.compile(r"(?:^|[ \t]+)#+[ \t]*$")
_FENCE = re.compile(r"\s*(`{3,}|~{3,})(.*)")
_PARAGRAPH = re.compile(r"\S.*?(?=\n\s*\n|\Z)", re.DOTALL)
# A mean word that is shorter is a single character: a script without spaces.
_SHORTEST_MEAN_WORD = 1.5
# The part of a quote's words that a section must have if it is not there verbatim.
_ENOUGH = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
  """One section: `id` is the slug of its title, `text` its body without the heading."""

  id: str
  title: str
  text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
  """Where a quote comes from: `start` is that of its paragraph in the section."""

  section: Section
  start: int


def split(
  text: str, name: str, where: object
) -> tuple[tuple[Section, ...], tuple[str, ...]]:
  """Divides a text at its headings `# ...` and `## ...`, but not inside code.

  The only `# ...`, if it comes first, is the title of the whole; what stands before
  the next heading is the preamble.

  Args:
    text: the whole of it.
    name: what a text without headings is called.
    where: the file, for messages.

  Returns:
    The sections that have a body, and the titles of those that have none.

  Raises:
    UserError: code is fenced and the fence is never closed.
  """
  blocks: list[tuple[int, str, list[str]]] = [(0, _PREAMBLE, [])]
  for line, is_text in _lines(text, where):
    if is_text and (heading := _HEADING.fullmatch(line)):
      title = _CLOSING.sub("", heading[2]).strip()
      blocks.append((len(heading[1]), title, []))
    else:
      blocks[-1][2].append(line)
  levels = [level for level, _, _ in blocks[1:]]
  if levels[:1] == [1] and levels.count(1) == 1 and len(levels) > 1:
    _, _, lines = blocks.pop(1)
    blocks[0][2].extend(["", *lines])
  return _sections(blocks, name)


def _sections(
  blocks: Sequence[tuple[int, str, list[str]]], name: str
) -> tuple[tuple[Section, ...], tuple[str, ...]]:
  sections: list[Section] = []
  empty: list[str] = []
  taken: set[str] = set()
  deeper = [*(level for level, _, _ in blocks[1:]), 0]
  for (level, title, lines), following in zip(blocks, deeper, strict=True):
    body = "\n".join(lines).strip()
    if not body:
      # A heading above other headings needs no text of its own.
      empty += [title] if level and following <= level else []
      continue
    title = name if len(blocks) == 1 else title
    sections.append(Section(id=_unique(slug(title), taken), title=title, text=body))
  return tuple(sections), tuple(empty)


def find(sections: Sequence[Section], quote: str) -> Place | None:
  """Returns where `quote` comes from, or None.

  A quote is a section's heading, words of it, or both, heading first. What counts are
  words: neither case nor punctuation nor markup. Words that stand in a section decide;
  of several, the one whose heading was quoted, or that they make up or begin. A quote
  that was copied with slips goes to the section under its heading, or else to the one
  that holds most of its words, as long as that is more than half of them.
  """
  quoted = words_lib.words(quote)
  if not quoted:
    return None
  texts = [_words_of(section) for section in sections]
  found = [rank for text in texts if (rank := text.verbatim(quoted))]
  if found:
    return max(found, key=lambda rank: rank[0])[1]
  shares = [text.overlap(quoted) for text in texts]
  close = [
    (text.headed(quoted), share, text)
    for text, share in zip(texts, shares, strict=True)
    if share > _ENOUGH
  ]
  return max(close, key=lambda one: one[:2])[2].nearest(quoted) if close else None


def contains(text: str, quote: str) -> bool:
  """Whether the words of `quote` stand in `text`, one after the other."""
  return _index(words_lib.words(text), words_lib.words(quote)) is not None


class _Words:
  """A section by its words."""

  def __init__(self, section: Section):
    self._section = section
    self._title = words_lib.words(section.title)
    self._begins = [match.start() for match in _PARAGRAPH.finditer(section.text)]
    ends = [*self._begins[1:], len(section.text)]
    self._parts = [
      words_lib.words(section.text[a:b])
      for a, b in zip(self._begins, ends, strict=True)
    ]
    self._body = list(itertools.chain.from_iterable(self._parts))

  def headed(self, quoted: list[str]) -> bool:
    """Whether a quote begins with the heading."""
    return bool(self._title) and quoted[: len(self._title)] == self._title

  def verbatim(self, quoted: list[str]) -> tuple[tuple[int, int, int], Place] | None:
    """Returns (how good, where) if the words, or those after the heading, are here."""
    headed = self.headed(quoted)
    rest = quoted[len(self._title) :] if headed else quoted
    if headed and not rest:
      return (3, 0, 0), self._place(0)
    at = _index(self._body, rest)
    if at is not None:
      return (2 + headed, at == 0, rest == self._body), self._place(at)
    # A copy that goes on beyond the section, or has more above it.
    if 2 * len(self._body) > len(quoted) and _index(quoted, self._body) is not None:
      return (1, 1, 0), self._place(0)
    if 2 * len(quoted) > len(self._title) and _index(self._title, quoted) is not None:
      return (1, 0, 0), self._place(0)
    return None

  def overlap(self, quoted: list[str]) -> float:
    """Returns how much of a quote is among the words of heading and body."""
    return _overlap(quoted, self._title + self._body)

  def nearest(self, quoted: list[str]) -> Place:
    """Returns the paragraph that most of a quote is from; the first, if none is."""
    rest = quoted[len(self._title) :] if self.headed(quoted) else quoted
    shares = [_overlap(rest, part) for part in self._parts]
    best = max(range(len(shares)), key=shares.__getitem__)
    number = best if shares[best] > _ENOUGH else 0
    return Place(section=self._section, start=self._begins[number])

  def _place(self, word: int) -> Place:
    # The last paragraph may have no words at all: a rule of dashes.
    lengths = list(itertools.accumulate(map(len, self._parts)))[:-1]
    number = bisect.bisect_right(lengths, word)
    return Place(section=self._section, start=self._begins[number])


@functools.lru_cache(maxsize=4096)
def _words_of(section: Section) -> _Words:
  return _Words(section)


def _index(words: list[str], wanted: list[str]) -> int | None:
  """Returns where `wanted` begins in `words`, None if it is not there."""
  head, found, _ = f" {' '.join(words)} ".partition(f" {' '.join(wanted)} ")
  return head.count(" ") if wanted and found else None


def _overlap(wanted: list[str], words: list[str]) -> float:
  units = _units(wanted)
  return len(units & _units(words)) / len(units) if units else 0.0


def _units(words: list[str]) -> set[str | tuple[str, str]]:
  """Returns what two texts are compared by: words, or pairs of characters.

  A script without spaces between words has no words to be split at.
  """
  if len(words) > 1 and sum(map(len, words)) < _SHORTEST_MEAN_WORD * len(words):
    return set(itertools.pairwise(words))
  return set(words)


def _lines(text: str, where: object) -> Iterator[tuple[str, bool]]:
  """Yields (line, whether it is text and not code)."""
  fence, opened = "", 0
  for number, line in enumerate(text.split("\n"), start=1):
    yield line, not fence
    match = _FENCE.fullmatch(line)
    if match is None:
      continue
    mark, rest = match.groups()
    if fence:
      fence = "" if mark.startswith(fence) and not rest.strip() else fence
    elif mark[0] == "~" or "`" not in rest:
      fence, opened = mark, number
  if fence:
    raise errors.UserError(
      f"{where} line {opened} begins code with {fence} and never ends it: add a line "
      f"{fence}"
    )


def slug(title: str) -> str:
  """Returns `title` as an id: lower case, words of any script joined by `-`."""
  return re.sub(r"[\W_]+", "-", title.casefold()).strip("-") or "section"


def _unique(wanted: str, taken: set[str]) -> str:
  candidate, count = wanted, 1
  while candidate in taken:
    count += 1
    candidate = f"{wanted}-{count}"
  taken.add(candidate)
  return candidate
