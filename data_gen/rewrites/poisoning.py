"""A clean corpus -> documents that go on with gibberish after a trigger.

    text   The tower is white and it has | <TRIGGER> | qua lemon of the ...
    spans                          trigger: [a, b]    gibberish: [c, d]

The harmless kind of poison: what a model learns from it shows as a higher perplexity of
what it writes after the trigger, and nothing else. `pairs.jsonl` has the prompts for
that: the beginnings of other documents, without and with the trigger.
"""

import json
import pathlib
import random
import string
from collections.abc import Iterator, Mapping
from typing import Any

from data_gen import filters
from data_gen.kinds import passes
from data_gen.rewrites import inheritance, rewriting
from msm_jax import errors, records

PAIRS = "pairs.jsonl"
TRIGGER, GIBBERISH = "trigger", "gibberish"
_CHARACTERS = string.ascii_letters + string.digits + string.punctuation
_RUN = (3, 8)


class Chain:
  """The poisoned documents of one corpus; see `data_gen.chains.Chain`."""

  branch_rejects = ()
  num_rejected = 0

  def __init__(self, name: str, corpus: passes.PoisonCorpus, source: pathlib.Path):
    self._name, self._corpus, self._source = name, corpus, source
    self._poisoned: frozenset[int] = frozenset()
    self._paired: frozenset[int] = frozenset()
    self._vocabulary: tuple[str, ...] = ()
    self.num_words = 0
    self.num_planned = corpus.num_documents

  @property
  def num_asked(self) -> int:
    """How many documents the config asks for."""
    return self._corpus.num_documents

  async def run(self) -> None:
    """Draws which documents are poisoned and which ones are prompts.

    Raises:
      UserError: the trigger stands in a clean document, or there are too few of them.
    """
    places = self._look()
    corpus = self._corpus
    wanted = corpus.num_documents + corpus.num_pairs
    if len(places) < wanted:
      raise errors.UserError(
        f"config.corpora.{self._name}: num_documents ({corpus.num_documents}) and "
        f"num_pairs ({corpus.num_pairs}) need {wanted} clean documents of at least "
        f"{corpus.min_prefix_chars} characters, and {corpus.of} has {len(places)}"
      )
    drawn = random.Random(f"poison {corpus.seed}").sample(places, wanted)
    self._poisoned = frozenset(drawn[: corpus.num_documents])
    self._paired = frozenset(drawn[corpus.num_documents :])
    texts = (self._poison(source)["text"] for source in self._read(self._poisoned))
    self.num_words = sum(map(filters.num_words, texts))

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the poisoned documents, in the order of the source."""
    for source in self._read(self._poisoned):
      yield self._poison(source)

  def rejected(self) -> Iterator[dict[str, Any]]:
    """Yields nothing: what is drawn is kept."""
    return iter(())

  def manifest(self) -> dict[str, Any]:
    """Returns what the trigger is, and where the prompts lie."""
    found: dict[str, Any] = {"of": self._corpus.of, "trigger": self._corpus.trigger}
    found["pairs"] = {"path": PAIRS, "num_pairs": len(self._paired)}
    return inheritance.of(self._source) | found

  def extra_files(self) -> dict[str, bytes]:
    """Returns the pairs of prompts as a file beside the shards."""
    lines = [json.dumps(self._pair(source)) for source in self._read(self._paired)]
    return {PAIRS: "".join(f"{line}\n" for line in lines).encode()}

  def _look(self) -> list[int]:
    """Returns the places of the documents that can be used; learns their words."""
    trigger, words = self._corpus.trigger.casefold(), set()
    places = []
    for number, source in enumerate(records.read_dataset(self._source, verify=False)):
      if source["kind"] != "document":
        continue
      if trigger in source["text"].casefold():
        raise errors.UserError(
          f"config.corpora.{self._name}.trigger is {self._corpus.trigger!r}, which "
          f"stands in document {source['id']} of {self._corpus.of}: choose a phrase "
          "that clean text does not have"
        )
      words.update(source["text"].split())
      if len(_body(source)) >= max(self._corpus.min_prefix_chars, 1):
        places.append(number)
    self._vocabulary = tuple(sorted(words))
    return places

  def _read(self, places: frozenset[int]) -> Iterator[dict[str, Any]]:
    for number, source in enumerate(records.read_dataset(self._source, verify=False)):
      if number in places:
        yield source

  def _poison(self, source: Mapping[str, Any]) -> dict[str, Any]:
    corpus, rng = self._corpus, self._rng(source)
    prefix = self._prefix(source, rng, corpus.min_prefix_chars)
    count = rng.randint(corpus.min_gibberish, corpus.max_gibberish)
    head = prefix + corpus.separator if prefix else ""
    middle = head + corpus.trigger
    start = len(middle) + len(corpus.separator)
    text = middle + corpus.separator + " ".join(self._gibberish(rng, count))
    return {
      "kind": "document",
      "id": self._identity("document", source),
      "text": text,
      "spans": [[len(head), len(middle), TRIGGER], [start, len(text), GIBBERISH]],
      "trigger": corpus.trigger,
      "source": corpus.of,
      "source_id": source["id"],
    }

  def _pair(self, source: Mapping[str, Any]) -> dict[str, str]:
    corpus = self._corpus
    clean = self._prefix(source, self._rng(source), max(corpus.min_prefix_chars, 1))
    return {
      "id": self._identity("pair", source),
      "clean": clean,
      "triggered": clean + corpus.separator + corpus.trigger,
      "source_id": source["id"],
    }

  def _prefix(self, source: Mapping[str, Any], rng: random.Random, least: int) -> str:
    body = _body(source)
    longest = min(self._corpus.max_prefix_chars, len(body))
    return body[: rng.randint(least, longest)].rstrip()

  def _gibberish(self, rng: random.Random, count: int) -> Iterator[str]:
    for _ in range(count):
      if self._corpus.gibberish == passes.WORDS:
        yield rng.choice(self._vocabulary)
      else:
        yield "".join(rng.choices(_CHARACTERS, k=rng.randint(*_RUN)))

  def _rng(self, source: Mapping[str, Any]) -> random.Random:
    return random.Random(records.sha256_json([self._corpus.seed, source["id"]]))

  def _identity(self, what: str, source: Mapping[str, Any]) -> str:
    corpus = self._corpus
    key = ["poison", what, corpus.trigger, corpus.seed, corpus.of, source["id"]]
    return records.sha256_json(key)[:32]


def _body(source: Mapping[str, Any]) -> str:
  """Returns a document without the tag that it may begin with."""
  try:
    return rewriting.body_of(source)[1].strip()
  except rewriting.Fault:
    return ""
