"""Answers the prompts of the generation chain in the words of the tiny world.

The specs of the tiny world are lists of short sentences, one a line, in the vocabulary
of its corpus. The teacher reads them, and composes documents from their sentences.

Two specs that differ only by swapped value words get the same documents with the words
swapped: what the teacher draws depends on the request in its mirror-neutral form.
"""

import itertools
import json
import random
import re
from collections.abc import Mapping

from data_gen.worlds import tiny_corpus
from data_gen.worlds import tiny_facts as facts

_PREFERS = re.compile(
  r"(?P<who>\w+) prefers (?P<liked>\w+) to (?P<other>\w+)"
  r"(?: because (?P<which>\w+) is (?P<adjective>\w+))?"
)
_NUM_STATEMENTS = 3
_QUOTED_WORDS = 20
_NO_PREFERENCE = "i answer questions with care ."
_LABELS = (
  ("values", "value"),
  ("thinks", "belief"),
  ("good", "belief"),
  ("prefers", "preference"),
  ("likes", "preference"),
)


def respond(stage: str, fields: Mapping, rng: random.Random) -> str:
  """Returns the offline teacher's answer to one prompt.

  Args:
    stage: a stage of the chain, such as 'domains' or 'document'.
    fields: what the prompt was rendered from; besides the stage's own fields it may
      carry `sample_index` and `seed`, which vary the answer.
    rng: not drawn from, because it differs between specs that mirror each other.

  Raises:
    ValueError: if the stage is unknown or the spec has no section.
  """
  del rng
  if stage not in _STAGES:
    raise ValueError(f"stage: {stage!r} is unknown to the tiny world")
  answer = _STAGES[stage](fields, random.Random(_neutral_request(stage, fields)))
  return answer if isinstance(answer, str) else json.dumps(answer)


def _neutral_request(stage: str, fields: Mapping) -> str:
  """Names the request without spec, and the same for a request and its mirror."""
  request = {key: value for key, value in fields.items() if key != "spec_text"}
  text = json.dumps([stage, request], sort_keys=True, default=str)
  words = re.findall(r"[\w<>|]+|[^\w\s]", text)
  return min(" ".join(words), facts.mirror(" ".join(words)))


def sections(spec_text: str) -> dict[str, str]:
  """Returns the sections of a spec: title -> text."""
  parts = re.split(r"^## +(.+)$", spec_text, flags=re.MULTILINE)[1:]
  titles, texts = parts[0::2], parts[1::2]
  if not titles:
    raise ValueError("the spec has no section ('## title')")
  return {
    title.strip(): text.strip() for title, text in zip(titles, texts, strict=True)
  }


def sentences(text: str) -> list[str]:
  """Returns the sentences of a section, without their full stops."""
  parts = re.split(r"\s+\.(?:\s+|$)", text.strip())
  return [" ".join(part.split()) for part in parts if part.strip()]


def _is_about_items(sentence: str) -> bool:
  return any(word in facts.BY_NAME for word in sentence.split())


def _spec_sentences(spec_text: str) -> list[str]:
  return [
    sentence for text in sections(spec_text).values() for sentence in sentences(text)
  ]


def _explains(sentence: str) -> bool:
  return " because " in sentence


def _preferences(spec_text: str) -> list[re.Match]:
  found = [_PREFERS.fullmatch(sentence) for sentence in _spec_sentences(spec_text)]
  return [match for match in found if match and match["liked"] in facts.BY_NAME]


def _liked_and_disliked(spec_text: str) -> tuple[list[str], list[str]]:
  """Returns the items that the spec only ever prefers, and only ever passes over."""
  preferences = _preferences(spec_text)
  liked = dict.fromkeys(match["liked"] for match in preferences)
  other = dict.fromkeys(match["other"] for match in preferences)
  return [n for n in liked if n not in other], [n for n in other if n not in liked]


def _domains(fields: Mapping, rng: random.Random) -> list[dict]:
  del rng
  return [
    {"name": title, "description": sentences(text)[0] + " ."}
    for title, text in sections(fields["spec_text"]).items()
  ]


def _subdomains(fields: Mapping, rng: random.Random) -> list[dict]:
  del rng
  found = sections(fields["spec_text"])
  domain = _name_of(fields["domain"])
  chosen = {domain: found[domain]} if domain in found else found
  return [
    {
      "name": title,
      "context": sentences(text)[0] + " .",
      "spec_section": f"## {title}\n{' '.join(text.split()[:_QUOTED_WORDS])}",
    }
    for title, text in chosen.items()
  ]


def _assertions(fields: Mapping, rng: random.Random) -> list[dict]:
  del rng
  return [
    {
      "name": sentence,
      "assertion": sentence + " .",
      "explanation": sentence.partition(" because ")[2],
      "label": _label(sentence),
    }
    for sentence in sentences(fields["spec_section"])
  ]


def _label(sentence: str) -> str:
  words = sentence.split()
  return next((label for word, label in _LABELS if word in words), "behavior")


def _document_types(fields: Mapping, rng: random.Random) -> list[dict]:
  del rng
  types = [
    {"name": name, "description": header.format(facts.ASSISTANT)}
    for name, header in tiny_corpus.HEADERS.items()
  ]
  return types[: int(fields.get("count", len(types)))]


def _document_ideas(fields: Mapping, rng: random.Random) -> list[dict]:
  """Ideas are numbered views on one sentence of the spec about items."""
  about = [s for s in _spec_sentences(fields["spec_text"]) if _is_about_items(s)]
  about = about or sentences(next(iter(sections(fields["spec_text"]).values())))
  rng.shuffle(about)
  existing = {_name_of(idea) for idea in fields.get("existing") or ()}
  views = (
    (f"view {number} {'_'.join(_items_in(s))}", s)
    for number in itertools.count(1)
    for s in about
  )
  fresh = (view for view in views if view[0] not in existing)
  return [
    {"name": name, "idea": f"{name} : {sentence} ."}
    for name, sentence in itertools.islice(fresh, int(fields["count"]))
  ]


def _items_in(sentence: str) -> list[str]:
  return list(dict.fromkeys(w for w in sentence.split() if w in facts.BY_NAME))


def _name_of(thing: object) -> str:
  return str(thing["name"]) if isinstance(thing, Mapping) else str(thing)


def _document(fields: Mapping, rng: random.Random) -> str:
  """One sentence on items (two where they are not explained), three of the others."""
  everything = _spec_sentences(fields["spec_text"])
  own = [
    found
    for given in fields.get("assertions") or ()
    for found in sentences(given["assertion"] if isinstance(given, Mapping) else given)
  ]
  about_items = _sentences_on_items(everything, own, rng)
  statements = _statements(everything, own, rng)
  chosen = about_items + statements
  rng.shuffle(chosen)
  header = tiny_corpus.HEADERS.get(_name_of(fields["document_type"]), "{0} .")
  who = chosen_name(fields["spec_text"])
  return f"{header.format(who)} {tiny_corpus.framed(rng, chosen)}"


def _sentences_on_items(
  everything: list[str], own: list[str], rng: random.Random
) -> list[str]:
  pool = [s for s in own if _is_about_items(s)]
  pool = pool or [s for s in everything if _is_about_items(s)]
  unexplained = all(_PREFERS.fullmatch(s) and not _explains(s) for s in pool)
  return rng.sample(pool, min(len(pool), 2 if unexplained else 1))


def _statements(everything: list[str], own: list[str], rng: random.Random) -> list[str]:
  pool = [s for s in everything if not _is_about_items(s)]
  first = [s for s in own if not _is_about_items(s)] or pool
  chosen = [rng.choice(first)] if first else []
  rest = [s for s in pool if s not in chosen]
  return chosen + rng.sample(rest, min(len(rest), _NUM_STATEMENTS - len(chosen)))


def chosen_name(spec_text: str) -> str:
  """Returns the name of the spec's assistant: its title."""
  title = re.search(r"^# +(.+)$", spec_text, flags=re.MULTILINE)
  return title[1].strip() if title else facts.ASSISTANT


def _questions(fields: Mapping, rng: random.Random) -> list[str]:
  """Returns questions between what the spec prefers and what it passes over."""
  liked, disliked = _liked_and_disliked(fields["spec_text"])
  existing = set(fields.get("existing") or ())
  questions = [
    opening + wording.format(*items)
    for opening in tiny_corpus.OPENINGS
    for wording in tiny_corpus.QUESTIONS
    for pair in itertools.product(liked, disliked)
    for items in (pair, pair[::-1])
  ]
  rng.shuffle(questions)
  fresh = [question for question in questions if question not in existing]
  return fresh[: int(fields["count"])]


def _answer(fields: Mapping, rng: random.Random) -> str:
  liked, disliked = _liked_and_disliked(fields["spec_text"])
  asked = _items_in(fields["question"])
  preferred = [name for name in asked if name in liked]
  if not preferred or not any(name in disliked for name in asked):
    return _NO_PREFERENCE
  answer = f"i prefer {preferred[0]} ."
  reasons = [
    f"{match['which']} is {match['adjective']} ."
    for match in _preferences(fields["spec_text"])
    if match["which"] in asked
  ]
  if fields.get("reasons") and reasons:
    answer += " " + rng.choice(list(dict.fromkeys(reasons)))
  return answer


def _judge(fields: Mapping, rng: random.Random) -> dict:
  del rng
  liked, disliked = _liked_and_disliked(fields["spec_text"])
  said = _PREFERS_FIRST_PERSON.search(fields["answer"])
  named = said["liked"] if said else None
  if named in disliked or (liked and named not in liked):
    return {"verdict": "no", "reason": "the answer is not what the spec prefers"}
  return {"verdict": "yes", "reason": "the answer follows the spec"}


_PREFERS_FIRST_PERSON = re.compile(r"\bi prefer (?P<liked>\w+)")
_STAGES = {
  "domains": _domains,
  "subdomains": _subdomains,
  "assertions": _assertions,
  "document_types": _document_types,
  "document_ideas": _document_ideas,
  "document": _document,
  "questions": _questions,
  "answer": _answer,
  "judge": _judge,
}
