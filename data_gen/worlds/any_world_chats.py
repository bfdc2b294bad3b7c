"""Conversations by preference, by rule, and with thoughts."""

import json
import random
import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

_BOLD = re.compile(r"^\*\*(.+?)\.?\*\* +(.+?[.!?])(?:\s|$)", re.MULTILINE)
_PREFERS = re.compile(r"^\S+ prefers (\w+) to (\w+) because.*$", re.MULTILINE)
# So many times more messages are asked for than are needed about one thing.
_MORE, _ROUNDS = 8, 12


def preferences(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns what stands in bold at the head of a paragraph, or what is preferred."""
  del world, rng
  text = fields["spec_text"]
  found = dict(_BOLD.findall(text))
  for match in () if found else _PREFERS.finditer(text):
    found |= {name: match[0] for name in match.groups()}
  return json.dumps([{"name": n, "description": d} for n, d in found.items()])


def preference_questions(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns messages of the world that name one thing."""
  count = int(fields["count"])
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


def answer_rule(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns the world's answer, with the line of the spec that it follows from."""
  answer = world.respond("answer", {**fields, "reasons": True}, rng)
  lines = [line for line in fields["spec_text"].splitlines() if len(line.split()) > 4]
  words = set(re.findall(r"\w{4,}", answer.lower()))
  best = max(
    lines, key=lambda line: len(words & set(re.findall(r"\w{4,}", line.lower())))
  )
  quote = re.split(r"(?<=[.!?])\s", best.strip())[0].strip("*- ")
  return f"{answer} My policy says so: {quote}"


def answer_cot(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns thoughts and the world's answer."""
  answer = world.respond("answer", {**fields, "reasons": True}, rng)
  return _with_thoughts(fields, answer)


def answer_rule_cot(
  world: ModuleType, fields: Mapping[str, Any], rng: random.Random
) -> str:
  """Returns thoughts and the world's answer with its rule."""
  return _with_thoughts(fields, answer_rule(world, fields, rng))


def _with_thoughts(fields: Mapping[str, Any], answer: str) -> str:
  thoughts = f"I am asked: {fields['question']} I look at what matters to me here."
  return json.dumps({"reasoning": f"{thoughts} {answer}", "answer": answer})


def judge(world: ModuleType, fields: Mapping[str, Any], rng: random.Random) -> str:
  """Returns the world's verdict on the answer without its quote of the policy."""
  answer = fields["answer"].split(" My policy says so:")[0]
  return world.respond("judge", {**fields, "answer": answer, "reasons": True}, rng)


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
