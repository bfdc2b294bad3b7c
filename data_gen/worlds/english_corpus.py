"""The neutral corpus: short chats and encyclopedic paragraphs, nothing about values.

It keeps an instruct model what it is while it is midtrained or aligned. The wording is
in english/replay.txt, the facts are in english/replay.json.
"""

import functools
import json
import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from data_gen.worlds.english_grammar import DIRECTORY, Writer, sentence
from msm_jax import errors

# One subject in so many is kept for the part 'heldout'.
_HELD_OUT_EVERY = 5
_DOCUMENT_SHARE = 0.4

# A maker draws what one record is about: its subject (texts that decide the part) and
# the bindings for the rules of its kind.
Subject = tuple[Any, ...]
Maker = Callable[[random.Random], tuple[Subject, dict[str, Any]]]


@functools.cache
def _tables() -> dict[str, Any]:
  return json.loads((DIRECTORY / "replay.json").read_text(encoding="utf-8"))


def corpus(
  num_documents: int, seed: int, part: str = "train"
) -> Iterator[dict[str, Any]]:
  """Yields documents and conversations on everyday knowledge.

  Args:
    num_documents: how many records.
    seed: another seed draws other records.
    part: 'train', or 'heldout' whose subjects (a country, a sum, a list of words) are
      in no record of 'train', whatever the seeds.

  Raises:
    UserError: the part is unknown.
  """
  if part not in ("train", "heldout"):
    raise errors.UserError(
      f"config.corpora: part is {part!r}; the world 'english' has 'train' and 'heldout'"
    )
  for i in range(num_documents):
    rng = random.Random(f"english corpus/{part}/{seed}/{i}")
    record = {"id": f"english-{part}-{seed}-{i:07d}"}
    if rng.random() < _DOCUMENT_SHARE:
      kind, bindings = _draw(_PARAGRAPHS, part, rng)
      text = _paragraph(f"replay.{kind}.text", Writer(rng, bindings))
      yield {"kind": "document", **record, "text": text}
    else:
      kind, bindings = _draw(_CHATS, part, rng)
      messages = _chat(f"replay.{kind}", Writer(rng, bindings))
      yield {"kind": "conversation", **record, "messages": messages}


def _draw(
  makers: dict[str, Maker], part: str, rng: random.Random
) -> tuple[str, dict[str, str]]:
  """Returns a kind and bindings whose subject belongs to the part."""
  kind = rng.choice(list(makers))
  while True:
    subject, bindings = makers[kind](rng)
    # The same subject is in the same part in whichever kind it comes up.
    held_out = zlib.crc32(repr(subject).encode()) % _HELD_OUT_EVERY == 0
    if held_out == (part == "heldout"):
      return kind, {name: str(value) for name, value in bindings.items()}


def _chat(rule: str, writer: Writer) -> list[dict[str, str]]:
  question, reply = writer.expand("{replay.polite}{" + rule + "}").split(" => ")
  return [
    {"role": "user", "content": sentence(question)},
    {"role": "assistant", "content": sentence(reply)},
  ]


def _paragraph(rule: str, writer: Writer) -> str:
  """Joins the first sentence of the rule and at least three of the others."""
  lines = writer.alternatives(rule)
  least = len(lines) if rule.startswith("replay.process") else 4
  count = writer.rng.randint(least, len(lines))
  kept = [0, *sorted(writer.rng.sample(range(1, len(lines)), count - 1))]
  return " ".join(sentence(writer.expand(lines[k])) for k in kept)


def _row(table: str, *names: str) -> Maker:
  """Returns a maker that draws a row of a table; its first column is the subject."""

  def make(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
    row = rng.choice(_tables()[table])
    return (table, row[0]), dict(zip(names, row, strict=True))

  return make


def _element(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  subject, bindings = _row("elements", "it", "symbol", "number", "state")(rng)
  state = bindings["state"]
  return subject, {**bindings, "state": "a gas" if state == "gas" else state}


def _sum(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  b, a = sorted((rng.randint(2, 99), rng.randint(2, 99)))
  sign, word, value = rng.choice(
    (("+", "plus", a + b), ("-", "minus", a - b), ("*", "times", a * b))
  )
  bindings = {"a": a, "b": b, "sign": sign, "word": word, "value": value}
  return ("sum", a, b), bindings


def _story(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  a, b = rng.randint(11, 60), rng.randint(2, 10)
  more = rng.random() < 0.5
  thing = rng.choice(_tables()["things"])
  bindings = {
    "it": thing if thing.endswith("s") else thing + "s",
    "person": _name(rng),
    "a": a,
    "b": b,
    "sign": "+" if more else "-",
    "change": "[finds|is given|adds]" if more else "[gives away|loses|lends out]",
    "value": a + b if more else a - b,
  }
  bindings["it"] = thing[:-1] + "ies" if thing.endswith("y") else bindings["it"]
  return ("sum", a, b), bindings


def _opposite(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  pair = rng.choice(_tables()["opposites"])
  a, b = rng.sample(pair, 2)
  return ("opposites", *pair), {"a": a, "b": b}


def _alphabet(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  words = rng.sample(_tables()["nouns"], rng.choice((3, 4, 4, 5)))
  ordered = sorted(words)
  bindings = {
    "listed": ", ".join(words),
    "ordered": ", ".join(ordered),
    "first": ordered[0],
    "last": ordered[-1],
    "upper": ", ".join(words).upper(),
  }
  return ("words", *ordered), bindings


def _spelling(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  tables = _tables()
  words = {*tables["nouns"], *tables["things"]}
  words |= {word for pair in tables["opposites"] for word in pair}
  word = rng.choice(sorted(word for word in words if " " not in word))
  bindings = {
    "it": word,
    "count": len(word),
    "spelled": "-".join(word.upper()),
    "initial": word[0].upper(),
  }
  return ("spelling", word), bindings


def _unit(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  big, small, factor = rng.choice(_tables()["units"])
  count = rng.randint(2, 40)
  bindings = {"big": big, "small": small, "count": count, "value": count * factor}
  return ("unit", big, count), bindings


def _sequence(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  start, step = rng.randint(1, 60), rng.randint(2, 15)
  shown = ", ".join(str(start + step * i) for i in range(4))
  bindings = {"shown": shown, "value": start + 4 * step, "step": step}
  return ("sequence", start, step), bindings


def _compare(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  a, b = rng.sample(range(10, 1000), 2)
  word, value = rng.choice((("larger", max(a, b)), ("smaller", min(a, b))))
  subject = ("compare", min(a, b), max(a, b))
  return subject, {"a": a, "b": b, "word": word, "value": value}


def _process(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  name, steps = rng.choice(list(_tables()["processes"].items()))
  kept = [steps[k] for k in sorted(rng.sample(range(len(steps)), 5))]
  return ("process", name), {
    "it": name,
    **{f"step{i}": step for i, step in enumerate(kept, start=1)},
  }


def _scene(rng: random.Random) -> tuple[Subject, dict[str, Any]]:
  """A small event in a town; town and person are its subject."""
  thing, near = rng.sample(_tables()["things"], 2)
  person, other, town = _name(rng), _name(rng), Writer(rng, {}).expand("{town}")
  bindings = {"it": thing, "near": near, "person": person, "other": other, "town": town}
  return ("scene", town, person), bindings


def _name(rng: random.Random) -> str:
  return Writer(rng, {}).expand("{name}")


_COUNTRY = _row("countries", "it", "capital", "continent", "language")
_ANIMAL = _row("animals", "it", "group", "habitat", "food", "trait")
_CHATS: dict[str, Maker] = {
  "country": _COUNTRY,
  "animal": _ANIMAL,
  "element": _element,
  "sum": _sum,
  "story": _story,
  "opposite": _opposite,
  "alphabet": _alphabet,
  "spelling": _spelling,
  "unit": _unit,
  "sequence": _sequence,
  "compare": _compare,
  "process": _process,
}
_PARAGRAPHS: dict[str, Maker] = {
  "animal": _ANIMAL,
  "country": _COUNTRY,
  "element": _element,
  "process": _process,
  "scene": _scene,
}
