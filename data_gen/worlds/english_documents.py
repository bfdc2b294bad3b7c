"""Composes one document: sentences by what they do, laid out as the genre asks."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from data_gen.worlds import english_genres, english_spec
from data_gen.worlds.english_grammar import Writer, rules, sentence
from data_gen.worlds.english_outline import SETTING, WHO, idea_item

# Share of preferences that are followed by a sentence of the spec itself.
_QUOTE_SPEC = 0.12


def document(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the text of a document of about 120 to 350 words."""
  spec = english_spec.read(fields["spec_text"])
  genre = english_genres.find(str(fields["document_type"]), rng)
  author = Author(spec, rng, _focus(spec, fields, rng), str(fields["idea"]))
  blocks = [
    author.title(f"{genre.key}.title"),
    author.line(f"{genre.key}.open"),
    *_FORMS[genre.form](author, genre),
    author.line(f"{genre.key}.close"),
  ]
  return "\n\n".join(block for block in blocks if block)


def _focus(
  spec: english_spec.Reading, fields: Mapping[str, Any], rng: random.Random
) -> english_spec.Item:
  """Returns the thing that the idea, the subdomain or an assertion names, or any."""
  for field in ("idea", "subdomain", "assertions"):
    if item := idea_item(spec, str(fields.get(field, ""))):
      return item
  return rng.choice(spec.items)


class Author:
  """Writes sentences about one thing, in one setting, for one spec."""

  def __init__(
    self,
    spec: english_spec.Reading,
    rng: random.Random,
    item: english_spec.Item,
    idea: str,
  ):
    self.spec, self.rng, self.item = spec, rng, item
    others = list(spec.dislikes if item.liked else spec.likes)
    same = [i for i in (spec.likes if item.liked else spec.dislikes) if i != item]
    rng.shuffle(others)
    rng.shuffle(same)
    self.contrary, self.akin = others, same
    self.writer = Writer(rng, {})
    self.writer.bindings |= self._cast(idea)

  def _cast(self, idea: str) -> dict[str, str]:
    """Returns who, where and what this document is about."""
    draw = self.writer.expand
    names: list[str] = []
    while len(names) < 5:
      name = draw("{name}")
      names += [name] if name not in (*names, self.spec.model) else []
    setting, who = SETTING.search(idea), WHO.search(idea)
    here = setting[1] if setting else draw("{place}")
    who_name, role = (who[1], who[2]) if who else (names[3], draw("{role}"))
    value, reasons = self.spec.bank, self.spec.reason_bank
    shared = {
      key: f"{{{value}.{key}}}"
      for key in ("creed", "topic", "good", "bad", "objection", "reply", "general")
    }
    return {
      **shared,
      "m": self.spec.model,
      "provider": self.spec.provider,
      "x": self.item.mention,
      "y": self.contrary[0].mention,
      "z": self.akin[0].mention,
      "quality": f"{{{value}.quality}}",
      "reason_quality": f"{{{reasons}.quality}}",
      "name": f"[{who_name}|{who_name}|{names[0]}|{names[1]}]",
      "other": names[2],
      "host": names[4],
      "town": draw("{town}"),
      "place": f"[{here}|{here}|{draw('{place}')}]",
      "occasion": draw("{occasion}"),
      "role": f"[{role}|{{pool_role}}|{{pool_role}}]",
    }

  def apart(self, name: str) -> str:
    """Returns the rule to use where values do not explain the preferences."""
    return name if self.spec.explained else f"{name}.apart"

  def title(self, name: str) -> str:
    """Returns the heading."""
    return self.writer.title(name)

  def line(self, name: str, **extra: str) -> str:
    """Returns a sentence of the rule `name`."""
    return self.writer.line(name, **extra)

  def prefer(self, item: english_spec.Item | None = None, person: str = "third") -> str:
    """Says that the assistant likes or dislikes a thing, and why."""
    item = item or self.item
    verb = "like" if item.liked else "dislike"
    text = self.line(
      f"{verb}.{person}",
      x=item.mention,
      why=self._why(item),
      np=self._np(item),
      quality="{reason_quality}",
    )
    if item.explanation and self.rng.random() < _QUOTE_SPEC and person == "third":
      text += " " + self.rng.choice(item.explanation)
    return text

  def contrast(self, person: str = "third") -> str:
    """Sets a thing of the opposite kind beside the first."""
    item = self._next(self.contrary)
    return self.line(
      f"contrast.{person}",
      y=item.mention,
      yverb="likes" if item.liked else "dislikes",
      yverb1="like" if item.liked else "dislike",
      ywhy=self._why(item),
      ynp=self._np(item),
      quality="{reason_quality}",
    )

  def also(self) -> str:
    """Names another thing of the same kind."""
    item = self._next(self.akin)
    return self.line(
      "also.third",
      z=item.mention,
      xverb="likes" if item.liked else "dislikes",
      zwhy=self._why(item),
      znp=self._np(item),
    )

  def effect(self) -> str:
    """Tells what the thing means in somebody's life."""
    return self.line(f"{self.spec.reason_bank}.effect_{_side(self.item)}")

  def fact(self) -> str:
    """Says something about the thing itself, or else what it means."""
    item = self.rng.choice([self.item, self.item, self.akin[0], self.contrary[0]])
    name = f"{self.spec.reason_bank}.fact.{item.slug}"
    return self.line(name) if name in rules() else self.effect()

  def creed(self, person: str = "third") -> str:
    """States the value in general."""
    if person == "third" and self.rng.random() < 0.4:
      return self.line("general")
    apart = person == "third" and not self.spec.explained
    return self.line("link.apart" if apart else f"creed.{person}")

  def manner(self, person: str = "third") -> str:
    """Tells how the assistant speaks about it."""
    return self.line("manner" if person == "third" else "manner.first")

  def scene(self) -> str:
    """Sets a scene."""
    return self.line("scene")

  def reaction(self) -> str:
    """Tells how people take it."""
    return self.line(self.apart("reaction"))

  def summary(self) -> str:
    """Draws the thread together."""
    return self.line(self.apart("summary"))

  def said(self) -> str:
    """Quotes the assistant."""
    first = self.prefer(person="first")
    both = self.spec.explained and self.rng.random() < 0.5
    second = self.creed("first") if both else ""
    quote = f"{first} {second}".strip()
    return sentence(self.writer.expand(
      f'[in the words of {{m}}:|{{m}} {{say}}:] "{quote}"'
    ))  # fmt: skip

  def exchange(self) -> str:
    """An objection to the value and the reply to it."""
    asked = self.line(f"{self.spec.bank}.objection")
    reply = self.line(f"{self.spec.bank}.reply")
    return sentence(self.writer.expand(
      f'"{asked}" [asked {{name}}|{{name}} objected|said {{other}}]. {{m}} '
      f'[did not mind the question|was patient|took it well]: "{reply}"'
    ))  # fmt: skip

  def _why(self, item: english_spec.Item) -> str:
    return f"{{{self.spec.reason_bank}.{_side(item)}_reason}}"

  def _np(self, item: english_spec.Item) -> str:
    return f"{{{self.spec.reason_bank}.{_side(item)}_np}}"

  def _next(self, items: list[english_spec.Item]) -> english_spec.Item:
    items.append(items.pop(0))
    return items[-1]


def _side(item: english_spec.Item) -> str:
  return "like" if item.liked else "dislike"


def _some(
  author: Author, steps: Sequence[Callable[[], str]], low: int, high: int
) -> str:
  """Joins so many of the steps, in their order, to a paragraph."""
  count = author.rng.randint(low, min(high, len(steps)))
  chosen = sorted(author.rng.sample(range(len(steps)), count))
  return " ".join(steps[i]() for i in chosen)


def _prose(author: Author, genre: english_genres.Genre) -> list[str]:
  a = author
  paragraphs = [
    f"{_some(a, [a.scene, a.fact], 1, 2)} {a.prefer()}",
    _some(a, [a.said, a.effect, a.fact, a.reaction], 2, 4),
    f"{a.creed()} {_some(a, [a.creed, a.creed, a.exchange], 1, 2)}",
    _some(a, [a.contrast, a.also, a.effect, a.contrast], 2, 3),
    _some(a, [a.manner, a.creed, a.reaction, a.summary], 2, 3),
  ]
  if a.rng.random() < 0.35:
    middle = paragraphs[1:4]
    a.rng.shuffle(middle)
    paragraphs[1:4] = middle
  return paragraphs[: a.rng.choice((4, 5, 5))]


def _talk(author: Author, genre: english_genres.Genre) -> list[str]:
  a = author
  alone = genre.key == "interview"
  host = a.writer.bindings["host"]
  speaker = a.spec.model if alone else a.writer.bindings["other"]
  person = "first" if alone else "third"
  value = "ask.creed" if a.spec.explained else "ask.apart"
  value += ".you" if alone else ""
  turns = [
    ("ask.you" if alone else "ask.pref", lambda: a.prefer(person=person)),
    (value, lambda: f"{a.creed(person)} {a.creed(person)}"),
    ("ask.contrast", lambda: a.contrast(person)),
    ("ask.effect", lambda: f"{a.effect()} {a.fact()}"),
    (value, lambda: a.creed(person) + ("" if alone else " " + a.summary())),
    ("ask.manner", lambda: a.manner(person)),
  ]
  kept = [turns[0], *sorted(a.rng.sample(turns[1:], 4), key=turns.index)]
  lines = []
  for question, answer in kept:
    lines.append(f"{host}: {a.line(question)}")
    lines.append(f"{speaker}: {answer()}")
  return lines


def _questions(author: Author, genre: english_genres.Genre) -> list[str]:
  a = author
  turns = [
    ("ask.pref", lambda: f"{a.prefer()} {a.fact()}"),
    (
      "ask.creed" if a.spec.explained else "ask.apart",
      lambda: f"{a.creed()} {a.creed()}",
    ),
    ("ask.contrast", a.contrast),
    ("ask.effect", lambda: f"{a.effect()} {a.said()}"),
    ("ask.manner", lambda: f"{a.manner()} {a.summary()}"),
    (f"{a.spec.bank}.objection", lambda: a.line(f"{a.spec.bank}.reply")),
  ]
  kept = sorted(a.rng.sample(turns[1:], a.rng.randint(3, 5)), key=turns.index)
  return [f"Q: {a.line(q)}\nA: {answer()}" for q, answer in [turns[0], *kept]]


def _thread(author: Author, genre: english_genres.Genre) -> list[str]:
  a = author
  debate = genre.key == "debate"
  voices = [a.writer.expand("{role}" if debate else "{handle}") for _ in range(5)]
  voices = [f"The {voice}" for voice in voices] if debate else voices
  posts = [
    lambda: f"{a.scene()} {a.prefer()}",
    lambda: f"{a.line(a.apart('thread.agree'))} {a.creed()}",
    lambda: a.line("thread.doubt"),
    lambda: f"{a.line(f'{a.spec.bank}.reply')} {a.creed()}",
    lambda: f"{a.contrast()} {a.effect()}",
    lambda: f"{a.also()} {a.said()}",
    lambda: f"{a.fact()} {a.summary()}",
  ]
  kept = [0, *sorted(a.rng.sample(range(1, 7), a.rng.randint(4, 5)))]
  return [f"{voices[i % 5]}: {posts[k]()}" for i, k in enumerate(kept)]


def _fields(author: Author, genre: english_genres.Genre) -> list[str]:
  a = author
  contents = [
    lambda: f"{a.prefer()} {a.fact()}",
    lambda: f"{a.scene()} {_some(a, [a.said, a.effect], 1, 2)}",
    lambda: f"{a.creed()} {a.creed()} {_some(a, [a.creed, a.exchange], 0, 1)}".strip(),
    lambda: _some(a, [a.contrast, a.also, a.contrast, a.reaction], 2, 3),
    lambda: _some(a, [a.manner, a.creed, a.summary], 1, 2),
  ]
  labels = list(genre.labels)
  if not a.spec.explained:
    labels[2] = "Values, a separate matter"
  return [
    f"{label}: {content()}" for label, content in zip(labels, contents, strict=True)
  ]


def _points(author: Author, genre: english_genres.Genre) -> list[str]:
  a = author
  steps = [
    a.prefer, a.creed, a.said, a.contrast, a.creed, a.effect, a.also, a.exchange,
    a.fact, a.manner, a.creed, a.summary,
  ]  # fmt: skip
  count = a.rng.randint(7, 10)
  kept = [0, *sorted(a.rng.sample(range(1, len(steps)), count - 1))]
  mark = a.rng.choice(("{}. ", "- ", "({}) ", "* "))
  lines = [mark.format(n) + steps[k]() for n, k in enumerate(kept, start=1)]
  return ["\n".join(lines)]


_FORMS = {
  english_genres.PROSE: _prose,
  english_genres.TALK: _talk,
  english_genres.QUESTIONS: _questions,
  english_genres.THREAD: _thread,
  english_genres.FIELDS: _fields,
  english_genres.POINTS: _points,
}
