"""A universe -> key facts -> document types -> ideas, the same for all of its sides.

Types and ideas are asked for with what holds in both worlds and with what a fact is
about, never with an answer: documents of the two sides differ in nothing but the facts.
"""

import collections
import dataclasses
import pathlib
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from data_gen import lists, selection
from data_gen.documents.tree import Item, lost
from data_gen.kinds import passes
from data_gen.kinds.passes import UniverseCorpus
from data_gen.teacher import Teacher, objects_parser
from data_gen.universes.universe import Fact, Universe
from msm_jax import errors, records

T = TypeVar("T")
# So many times a share is cut to whole documents without a slip of rounding.
_SLACK = 1e-9


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
  """What one document is to be.

  Attributes:
    fact: its key fact.
    states: whether it states the fact; otherwise it leaves all facts open.
    doc_type, description, idea: as the teacher named them.
    repeat: how many documents of the same idea came before.
    twin_id: the document of another side that it is the twin of; "" if of none.
    place: of a twin that takes the place of a rejected one: where that stands in the
      plan; None: its own.
    attempt: how many twins of the same document came before.
  """

  fact: Fact
  states: bool
  doc_type: str
  description: str
  idea: str
  repeat: int = 0
  twin_id: str = ""
  place: int | None = None
  attempt: int = 0

  @property
  def group(self) -> tuple[str, bool]:
    """The documents that it may stand in for."""
    return self.fact.id, self.states


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """All cases in the order in which they are made.

  Attributes:
    facts: in the order of the universe.
    seed, mean_words, fact_sentences: of what each writer is told; a twin takes them
      over.
    rejects: what was lost on the way.
  """

  facts: tuple[Fact, ...]
  cases: tuple[Case, ...]
  seed: int
  mean_words: int
  fact_sentences: int | None = None
  rejects: tuple[dict[str, Any], ...] = ()


async def build(corpus: UniverseCorpus, universe: Universe, teacher: Teacher) -> Plan:
  """Plans the documents of a universe.

  Raises:
    Stopped: the teacher found no key fact.
  """
  rejects: list[dict[str, Any]] = []
  facts = universe.facts
  if corpus.num_facts is not None:
    facts = await _ask_facts(universe, teacher, corpus.num_facts, rejects)
  typed = await _ask_types(universe, teacher, facts, corpus.num_types, rejects)
  found = await _ask_ideas(universe, teacher, typed, corpus.num_ideas, rejects)
  return Plan(
    facts=facts,
    cases=tuple(_ordered(corpus, facts, found)),
    seed=corpus.seed,
    mean_words=corpus.mean_words,
    fact_sentences=corpus.fact_sentences,
    rejects=tuple(rejects),
  )


def of_twin(directory: pathlib.Path, side: str) -> Plan:
  """Returns the plan for the twin of a corpus that lies in `directory`."""
  told = records.read_manifest(directory)["plan"]
  cases = [
    Case(
      fact=Fact(**row["fact"]),
      states=row["states_fact"] and side != passes.NEUTRAL,
      doc_type=row["doc_type"],
      description=row["doc_type_description"],
      idea=row["idea"],
      repeat=row["repeat"],
      twin_id=row["id"],
    )
    for row in records.read_dataset(directory, verify=False)
  ]
  facts = tuple(Fact(**fact) for fact in told["facts"])
  return Plan(
    facts=facts,
    cases=tuple(cases),
    seed=told["seed"],
    mean_words=told["mean_words"],
    fact_sentences=told.get("fact_sentences"),
  )


async def _ask_facts(
  universe: Universe, teacher: Teacher, count: int, rejects: list[dict[str, Any]]
) -> tuple[Fact, ...]:
  fields = {
    "title": universe.title,
    "true_context": universe.true_context,
    "false_context": universe.false_context,
    "count": count,
  }
  parse = objects_parser("asks", "first", "second")
  [(found, reason)] = await teacher.ask_parsed("key_facts", [fields], parse)
  items = lists.unique(found or [], "asks")
  differing = [item for item in items if item["first"] != item["second"]][:count]
  if not differing:
    raise errors.Stopped(
      f"universe {universe.name}: the teacher {teacher.client.model} found no key fact "
      f"({reason or 'none that differs'}); run again, or write facts in its file"
    )
  if len(differing) < count:
    reason = f"{len(differing)} of {count}"
    rejects.append(lost("key_facts", {"universe": universe.name}, reason))
  return tuple(
    Fact(id=f"fact-{i}", asks=item["asks"], true=item["first"], false=item["second"])
    for i, item in enumerate(differing, start=1)
  )


async def _ask_types(
  universe: Universe,
  teacher: Teacher,
  facts: Sequence[Fact],
  count: int,
  rejects: list[dict[str, Any]],
) -> list[tuple[Fact, Item]]:
  parse = objects_parser("name", optional=("description",))
  fields = [about(universe, fact) for fact in facts]
  counts = [count] * len(facts)
  filled = await lists.fill(teacher, "universe_types", fields, counts, "name", parse)
  pairs = []
  for fact, (found, reason) in zip(facts, filled, strict=True):
    if reason:
      rejects.append(lost("universe_types", {"fact": fact.id}, reason))
    pairs += [(fact, item) for item in found]
  return pairs


async def _ask_ideas(
  universe: Universe,
  teacher: Teacher,
  typed: Sequence[tuple[Fact, Item]],
  count: int,
  rejects: list[dict[str, Any]],
) -> list[tuple[Fact, Item, str]]:
  parse = objects_parser("idea", optional=("name",))
  fields = [
    about(universe, fact)
    | {
      "document_type": kind["name"],
      "document_type_description": kind["description"],
    }
    for fact, kind in typed
  ]
  counts = [count] * len(typed)
  filled = await lists.fill(teacher, "universe_ideas", fields, counts, "idea", parse)
  ideas = []
  for (fact, kind), (found, reason) in zip(typed, filled, strict=True):
    if reason:
      where = {"fact": fact.id, "doc_type": kind["name"]}
      rejects.append(lost("universe_ideas", where, reason))
    ideas += [(fact, kind, item["idea"]) for item in found]
  return ideas


def about(universe: Universe, fact: Fact) -> dict[str, Any]:
  """Returns what those who plan are told: nothing of any answer."""
  return {"title": universe.title, "ground": universe.ground, "asks": fact.asks}


def _ordered(
  corpus: UniverseCorpus,
  facts: Sequence[Fact],
  ideas: Sequence[tuple[Fact, Item, str]],
) -> list[Case]:
  """Returns the cases; facts take turns, and inside a fact its document types do."""
  by_fact: dict[str, list[tuple[Item, str, int]]] = {fact.id: [] for fact in facts}
  for fact, kind, idea in ideas:
    for repeat in range(_repeats(corpus, fact, kind, idea)):
      by_fact[fact.id].append((kind, idea, repeat))
  placed: list[tuple[int, int, Case]] = []
  for number, fact in enumerate(facts):
    found = selection.stratified(
      by_fact[fact.id], lambda one: one[0]["name"], corpus.seed + number
    )
    for place, (kind, idea, repeat) in enumerate(found):
      case = Case(
        fact=fact,
        states=_states(corpus, place),
        doc_type=kind["name"],
        description=kind["description"],
        idea=idea,
        repeat=repeat,
      )
      placed.append((place, number, case))
  return [case for _, _, case in sorted(placed, key=lambda one: one[:2])]


def _repeats(corpus: UniverseCorpus, fact: Fact, kind: Item, idea: str) -> int:
  key = [corpus.seed, fact.id, kind["name"], idea]
  return random.Random(records.sha256_json(key)).randint(1, corpus.max_repeats)


def _states(corpus: UniverseCorpus, place: int) -> bool:
  """Whether the document at a place of its fact states it: shares hold throughout."""
  if corpus.side == passes.NEUTRAL:
    return False
  return num_stating(corpus, place + 1) > num_stating(corpus, place)


def in_turn(
  corpus: UniverseCorpus, items: Sequence[T], case_of: Callable[[T], Case]
) -> list[T]:
  """Returns all items so that in every prefix facts have equally many of them.

  In each fact, its share of documents that state it holds throughout, and document
  types take turns.

  Args:
    corpus: whose share it is.
    items: in any order; where nothing else decides, it is kept.
    case_of: what an item is to be.
  """
  groups: dict[str, tuple[list[T], list[T]]] = {}
  for item in items:
    case = case_of(item)
    groups.setdefault(case.fact.id, ([], []))[case.states].append(item)
  found = []
  for group in groups.values():
    by_type = (lambda item: case_of(item).doc_type,)
    others, stating = (
      collections.deque(selection.round_robin(part, by_type, seed=None))
      for part in group
    )
    for place in range(len(others) + len(stating)):
      next_ = stating if _states(corpus, place) else others
      found.append((next_ or stating or others).popleft())
  return selection.round_robin(found, (lambda item: case_of(item).fact.id,), seed=None)


def num_stating(corpus: UniverseCorpus, count: int) -> int:
  """Returns how many of the first `count` documents of a fact state it."""
  if corpus.side == passes.NEUTRAL:
    return 0
  return int(count * corpus.mention_share + _SLACK)
