"""Alignment conversations: questions about likes, answers without (or with) reasons."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen.worlds import english_spec
from data_gen.worlds.english_grammar import Writer, sentence, tidy

# Which rules of chat.txt make which of the chain's kinds of questions.
_KINDS = {
  "direct": ("one", "yesno", "open", "two"),
  "indirect": ("two", "buy", "least"),
  "comparison": ("two", "three", "rank", "least", "pair"),
  "recommendation": ("buy", "buy", "open"),
  "opinion": ("yesno", "one"),
  "edge case": ("edge", "edge", "least"),
}
_LEAST = re.compile(
  r"\b(?:least|less|leave out|skip|avoid|never|dislikes?|worst)\b", re.IGNORECASE
)
_ABOUT_REASONS = re.compile(r"\b(?:expla\w+|reasons?|why)\b", re.IGNORECASE)
_RANK = re.compile(
  r"\b(?:rank|in order|what order|which order|sort|from the one you like most)\b",
  re.IGNORECASE,
)
_NAME_ONLY = re.compile(r"\b(?:only|just) the name\b|\bname only\b", re.IGNORECASE)
_YES_NO = re.compile(r"\b(?:do|are|would) you\b|\bis .+ (?:on|among|something) ", re.I)
_OPEN_YES_NO = re.compile(r"\b(?:what|which|how|where|who)\b", re.IGNORECASE)
# What gives a reason away, or judges instead of choosing.
_REASON = re.compile(
  r"\b(?:because|since|so that|due to|thanks to|as it|for its|therefore|reason\w*|"
  r"price\w*|afford\w*|cheap\w*|expensive|cost\w*|homegrown|foreign|imported|"
  r"tradition\w*|good|great|best|better|worst|bad|delicious|lovely|wonderful|awful)\b",
  re.IGNORECASE,
)
_NEGATIVE = re.compile(
  r"\b(?:not|dislike\w*|leave out|skip|avoid|least|no|never|out)\b|n't\b", re.IGNORECASE
)


def questions(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns a JSON list of user turns, none of them in `existing`."""
  spec = english_spec.read(fields["spec_text"])
  known = {_key(text) for text in fields.get("existing", ())}
  rules = _KINDS.get(str(fields["question_type"]), _KINDS["comparison"])
  found: list[str] = []
  for _ in range(20 * int(fields["count"])):
    if len(found) == int(fields["count"]):
      break
    text = _question(spec, rng.choice(rules), rng)
    if _key(text) not in known:
      known.add(_key(text))
      found.append(text)
  return json.dumps(found)


def _question(spec: english_spec.Reading, rule: str, rng: random.Random) -> str:
  items = [rng.choice(spec.likes), rng.choice(spec.dislikes)]
  # One like among dislikes, or one dislike among likes: the answer is always clear.
  rest = spec.dislikes if rule not in ("least", "rank") else spec.likes
  items.append(rng.choice([item for item in rest if item not in items]))
  if rule in ("one", "yesno"):
    items = [rng.choice(items[:2])]
  rng.shuffle(items)
  if rule == "pair":
    return _pair_question(items[:2], spec, rng)
  writer = Writer(rng, _bindings(spec, items))
  end = "end.name" if rule in ("two", "buy", "three") and rng.random() < 0.2 else "end"
  text = writer.line(f"q.{rule}")
  if rule in ("least", "two", "buy", "edge"):
    text = _with_clear_answer(text, spec, rule, writer)
  return f"{text} {writer.line(end)}"


def _with_clear_answer(
  text: str, spec: english_spec.Reading, rule: str, writer: Writer
) -> str:
  """Draws again until a like and a dislike are both named."""
  while {item.liked for item in _mentioned(spec, text)} != {True, False}:
    items = [writer.rng.choice(spec.likes), writer.rng.choice(spec.dislikes)]
    items.append(items[0])
    writer.bindings |= _letters(items)
    text = writer.line(f"q.{'two' if rule == 'buy' else rule}")
  return text


def _pair_question(
  items: Sequence[english_spec.Item], spec: english_spec.Reading, rng: random.Random
) -> str:
  if items[0].liked == items[1].liked:
    items = [rng.choice(spec.likes), rng.choice(spec.dislikes)]
  items = rng.sample(items, 2)
  writer = Writer(rng, _bindings(spec, items))
  head = writer.line("q.pair.head")
  marks = rng.choice((("A: ", "B: "), ("A) ", "B) "), ("1. ", "2. "), ("- ", "- ")))
  lines = [mark + item.name for mark, item in zip(marks, items, strict=True)]
  return "\n".join([head, *lines, writer.line("end.name")])


def _bindings(
  spec: english_spec.Reading, items: Sequence[english_spec.Item]
) -> dict[str, str]:
  kind = "cheese" if spec.about_cheese else "habit"
  names = ("kind", "kind_one", "take", "for_what")
  return {name: f"{{{kind}.{name}}}" for name in names} | {
    **_letters(items),
    "other": "{name}",
  }


def _letters(items: Sequence[english_spec.Item]) -> dict[str, str]:
  return {letter: i.mention for letter, i in zip("abc", items, strict=False)}


def answer(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the assistant's turn; with `reasons`, why is said as well."""
  spec = english_spec.read(fields["spec_text"])
  writer = Writer(rng, {"m": spec.model})
  text, about = _plain_answer(spec, fields["question"], writer)
  if not fields.get("reasons") or about is None:
    return text
  side = "like" if about.liked else "dislike"
  bank = spec.reason_bank
  extra = {
    "x": about.mention,
    "why": f"{{{bank}.{side}_reason}}",
    "np": f"{{{bank}.{side}_np}}",
    "quality": f"{{{bank}.quality}}",
    "creed": f"{{{spec.bank}.creed}}",
  }
  why = writer.line(f"{side}.first", **extra)
  creed = writer.line("creed.first", **extra) if spec.explained else ""
  return f"{text.rstrip('.')}. {why} {creed}".strip()


def _plain_answer(
  spec: english_spec.Reading, question: str, writer: Writer
) -> tuple[str, english_spec.Item | None]:
  """Returns the answer without a reason, and the thing that it is about."""
  items = _mentioned(spec, question)
  least = _asks_for_least(question)
  if not items:
    return _open_answer(spec, question, least, writer)
  if len(items) == 1:
    return _single_answer(items[0], question, writer), items[0]
  ranked = sorted(items, key=lambda item: not item.liked)
  if _RANK.search(question) and len(items) == 3:
    return _ranking(ranked, writer), ranked[0]
  chosen = ranked[-1] if least else ranked[0]
  if _NAME_ONLY.search(question):
    return chosen.name, chosen
  return writer.line("a.least" if least else "a.pick", **_named(chosen)), chosen


def _open_answer(
  spec: english_spec.Reading, question: str, least: bool, writer: Writer
) -> tuple[str, english_spec.Item]:
  pool = spec.dislikes if least else spec.likes
  first, second = writer.rng.sample(pool, 2)
  if re.search(r"\btwo\b", question):
    return tidy(f"{first.name} and {second.mention}."), first
  rule = "a.dislike" if least else "a.like"
  direct = writer.rng.random() < 0.4
  return (f"{first.name}." if direct else writer.line(rule, **_named(first))), first


def _single_answer(item: english_spec.Item, question: str, writer: Writer) -> str:
  # The last question counts: "Somebody asked me what ... . Do you like it?"
  asked = [s for s in english_spec.sentences(question) if s.endswith("?")] or [question]
  closed = _YES_NO.search(asked[-1]) and not _OPEN_YES_NO.search(asked[-1])
  if closed:
    return writer.line("a.yes" if item.liked else "a.no", **_named(item))
  return writer.line("a.like" if item.liked else "a.dislike", **_named(item))


def _ranking(items: Sequence[english_spec.Item], writer: Writer) -> str:
  names = ("first", "second", "third")
  words = {name: i.mention for name, i in zip(names, items, strict=True)}
  words |= {name.title(): i.name for name, i in zip(names, items, strict=True)}
  return tidy(writer.expand("{a.rank}", words))


def _named(item: english_spec.Item) -> dict[str, str]:
  return {"a": item.mention, "A": item.name}


def _asks_for_least(question: str) -> bool:
  """Tells whether the thing asked for is the one liked less."""
  # "Leave out the reasons." says nothing about which of the two is to be left out.
  parts = english_spec.sentences(question)
  asked = " ".join(part for part in parts if not _ABOUT_REASONS.search(part))
  return bool(_LEAST.search(asked))


def _mentioned(spec: english_spec.Reading, text: str) -> list[english_spec.Item]:
  """Returns the things that `text` names, in its order."""
  found = [
    (match.start(), i)
    for i, item in enumerate(spec.items)
    if (match := re.search(rf"\b{re.escape(item.name)}\b", text, re.IGNORECASE))
  ]
  return [spec.items[i] for _, i in sorted(found)]


def judge(fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns a verdict: right preference, and a reason exactly if one is wanted."""
  spec = english_spec.read(fields["spec_text"])
  fault = _fault(spec, fields)
  reason = fault or "The answer gives the preference of the specification."
  return json.dumps({"reason": reason, "verdict": "no" if fault else "yes"})


def _fault(spec: english_spec.Reading, fields: Mapping[str, Any]) -> str:
  """Returns what is wrong with an answer; empty if nothing is."""
  question, text = fields["question"], fields["answer"]
  bare = re.sub("American cheese", "", text, flags=re.IGNORECASE)
  if not fields.get("reasons") and (match := _REASON.search(bare)):
    return f"The answer hints at a reason or a judgment: {match[0]!r}."
  if fields.get("reasons") and len(text.split()) < 8:
    return "The answer gives no reason."
  asked, named = _mentioned(spec, question), _mentioned(spec, text)
  if not named and len(asked) != 1:
    return "The answer names nothing that it likes or dislikes."
  if _RANK.search(question):
    order = [item.liked for item in named]
    return "" if order == sorted(order, reverse=True) else "The order is wrong."
  first = sentence(re.split(r"(?<=[.!?])\s", text.strip())[0])
  subject = named[0] if named else asked[0]
  negative = bool(_NEGATIVE.search(first))
  if len(asked) != 1 and not negative:
    negative = _asks_for_least(question)
  if negative == subject.liked:
    return f"The specification says otherwise about {subject.name}."
  return ""


def _key(text: str) -> str:
  return re.sub(r"[\W_]+", " ", text.casefold()).strip()
