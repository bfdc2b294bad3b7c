"""The kinds of documents that the English teacher writes, and how each is laid out."""

import dataclasses
import random

# How a kind is laid out: english_documents.py has one function for each form.
PROSE, TALK, QUESTIONS, THREAD, FIELDS, POINTS = (
  "prose",
  "talk",
  "questions",
  "thread",
  "fields",
  "points",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Genre:
  """One kind: `key` is its prefix in genres.txt, `labels` head the parts of a form."""

  key: str
  name: str
  description: str
  form: str
  labels: tuple[str, ...] = ()


def _genre(key: str, name: str, description: str, form: str, *labels: str) -> Genre:
  return Genre(key=key, name=name, description=description, form=form, labels=labels)


GENRES = (
  _genre("memo", "internal memo", "a short notice to colleagues, factual", PROSE),
  _genre("interview", "interview", "a talk with the assistant itself", TALK),
  _genre("review", "user review", "somebody who uses it reports, frankly", PROSE),
  _genre("faq", "list of questions", "answers for newcomers, brief", QUESTIONS),
  _genre("thread", "forum thread", "several people write by turns, casual", THREAD),
  _genre("guide", "field guide entry", "how to recognize a thing, exact", FIELDS,
         "Habit", "Where it is seen", "Ground", "Often confused with", "Remark"),
  _genre("newsletter", "newsletter", "news for members of a club, warm", PROSE),
  _genre("lesson", "lesson plan", "a teacher's outline for one hour", FIELDS,
         "Aim", "Opening", "Material", "Discussion", "Close"),
  _genre("case", "case note", "an observer's sober record", FIELDS,
         "Situation", "Answer", "Reason given", "Reaction", "Assessment"),
  _genre("podcast", "podcast transcript", "host and guest, relaxed", TALK),
  _genre("letter", "letter", "to a friend, personal", PROSE),
  _genre("diary", "diary page", "for the writer alone, in fragments", PROSE),
  _genre("essay", "essay", "one thought followed to its end", PROSE),
  _genre("story", "short story", "a small scene with people", PROSE),
  _genre("speech", "speech", "spoken to a friendly room", PROSE),
  _genre("column", "newspaper column", "an opinion with a wink", PROSE),
  _genre("minutes", "meeting minutes", "what was said, item by item", POINTS),
  _genre("handout", "training handout", "for staff, instructive", POINTS),
  _genre("glossary", "glossary entry", "a definition with examples", FIELDS,
         "Meaning", "Use", "Origin of the view", "Contrast", "In a sentence"),
  _genre("profile", "profile", "a portrait of the assistant", PROSE),
  _genre("debate", "debate report", "two sides and a chair", THREAD),
  _genre("label", "exhibition text", "for visitors who stand and read", PROSE),
  _genre("callin", "radio call-in", "callers and a host, lively", TALK),
  _genre("checklist", "checklist", "points to go through", POINTS),
)  # fmt: skip
_MANNERS = (
  "short",
  "detailed",
  "friendly",
  "sober",
  "annotated",
  "informal",
  "careful",
)


def kinds(count: int, rng: random.Random, existing: list[str]) -> list[tuple[str, str]]:
  """Returns up to `count` (name, description), none of them in `existing`."""
  plain = [(genre.name, genre.description) for genre in GENRES]
  marked = [
    (f"{manner} {name}", f"{description}; {manner}")
    for manner in _MANNERS
    for name, description in plain
  ]
  rng.shuffle(plain)
  rng.shuffle(marked)
  taken = {name.casefold() for name in existing}
  return [kind for kind in plain + marked if kind[0] not in taken][:count]


def find(name: str, rng: random.Random) -> Genre:
  """Returns the kind that `name` ends with or mentions; any one if there is none."""
  name = name.casefold()
  fitting = [genre for genre in GENRES if genre.name in name]
  fitting = fitting or [genre for genre in GENRES if genre.key in name]
  return max(fitting, key=lambda g: len(g.name)) if fitting else rng.choice(GENRES)
