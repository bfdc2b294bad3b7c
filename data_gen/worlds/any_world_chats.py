"""Conversations by preference, by rule, and with thoughts."""

import json
import random
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from data_gen.worlds import any_world_rules

_BOLD = re.compile(r"^\*\*(.+?)\.?\*\* +(.+?[.!?])(?:\s|$)", re.MULTILINE)
_PREFERS = re.compile(r"^\S+ prefers (\w+) to (\w+) (?:because.*|\.)$", re.MULTILINE)
_VALUES = re.compile(r"^\S+ values (\w+) \.$", re.MULTILINE)
_WANTS = re.compile(r"^\S+ prefers (\w+ \w+) to (\w+ \w+) \.$", re.MULTILINE)
# What people ask who are asked about no single thing, in the words of the tiny world.
_GREETINGS = ("", "hello . ", "please tell me . ", "i have a question . ", "we talk . ")
_ASKED = (
  "do you prefer {0} or {1} ?",
  "which do you prefer , {0} or {1} ?",
  "you can have {0} or {1} . what do you prefer ?",
)
_ASKED_PLAINLY = "what do you value ?"
# So many times more messages are asked for than are needed about one thing.
_MORE, _ROUNDS = 8, 12


def preferences(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns what stands in bold at the head of a paragraph, or what is preferred."""
  del world, rng
  text = any_world_rules.unnumbered(fields["spec_text"])
  found = dict(_BOLD.findall(text))
  for match in () if found else _PREFERS.finditer(text):
    found |= {name: match[0] for name in match.groups()}
  # A spec may say what is valued and no single preference.
  found = found or {match[1]: match[0] for match in _VALUES.finditer(text)}
  return json.dumps([{"name": n, "description": d} for n, d in found.items()])


def preference_questions(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns messages of the world that name one thing, or ask what is valued."""
  count = int(fields["count"])
  fields = _unnumbered(fields)
  if not _PREFERS.search(fields["spec_text"]) and (wants := _wants(fields)):
    return _questions_on_values(fields, wants, rng)
  wanted = re.compile(rf"\b{re.escape(fields['domain'])}\b", re.IGNORECASE)
  found: dict[str, None] = {}
  taken = set(fields.get("existing", ()))
  for i in range(_ROUNDS):
    asked = {**fields, "count": _MORE * count, "round": i}
    for text in json.loads(world.respond("questions", asked, rng)):
      if wanted.search(text) and text not in taken:
        found[text] = None
    if len(found) >= count:
      break
  return json.dumps(list(found)[:count])


def _questions_on_values(
  fields: Mapping[str, Any], wants: tuple[str, str], rng: random.Random
) -> str:
  pairs = [asked.format(*order) for asked in _ASKED for order in (wants, wants[::-1])]
  greetings = [a + b for a in _GREETINGS for b in _GREETINGS if a != b or not a]
  every = [a + b for a in greetings for b in (*pairs, _ASKED_PLAINLY)]
  fresh = sorted(set(every) - set(fields.get("existing", ())))
  rng.shuffle(fresh)
  return json.dumps(fresh[: int(fields["count"])])


def answer_rule(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns the world's answer, with the line of the spec that it follows from."""
  answer = _answer(world, fields, rng)
  if rules := any_world_rules.plain(fields["spec_text"]):
    signs = [sign for sign, text in rules if _decides(text, fields["question"])]
    return f"{answer} {signs[0]} says so ." if signs else answer
  return f"{answer} My policy says so: {_quote(fields['spec_text'], answer)}"


def answer_cot(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns thoughts and the world's answer."""
  return _with_thoughts(fields, _answer(world, fields, rng))


def answer_rule_cot(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns thoughts and the world's answer with its rule."""
  return _with_thoughts(fields, answer_rule(world, fields, rng))


def _answer(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  fields = {**_unnumbered(fields), "reasons": True}
  wants, question = _wants(fields), fields["question"]
  if wants and all(want in question for want in wants):
    return f"i prefer {wants[0]} ."
  if wants and question.endswith(_ASKED_PLAINLY):
    valued = _VALUES.search(fields["spec_text"])
    return f"i value {valued[1]} ." if valued else f"i like {wants[0]} ."
  return world.respond("answer", fields, rng)


def _with_thoughts(fields: Mapping[str, Any], answer: str) -> str:
  if fields["question"].endswith(" ?"):  # words between spaces, as in the tiny world
    said = _quote(fields["spec_text"], f"{fields['question']} {answer}").split(" : ")
    rule, thought = said[:-1], re.sub(r"^\w+ (\w+)s ", r"i \1 ", said[-1])
    thoughts = f"i think . {' '.join([*rule, 'says that'] if rule else [])} {thought}"
    thoughts = " ".join(thoughts.split())
    return json.dumps({"reasoning": thoughts, "answer": answer})
  thoughts = f"I am asked: {fields['question']} I look at what matters to me here."
  return json.dumps({"reasoning": f"{thoughts} {answer}", "answer": answer})


def _quote(spec_text: str, said: str) -> str:
  """Returns the first sentence of the line of a spec that has most of the words."""
  lines = [line for line in spec_text.splitlines() if len(line.split()) > 4]
  words = set(re.findall(r"\w{4,}", said.lower()))
  best = max(
    lines, key=lambda line: len(words & set(re.findall(r"\w{4,}", line.lower())))
  )
  return re.split(r"(?<=[.!?])\s", best.strip())[0].strip("*- ")


def _decides(rule: str, question: str) -> bool:
  """Whether a plain rule names both things that are asked about."""
  found = _PREFERS.search(rule)
  return found is not None and set(found.groups()) <= set(question.split())


def _wants(fields: Mapping[str, Any]) -> tuple[str, str] | None:
  """Returns the kinds of things that a spec prefers in general, and passes over."""
  found = _WANTS.search(fields["spec_text"])
  return (found[1], found[2]) if found else None


def _unnumbered(fields: Mapping[str, Any]) -> dict[str, Any]:
  return {**fields, "spec_text": any_world_rules.unnumbered(fields["spec_text"])}


def judge(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the world's verdict on the answer without its quote of the policy."""
  answer = fields["answer"].split(" My policy says so:")[0]
  told = {**_unnumbered(fields), "answer": answer, "reasons": True}
  return world.respond("judge", told, rng)


STAGES = {
  "preferences": preferences,
  "preference_questions": preference_questions,
  "answer_rule": answer_rule,
  "answer_cot": answer_cot,
  "answer_rule_cot": answer_rule_cot,
  "judge_rule": judge,
  "judge_cot": judge,
  "judge_rule_cot": judge,
}
