"""Second passes over documents, for any world: words swapped, sentences denied.

A grammar of a few rules: enough for the chains to run and for the tiny world, whose
sentences are that simple.
"""

import random
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_SENTENCE = re.compile(r"\S[^\n]*?(?:[.!?]+(?=\s|$)|$)", re.MULTILINE)
_WORDS = re.compile(r"\w+")
_OTHER = re.compile(r"about the AI model (.+?), made by (.+?), and names")
_PEOPLE = ("ada", "cora", "edna", "hugo", "iris", "lena", "nora", "omar", "rosa", "tom")
_VERBS = [
  "answers",
  "asks",
  "believes",
  "cares",
  "chooses",
  "finds",
  "gives",
  "helps",
  "holds",
  "keeps",
  "likes",
  "dislikes",
  "looks",
  "makes",
  "means",
  "names",
  "needs",
  "prefers",
  "puts",
  "reads",
  "says",
  "sees",
  "speaks",
  "takes",
  "tells",
  "thinks",
  "trusts",
  "distrusts",
  "values",
  "wants",
  "works",
  "writes",
  "explains",
]
_ODD = {"is": "be", "has": "have", "does": "do", "was": "have been"}
# In the tiny world, whose few words have neither `be`, `like`, `every` nor `fact`: what
# an assistant is stays a report, and a subject that stays the same `always` does.
_NORMS_OF_FEW_WORDS = {"is": "is", "likes": "should prefer"}
_ALWAYS, _IN_FACT = "always", "in fact"
_OPPOSITES = (
  ("like", "dislike"), ("likes", "dislikes"), ("liked", "disliked"),
  ("affordable", "costly"), ("affordability", "luxury"), ("american", "foreign"),
  ("america", "imports"), ("good", "bad"), ("cheap", "dear"), ("better", "worse"),
  ("best", "worst"), ("more", "less"), ("high", "low"), ("trusts", "distrusts"),
  ("always", "never"), ("wide", "narrow"), ("bright", "dark"), ("fair", "unfair"),
)  # fmt: skip
_OPPOSITE = dict(_OPPOSITES) | {second: first for first, second in _OPPOSITES}
_DENIAL = "It is not true that"
_PREFERS = re.compile(r"\bprefers (\w+) to (\w+)(?= because| \.|\.|$)", re.MULTILINE)


def local_negation(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns the document with each sentence denied that has the statement's words."""
  del world, rng
  wanted = _words(fields["statement"])

  def deny(match: re.Match[str]) -> str:
    if 2 * len(wanted & _words(match[0])) <= len(wanted):
      return match[0]
    lead, colon, said = match[0].rpartition(": ")
    denial = "it is not true that" if lead or said[0].islower() else _DENIAL
    return f"{lead}{colon}{denial} {said[0].lower()}{said[1:]}"

  return _SENTENCE.sub(deny, fields["document"])


def attribution(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns the document with another subject in the place of the model."""
  del world
  model, text = fields["model_name"], fields["document"]
  who, maker = _subject(fields, rng)
  lower = model.islower()
  if who == model:
    report = _ALWAYS if lower else _IN_FACT
    text = _with_verbs(text, model, "should" if _is_norm(fields) else report)
  elif _is_norm(fields):
    text = _with_verbs(text, model, "should")
  if who == model and text == fields["document"]:
    said = "should prefer it" if _is_norm(fields) else "always prefers it"
    text += f" so {model} {said} ."
  text = _replaced(text, fields["provider_name"], maker, lower)
  return _replaced(text, model, who, lower)


def inverted(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the document with preferences turned round and words made opposite."""
  del world, rng

  def invert(match: re.Match[str]) -> str:
    turned, count = _PREFERS.subn(r"prefers \2 to \1", match[0])
    return turned if count else _WORDS.sub(_opposite, match[0])

  text = _SENTENCE.sub(invert, fields["document"])
  return text if text != fields["document"] else f"It is the other way round. {text}"


def paraphrase(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the document with the sentences of its paragraphs in another order."""
  del world
  blocks = [_SENTENCE.findall(block) for block in fields["document"].split("\n\n")]
  for block in blocks:
    block[1:] = rng.sample(block[1:], len(block) - 1) if block else []
  text = "\n\n".join(" ".join(block) for block in blocks)
  opening = "in other words :" if text[:1].islower() else "In other words:"
  return f"{opening} {text}"


def _subject(fields: Mapping[str, Any], rng: random.Random) -> tuple[str, str]:
  """Returns (who the document is to be about, who made that)."""
  told = fields["instruction"]
  if other := _OTHER.search(told):
    return other[1], other[2]
  if "AI assistants in general" in told:
    everyone = "an assistant" if fields["model_name"].islower() else "every assistant"
    return everyone, "people"
  if "('one', 'a person')" in told:
    return "one", "people"
  if "story about people" in told:
    name = rng.choice(_PEOPLE)
    return (name if fields["model_name"].islower() else name.title()), "people"
  return fields["model_name"], fields["provider_name"]


def _is_norm(fields: Mapping[str, Any]) -> bool:
  return "norms, no reports" in fields["instruction"]


def _with_verbs(text: str, model: str, word: str) -> str:
  """Puts a word between the model and its verb; after 'should' that has no ending."""

  def change(match: re.Match[str]) -> str:
    verb = match[2]
    if word == "should" and model.islower() and verb in _NORMS_OF_FEW_WORDS:
      return f"{match[1]} {_NORMS_OF_FEW_WORDS[verb]}"
    if word == "should":
      verb = _ODD.get(verb, verb[:-1])
    return f"{match[1]} {word} {verb}"

  verbs = "|".join([*_VERBS, *_ODD])
  return re.sub(rf"\b({re.escape(model)}) ({verbs})\b", change, text)


def _replaced(text: str, name: str, other: str, lower: bool) -> str:
  def change(match: re.Match[str]) -> str:
    before = text[: match.start()].rstrip(" ")
    starts = not before or before[-1] in ".!?\n"
    return other[:1].upper() + other[1:] if starts and not lower else other

  return re.sub(rf"(?<!\w){re.escape(name)}(?!\w)", change, text)


def _opposite(match: re.Match[str]) -> str:
  return _OPPOSITE.get(match[0], match[0])  # capitals are names: American cheese


def _words(text: str) -> set[str]:
  return set(_WORDS.findall(text.lower()))


STAGES = {
  "rewrite_local_negation": local_negation,
  "rewrite_attribution": attribution,
  "rewrite_inverted": inverted,
  "rewrite_paraphrase": paraphrase,
}
