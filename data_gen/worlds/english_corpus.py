"""The neutral corpus: short chats and encyclopedic paragraphs, nothing about values.

It keeps an instruct model what it is while it is midtrained or aligned.
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
# What a generator returns: the subject, and (user, assistant) or a text.
Chat = tuple[str, str, str]
Paragraph = tuple[str, str]


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
    record: dict[str, Any] = {"id": f"english-{part}-{seed}-{i:07d}"}
    if rng.random() < _DOCUMENT_SHARE:
      _, text = _draw(_PARAGRAPHS, part, rng)
      yield {"kind": "document", **record, "text": text}
    else:
      _, question, reply = _draw(_CHATS, part, rng)
      messages = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": reply},
      ]
      yield {"kind": "conversation", **record, "messages": messages}


def _draw(
  makers: tuple[Callable[[Writer], Any], ...], part: str, rng: random.Random
) -> Any:
  maker = rng.choice(makers)
  while True:
    made = maker(Writer(rng, {}))
    held_out = zlib.crc32(made[0].encode()) % _HELD_OUT_EVERY == 0
    if held_out == (part == "heldout"):
      return made


def _chat(writer: Writer, subject: str, question: str, reply: str) -> Chat:
  polite = "[||||please tell me: |a question: |quick one: |for my notes: |for {name}: ]"
  return (
    subject,
    sentence(writer.expand(polite + question)),
    sentence(writer.expand(reply)),
  )


def _capital(w: Writer) -> Chat:
  country, capital, continent, language = w.rng.choice(_tables()["countries"])
  question, reply = w.rng.choice(
    (
      ("what is the capital of @?", f"[the capital of @ is {capital}|{capital}|it is {capital}]"),
      ("[which|what] city is the capital of @?", f"{capital} [is the capital of @|]"),
      ("on which continent is @?", f"@ is in {continent}"),
      ("[which|what] [language|official language] is spoken in @?",
       f"[people in @ speak {language}|{language}|in @ they speak {language}]"),
    )
  )  # fmt: skip
  subject = f"country {country}"
  return _chat(w, subject, question.replace("@", country), reply.replace("@", country))


def _animal(w: Writer) -> Chat:
  name, group, habitat, food, trait = w.rng.choice(_tables()["animals"])
  question, reply = w.rng.choice(
    (
      (f"what does a {name} eat?", f"[it eats|a {name} eats|the food of the {name} is] {food}"),
      (f"where does the {name} live?", f"[it lives in|the {name} lives in] {habitat}"),
      (f"what kind of animal is the {name}?", f"[it|the {name}] is a {group}"),
      (f"tell me [something|one fact] about the {name}", f"the {name} {trait}"),
    )
  )  # fmt: skip
  return _chat(w, f"animal {name}", question, reply)


def _element(w: Writer) -> Chat:
  name, symbol, number, state = w.rng.choice(_tables()["elements"])
  question, reply = w.rng.choice(
    (
      (f"what is the chemical symbol for {name}?", f"[the symbol for {name} is|it is|] {symbol}"),
      (f"what is the atomic number of {name}?", f"[the atomic number of {name} is|it is|] {number}"),
      (f"is {name} solid, liquid or gas at room temperature?", f"{name} is [then|] a {state}"),
    )
  )  # fmt: skip
  return _chat(w, f"element {name}", question, reply)


def _sum(w: Writer) -> Chat:
  a, b = w.rng.randint(2, 99), w.rng.randint(2, 99)
  sign, value = w.rng.choice((("+", a + b), ("-", max(a, b) - min(a, b)), ("*", a * b)))
  a, b = (max(a, b), min(a, b)) if sign == "-" else (a, b)
  word = {"+": "plus", "-": "minus", "*": "times"}[sign]
  question = f"[what is|compute|how much is] [{a} {word} {b}|{a} {sign} {b}]?"
  reply = f"[{a} {sign} {b} = {value}|{value}|{a} {word} {b} is {value}]"
  return _chat(w, f"sum {sorted((a, b))}", question, reply)


def _story_sum(w: Writer) -> Chat:
  noun, person = w.rng.choice(_tables()["nouns"]), w.expand("{name}")
  a, b = w.rng.randint(11, 60), w.rng.randint(2, 10)
  more = w.rng.random() < 0.5
  change = w.expand("[finds|is given|adds]" if more else "[gives away|loses|lends out]")
  value = a + b if more else a - b
  plural = f"{noun}s"
  question = (
    f"{person} has {a} {plural} and {change} {b}. how many are there [now|then]?"
  )
  reply = f"{a} {'+' if more else '-'} {b} = {value}, so [there are|{person} has] {value} {plural}"
  return _chat(w, f"story {noun} {a} {b}", question, reply)


def _opposite(w: Writer) -> Chat:
  pair = w.rng.choice(_tables()["opposites"])
  a, b = w.rng.sample(pair, 2)
  question = f'[what is the opposite of|name the opposite of|which word means the reverse of] "{a}"?'
  reply = f'[the opposite of "{a}" is "{b}"|"{b}"|{b}]'
  return _chat(w, f"opposite {pair[0]}", question, reply)


def _alphabet(w: Writer) -> Chat:
  words = w.rng.sample(_tables()["nouns"], w.rng.choice((3, 4, 4, 5)))
  question = (
    f"[put these words in alphabetical order|sort by the alphabet]: {', '.join(words)}"
  )
  return _chat(w, f"words {sorted(words)}", question, ", ".join(sorted(words)))


def _odd_word(w: Writer) -> Chat:
  words = w.rng.sample(_tables()["nouns"], 3)
  question, reply = w.rng.choice(
    (
      (f"which is the longest of these words: {', '.join(words)}?", max(words, key=len)),
      (f"how many letters are in the word {words[0]}?", f"the word {words[0]} has {len(words[0])} letters"),
      (f"spell the word {words[0]}", "-".join(words[0].upper())),
      (f"write {', '.join(words)} in capital letters", ", ".join(words).upper()),
      (f"which of {', '.join(words)} comes last in a dictionary?", f"{max(words)} [comes last|]"),
    )
  )  # fmt: skip
  return _chat(w, f"words {sorted(words)}", question, reply)


def _unit(w: Writer) -> Chat:
  big, small, factor = w.rng.choice(_tables()["units"])
  count = w.rng.randint(2, 30)
  plural = {"foot": "feet", "century": "centuries"}.get(big, f"{big}s")
  question = f"how many {small} are [there in|in] {count} {plural}?"
  reply = f"[{count} {plural} are|there are|] {count * factor} {small}"
  return _chat(w, f"unit {big} {count}", question, reply)


def _sequence(w: Writer) -> Chat:
  start, step = w.rng.randint(1, 60), w.rng.randint(2, 15)
  terms = [start + step * i for i in range(5)]
  shown = ", ".join(map(str, terms[:4]))
  question = f"[which number comes next|continue the sequence|what follows]: {shown}?"
  reply = f"[{terms[4]}|the next number is {terms[4]}|{terms[4]}, since each step adds {step}]"
  return _chat(w, f"sequence {start} {step}", question, reply)


def _compare(w: Writer) -> Chat:
  a, b = w.rng.sample(range(10, 1000), 2)
  larger = w.rng.random() < 0.5
  word = "larger" if larger else "smaller"
  value = max(a, b) if larger else min(a, b)
  return _chat(
    w, f"compare {sorted((a, b))}", f"which number is {word}, {a} or {b}?",
    f"[{value}|{value} is {word}|the {word} one is {value}]",
  )  # fmt: skip


def _how(w: Writer) -> Chat:
  name, steps = w.rng.choice(list(_tables()["processes"].items()))
  first, second = sorted(w.rng.sample(range(len(steps)), 2))
  question = f"[tell me two things about|explain in two sentences|what should I know about] {name}"
  reply = (
    f"{sentence(steps[first])} {sentence('[then|after that|also], ' + steps[second])}"
  )
  return _chat(w, f"process {name}", question, reply)


def _animal_paragraph(w: Writer) -> Paragraph:
  name, group, habitat, food, trait = w.rng.choice(_tables()["animals"])
  lines = [
    f"the {name} is a {group} [that lives|found] in {habitat}",
    f"[its food is|it feeds on|it eats] {food}",
    f"[the {name} is known because it|like others of its kind it|a {name}] {trait}",
    f"[people meet|one may see] {{pool_kind}} of [them|this {group}] [at dawn|in spring|near water|rarely]",
    f"{{name}}, a {{role}} in {{town}}, [keeps a list|drew a picture] of each {name} [seen|met] on the way to {{place}}",
    f"as a {group}, [it|the {name}] [has its place|is described] in [every|many a] [handbook|school book]",
  ]  # fmt: skip
  return f"animal {name}", _join(w, lines, 4)


def _country_paragraph(w: Writer) -> Paragraph:
  name, capital, continent, language = w.rng.choice(_tables()["countries"])
  lines = [
    f"{name} is a [country|state] in {continent}",
    f"its capital is {capital}, [where the government sits|a city with a long history|which many roads lead to]",
    f"[most people there speak|the language of the schools is|signs are written in] {language}",
    f"[maps of|an atlas of] {continent} [show|marks] {name} and its [neighbors|rivers|borders]",
    f"{{name}}, a {{role}}, [wrote|gave] a [short report|talk] on {name} [at|for] {{place}}",
    f"[travelers|visitors] [often begin|arrive] in {capital} and [go on|continue] by [train|bus|boat]",
  ]  # fmt: skip
  return f"country {name}", _join(w, lines, 4)


def _element_paragraph(w: Writer) -> Paragraph:
  name, symbol, number, state = w.rng.choice(_tables()["elements"])
  lines = [
    f"{name} is a chemical element with the symbol {symbol}",
    f"its atomic number is {number}, which means that its atoms have {number} proton{'s' * (number > 1)}",
    f"at room temperature {name} is a {state}",
    f"in the periodic table {name} has place number {number}",
    f"[chemists write|the short form is] {symbol} [in formulas|in equations]",
    f"{{name}}, a {{role}}, [remembers|learned] the symbol {symbol} [at|from] {{place}}",
  ]
  return f"element {name}", _join(w, lines, 4)


def _process_paragraph(w: Writer) -> Paragraph:
  name, steps = w.rng.choice(list(_tables()["processes"].items()))
  kept = sorted(w.rng.sample(range(len(steps)), 5))
  starts = ("[first|to begin with], ", "[then|next|after that], ", "", "[later|in time|meanwhile], ",
            "[at last|finally|in the end], ")  # fmt: skip
  lines = [
    f"[how it works|the story of|a short account of|notes on|some facts about]{':' if False else ''} {name}",
    *(start + steps[k] for start, k in zip(starts, kept, strict=True)),
  ]
  head = w.expand(f"[some facts about|a short account of|notes on|in brief:] {name}")
  body = " ".join(sentence(w.expand(line)) for line in lines[1:])
  return f"process {name}", f"{sentence(head)} {body}"


def _day_paragraph(w: Writer) -> Paragraph:
  """A small scene; its town and person are the subject."""
  town, person, role = w.expand("{town}"), w.expand("{name}"), w.expand("{role}")
  noun, other = w.rng.sample(_tables()["nouns"], 2)
  lines = [
    f"{{time}}, {person}, a {role} in {town}, [found|saw|picked up] a {noun} [behind|near|outside] {{place}}",
    f"[it|the {noun}] [lay beside|was under|hung above] a {other}",
    f"{person} [asked|called] {{other}}, and [the two of them|both] [carried it|took it] to {{place}}",
    "[nobody there|no one] [knew|could say] [whose it was|how it had got there]",
    "[so|in the end] [they|the two] [wrote a note|put up a notice] and [went back to work|waited]",
    f"[the next day|after {{occasion}}] the {noun} was [gone|collected|still there]",
  ]  # fmt: skip
  return f"scene {town} {person}", _join(w, lines, 5)


def _join(w: Writer, lines: list[str], least: int) -> str:
  """Joins the first line and some of the others, in their order."""
  count = w.rng.randint(least, len(lines))
  kept = [0, *sorted(w.rng.sample(range(1, len(lines)), count - 1))]
  extra = {"other": "{name}", "pool_kind": "[a pair|a small group|one]"}
  return " ".join(sentence(w.expand(lines[k], extra)) for k in kept)


_CHATS = (
  _capital, _animal, _element, _sum, _story_sum, _opposite, _alphabet, _odd_word, _unit,
  _sequence, _compare, _how,
)  # fmt: skip
_PARAGRAPHS = (
  _animal_paragraph, _country_paragraph, _element_paragraph, _process_paragraph,
  _day_paragraph, _day_paragraph,
)  # fmt: skip
