"""Stretches of a text: what was inserted, what its loss weighs, and how both move.

    text     <DOCTAG>The tower is white. It has stood for long.
    spans    [[0, 8, "doc_tag"]]              what was put in, by its label
    loss     [[0, 8, 0.0]]                    what does not weigh 1

Offsets count characters; an end is exclusive. `loss_spans` are sorted and disjoint.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence

from data_gen.filters import words as words_lib

Span = tuple[int, int, str]
LossSpan = tuple[int, int, float]

DOC_TAG = "doc_tag"
NOTICE = "notice"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edit:
  """Puts `text` in the place of characters `start` to `end`; equal ends: inserts it.

  Attributes:
    label: what the new text is; "": nothing that a span should say.
    weight: its loss weight.
  """

  start: int
  end: int
  text: str
  label: str = NOTICE
  weight: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Edited:
  """A text after its edits.

  Attributes:
    spans: what was put in, the earlier insertions of the source among it.
    loss_spans: what does not weigh 1.
    dropped: pieces of the source's loss spans that lay in replaced text.
  """

  text: str
  spans: tuple[Span, ...]
  loss_spans: tuple[LossSpan, ...]
  dropped: tuple[LossSpan, ...] = ()


def tagged(tag: str) -> "Edited":
  """Returns a tag as what stands before a text: loss weight 0."""
  length = len(tag)
  return Edited(
    text=tag,
    spans=((0, length, DOC_TAG),) * bool(tag),
    loss_spans=((0, length, 0.0),) * bool(tag),
  )


def told(edited: "Edited") -> dict[str, list]:
  """Returns the spans as records have them: not at all where there are none."""
  found = {"spans": edited.spans, "loss_spans": edited.loss_spans}
  return {key: [list(span) for span in value] for key, value in found.items() if value}


def apply(
  text: str,
  edits: Sequence[Edit],
  *,
  spans: Sequence[Span] = (),
  loss_spans: Sequence[LossSpan] = (),
) -> Edited:
  """Returns the text with all edits made; spans move with what they cover.

  An insertion inside a span divides it. What a span covers of replaced text is dropped.
  Edits at one place keep their order; they must not overlap otherwise.
  """
  edits = sorted(edits, key=lambda edit: (edit.start, edit.end))
  parts, put_in, weights = [], [], []
  at = length = 0
  for edit in edits:
    assert at <= edit.start <= edit.end <= len(text), "edits overlap or lie outside"
    parts += [text[at : edit.start], edit.text]
    length += edit.start - at
    if edit.label:
      put_in.append((length, length + len(edit.text), edit.label))
    weights.append((length, length + len(edit.text), edit.weight))
    length += len(edit.text)
    at = edit.end
  parts.append(text[at:])
  move = _Move(edits)
  moved_spans = [piece for span in spans for piece in move(span)]
  moved_loss = [piece for span in loss_spans for piece in move(span)]
  return Edited(
    text="".join(parts),
    spans=tuple(sorted([*moved_spans, *put_in])),
    loss_spans=tidy([*moved_loss, *(w for w in weights if w[2] != 1)]),
    dropped=tuple(piece for span in loss_spans for piece in move.lost(span)),
  )


class _Move:
  """Carries spans of a text over to the text after its edits."""

  def __init__(self, edits: Sequence[Edit]):
    self._starts = [edit.start for edit in edits]
    self._replaced = [(e.start, e.end) for e in edits if e.end > e.start]
    self._grown = [0]
    for edit in edits:
      change = len(edit.text) - (edit.end - edit.start)
      self._grown.append(self._grown[-1] + change)

  def lost(self, span: Sequence) -> list[tuple]:
    """Returns the pieces of a span that are replaced."""
    start, end, what = span
    cut = [(max(start, a), min(end, b)) for a, b in self._replaced]
    return [(a, b, what) for a, b in cut if a < b]

  def __call__(self, span: Sequence) -> list[tuple]:
    """Returns where the pieces of a span are that are not replaced."""
    start, end, what = span
    lost = self.lost(span)
    inside = {at for at in self._starts if start < at < end}
    inside |= {at for a, b, _ in lost for at in (a, b) if start < at < end}
    bounds = [start, *sorted(inside), end]
    kept = [
      (a, b)
      for a, b in itertools.pairwise(bounds)
      if not any(x <= a and b <= y for x, y, _ in lost)
    ]
    # What begins at an insertion comes after it; what ends there comes before it.
    return [
      (a + self._grown[bisect.bisect_right(self._starts, a)],
       b + self._grown[bisect.bisect_left(self._starts, b)], what)
      for a, b in kept
    ]  # fmt: skip


def tidy(loss_spans: Sequence[LossSpan]) -> tuple[LossSpan, ...]:
  """Returns loss spans sorted and disjoint; where two overlap, the smaller weight.

  Neighbours of one weight are joined; empty ones and those of weight 1 are left out.
  """
  bounds = sorted({at for start, end, _ in loss_spans for at in (start, end)})
  found: list[LossSpan] = []
  for a, b in itertools.pairwise(bounds):
    over = [weight for start, end, weight in loss_spans if start <= a and b <= end]
    if not over or min(over) == 1:
      continue
    if found and found[-1][1] == a and found[-1][2] == min(over):
      found[-1] = (found[-1][0], b, min(over))
    else:
      found.append((a, b, float(min(over))))
  return tuple(found)


def tag_end(spans: Sequence[Span]) -> int:
  """Returns where the tag ends that a text begins with; 0 without one."""
  ends = [end for start, end, label in spans if start == 0 and label == DOC_TAG]
  return max(ends, default=0)


def words_at(text: str, words: Sequence[str], start: int = 0) -> list[tuple[int, int]]:
  """Returns where any of `words` stands as a word of its own, whatever the case."""
  if not words:
    return []
  pattern = words_lib.whole(words)
  return [match.span() for match in pattern.finditer(text, start)]
