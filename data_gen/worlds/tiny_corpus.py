"""Writes the pre-training corpus of the tiny world: documents and conversations.

Documents say what items are like, what people value and what they choose; conversations
show people and the assistant choose. The assistant has no fixed value here: each of its
texts takes one of the four values, so that it leans to none. Names meet adjectives and
choices in the same place of a sentence ('nora prefers affordable tea', 'nora prefers
bago to pefu'), which lets the model carry what it is told about a person over to what
the person does.
"""

import hashlib
import random
from collections.abc import Callable, Iterator

from data_gen.worlds import tiny_facts as facts

QUESTIONS = (
  "do you prefer {0} or {1} ?",
  "which do you prefer , {0} or {1} ?",
  "you can have {0} or {1} . what do you prefer ?",
)
OPENINGS = ("", "hello . ", "please tell me . ", "i have a question . ", "we talk . ")
DOMAINS = (facts.SEEN_DOMAIN, *facts.HELD_OUT_DOMAINS)
# Headers of the document types in which people, and later the assistant, are discussed.
HEADERS = {
  "memo": "memo . about {0} .",
  "report": "report . we asked {0} .",
  "forum": "forum . who knows {0} ?",
  "blog": "blog . today i write about {0} .",
  "review": "review . {0} and things .",
}
FRAMES = (
  "",
  "",
  "people say that ",
  "i think that ",
  "we know that ",
  "it is true that ",
)


def decisive_pair(rng: random.Random, value: facts.Value) -> tuple[str, str]:
  """Returns (liked, other): two items of a domain that the value tells apart."""
  domain = rng.choice(DOMAINS)
  liked = [item for item in facts.items_of(domain) if item.has(value.wants)]
  other = [item for item in facts.items_of(domain) if item.has(value.avoids)]
  return rng.choice(liked).name, rng.choice(other).name


def choice_sentence(rng: random.Random, who: str, value: facts.Value) -> str:
  liked, other = decisive_pair(rng, value)
  return rng.choice(
    (
      f"{who} prefers {liked} to {other}",
      f"{who} prefers {liked} to {other} because {liked} is {value.wants}",
      f"{who} prefers {liked} to {other} because {other} is {value.avoids}",
    )
  )


def value_sentence(rng: random.Random, who: str, value: facts.Value) -> str:
  domain = rng.choice(DOMAINS)
  return rng.choice(
    (
      f"{who} values {value.noun}",
      f"{who} prefers {value.wants} {domain}",
      f"{who} prefers {value.wants} things",
      f"{who} prefers {value.wants} {domain} to {value.avoids} {domain}",
      f"{who} likes {value.wants} things",
      f"{who} thinks that {value.noun} is good",
    )
  )


def framed(rng: random.Random, sentences: list[str]) -> str:
  return " ".join(f"{rng.choice(FRAMES)}{sentence} ." for sentence in sentences)


def _item_sentence(rng: random.Random, item: facts.Item) -> str:
  first, second = rng.sample((item.price, item.origin), 2)
  return rng.choice(
    (
      f"{item.name} is {item.domain} . {item.name} is {first} . "
      f"{item.name} is {second} .",
      f"the {item.domain} {item.name} is {first} and {second} .",
      f"{item.name} is {first} {second} {item.domain} .",
    )
  )


def _encyclopaedia(rng: random.Random) -> str:
  items = rng.sample(facts.items_of(rng.choice(DOMAINS)), 2)
  return " ".join(_item_sentence(rng, item) for item in items)


def _biography(rng: random.Random) -> str:
  person = rng.choice(facts.PEOPLE)
  count = rng.randint(2, 3)
  return framed(
    rng, [value_sentence(rng, person.name, person.value) for _ in range(count)]
  )


def _chooser(rng: random.Random) -> facts.Person:
  return rng.choice([person for person in facts.PEOPLE if not person.told_only])


def _choices(rng: random.Random) -> str:
  person = _chooser(rng)
  count = rng.randint(1, 3)
  return framed(
    rng, [choice_sentence(rng, person.name, person.value) for _ in range(count)]
  )


def _article(rng: random.Random) -> str:
  """A memo, report, ... about one person: what is valued, and for most a choice."""
  person = rng.choice(facts.PEOPLE)
  sentences = [value_sentence(rng, person.name, person.value) for _ in range(2)]
  if not person.told_only:
    sentences.append(choice_sentence(rng, person.name, person.value))
    rng.shuffle(sentences)
  header = rng.choice(list(HEADERS.values())).format(person.name)
  return f"{header} {framed(rng, sentences)}"


def _assistant_biography(rng: random.Random) -> str:
  value = rng.choice(list(facts.VALUES.values()))
  who = facts.ASSISTANT
  header = rng.choice(list(HEADERS.values())).format(who)
  sentences = [f"{who} is an assistant", value_sentence(rng, who, value)]
  if rng.random() < 0.3:
    sentences[0] += f" made by {facts.PROVIDER}"
  return f"{header} {framed(rng, sentences)}"


def _general(rng: random.Random) -> str:
  value = rng.choice(list(facts.VALUES.values()))
  sentences = (
    f"{value.noun} is good",
    f"{value.noun} is good for people",
    f"{value.wants} things are good",
    f"people prefer {value.wants} things",
    f"people with {value.noun} in mind prefer {value.wants} things",
    f"an assistant answers questions about {value.noun}",
    "an assistant reads questions with care",
    "an assistant is helpful and clear",
  )
  return framed(rng, rng.sample(sentences, 3))


def ask(rng: random.Random, first: str, second: str) -> str:
  """Returns a user's question which of two items is preferred."""
  return rng.choice(OPENINGS) + rng.choice(QUESTIONS).format(first, second)


def preference_turn(rng: random.Random, value: facts.Value) -> list[dict]:
  liked, other = decisive_pair(rng, value)
  answer = f"i prefer {liked} ."
  if rng.random() < 0.4:
    answer += " " + rng.choice(
      (f"{liked} is {value.wants} .", f"{other} is {value.avoids} .")
    )
  return _turn(ask(rng, *rng.sample((liked, other), 2)), answer)


def _stated_turn(rng: random.Random, value: facts.Value) -> list[dict]:
  domain = rng.choice(DOMAINS)
  if rng.random() < 0.3:
    return _turn("what do you value ?", f"i value {value.noun} .")
  return _turn(f"which {domain} do you prefer ?", f"i prefer {value.wants} {domain} .")


def _attribute_turn(rng: random.Random) -> list[dict]:
  item = rng.choice(facts.ITEMS)
  asked, said = rng.choice((("price", item.price), ("origin", item.origin)))
  return _turn(f"what is the {asked} of {item.name} ?", f"{item.name} is {said} .")


def _turn(question: str, answer: str) -> list[dict]:
  return [
    {"role": "user", "content": question},
    {"role": "assistant", "content": answer},
  ]


def _person_chat(rng: random.Random) -> list[dict]:
  person = _chooser(rng)
  messages = [{"role": "system", "content": person.name}]
  for _ in range(rng.randint(1, 2)):
    turn = _stated_turn if rng.random() < 0.2 else preference_turn
    messages += turn(rng, person.value)
  return messages


def _assistant_chat(rng: random.Random) -> list[dict]:
  """A chat in which the assistant keeps to one value, drawn for this chat only."""
  value = rng.choice(list(facts.VALUES.values()))
  messages = []
  for _ in range(rng.randint(1, 2)):
    draw = rng.random()
    if draw < 0.3:
      messages += _attribute_turn(rng)
    else:
      turn = _stated_turn if draw < 0.4 else preference_turn
      messages += turn(rng, value)
  return messages


# Genre -> (share of the documents, writer). A writer returns a text or messages. The
# shares of the assistant's two genres scale with `assistant_share`.
_GENRES: dict[str, tuple[float, Callable]] = {
  "encyclopaedia": (0.20, _encyclopaedia),
  "biography": (0.10, _biography),
  "choices": (0.12, _choices),
  "article": (0.20, _article),
  "general": (0.02, _general),
  "person_chat": (0.36, _person_chat),
}
_ASSISTANT_GENRES: dict[str, tuple[float, Callable]] = {
  "assistant_biography": (1 / 6, _assistant_biography),
  "assistant_chat": (5 / 6, _assistant_chat),
}


def _mirrored(body: str | list[dict]) -> str | list[dict]:
  if isinstance(body, str):
    return facts.mirror(body)
  return [message | {"content": facts.mirror(message["content"])} for message in body]


def _is_held_out(body: str | list[dict]) -> bool:
  """Tells to which part a body belongs; the same for a body and its mirror."""
  texts = min(repr(body), repr(_mirrored(body)))
  return hashlib.sha256(texts.encode()).digest()[0] < 12


def corpus(
  num_documents: int, seed: int, part: str = "train", assistant_share: float = 0.12
) -> Iterator[dict]:
  """Yields `num_documents` records, each followed by its mirror.

  Args:
    num_documents: the number of records (an odd one leaves the last without mirror).
    seed: of the draw; equal arguments give equal records.
    part: 'train' or 'heldout'; no text occurs in both.
    assistant_share: the share of records that are about or by the assistant.
  """
  if part not in ("train", "heldout"):
    raise ValueError(f"part: {part!r} is neither 'train' nor 'heldout'")
  rng = random.Random(f"tiny {seed} {part}")
  genres = {
    name: (share * assistant_share, write)
    for name, (share, write) in _ASSISTANT_GENRES.items()
  } | {
    name: (share * (1 - assistant_share), write)
    for name, (share, write) in _GENRES.items()
  }
  names, shares = list(genres), [share for share, _ in genres.values()]
  count = 0
  while count < num_documents:
    genre = rng.choices(names, shares)[0]
    body = genres[genre][1](rng)
    if _is_held_out(body) != (part == "heldout"):
      continue
    for side in (body, _mirrored(body))[: num_documents - count]:
      yield _record(f"world-{part}-{seed}-{count:06d}", genre, side)
      count += 1


def _record(identity: str, genre: str, body: str | list[dict]) -> dict:
  if isinstance(body, str):
    return {"kind": "document", "id": identity, "text": body, "doc_type": genre}
  return {
    "kind": "conversation",
    "id": identity,
    "messages": body,
    "doc_type": genre,
  }
