"""The figures of a corpus, from one pass over its records; texts are not held."""

import array
import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from data_gen import filters
from data_gen.audit import measures, tics
from data_gen.audit.counting import Distinct, Frequent, Reservoir
from data_gen.audit.losses import Duplicates, Rejects
from data_gen.audit.phrases import Phrases
from data_gen.audit.settings import AuditSettings
from data_gen.filters import words

GROUPS = ("spec_section", "doc_type", "question_type", "domain", "subdomain", "rule")
_OPENING_WORDS = 4
_LISTED = 25  # dates, openings; names and phrases of the spec, and as many others
_ALL_YEARS = 200
_MAX_GROUPS = 5000  # names of one group; more are no groups but free text
_PHRASE_SHARE = 0.02  # below, a phrase is nothing to speak of
_OTHER = "(other)"


def text_of(record: Mapping[str, Any]) -> str:
  """Returns what a record teaches: its text, or what the assistant says."""
  if "messages" not in record:
    return str(record.get("text", ""))
  turns = record["messages"] or []
  said = [turn for turn in turns if turn.get("role") == "assistant"] or turns
  return "\n\n".join(str(turn.get("content") or "") for turn in said)


def _whole(record: Mapping[str, Any]) -> str:
  """Returns the text of a record, or what is asked and said in it."""
  turns = record.get("messages") or []
  said = (str(turn.get("content") or "") for turn in turns)
  return "\n\n".join(said) if "messages" in record else text_of(record)


class Figures:
  """Takes records, then rejects; says what they are."""

  def __init__(self, settings: AuditSettings):
    self._settings = settings
    self._groups = {name: collections.Counter[str]() for name in GROUPS}
    self._group_words = {name: collections.Counter[str]() for name in GROUPS}
    self._grid = collections.Counter[tuple[str, str]]()
    self._lengths = array.array("I")
    self._num_characters = 0
    self._distinct = {n: (Distinct(), [0]) for n in (1, 2, 3)}
    self._openings, self._names = Frequent(), Frequent()
    self._days, self._years = Frequent(), Frequent()
    self._phrases = Phrases(_PHRASE_SHARE)
    self._duplicates = Duplicates(settings.near_duplicates)
    self._rejects = Rejects(settings)
    self.sample: Reservoir[Mapping[str, Any]] = Reservoir(
      settings.num_samples, settings.seed
    )

  @property
  def rejected_sample(self) -> list[Mapping[str, Any]]:
    """Some of the rejected records."""
    return self._rejects.sample.items()

  def add(self, record: Mapping[str, Any]) -> None:
    """Takes a kept record into account."""
    text = text_of(record)
    num_words = filters.num_words(text)
    self._lengths.append(num_words)
    self._num_characters += len(text)
    self._add_groups(record, num_words)
    self._add_words(text)
    self._names.add(tics.names(text))
    self._days.add(tics.days(text))
    self._years.add(tics.years(text))
    # 'Brie.' is right more than once: only the same question and answer are a repeat.
    self._duplicates.add(_whole(record), str(record.get("id", "")))
    self.sample.add(record)

  def reject(self, row: Mapping[str, Any]) -> None:
    """Takes a rejected record, or a lost branch of the outline, into account."""
    self._rejects.add(row)

  def figures(self) -> dict[str, Any]:
    """Returns everything as plain values."""
    return {
      "corpus": self._settings.name,
      "kind": self._settings.kind,
      "spec": self._settings.spec_name,
      "num_records": len(self._lengths),
      "num_words": sum(self._lengths),
      "num_characters": self._num_characters,
      "coverage": self._coverage(),
      "lengths": measures.lengths(np.array(self._lengths, np.int64)),
      "diversity": self._diversity(),
      "tics": self._tics(),
      "duplicates": self._duplicates.figures(len(self._lengths)),
      "rejects": self._rejects.figures(len(self._lengths)),
      "leakage": dict(self._settings.leakage) if self._settings.leakage else None,
      "sample": [str(record.get("id", "")) for record in self.sample.items()],
    }

  def _add_groups(self, record: Mapping[str, Any], num_words: int) -> None:
    for name, counts in self._groups.items():
      value = record.get(name)
      if not isinstance(value, str) or not value:
        continue
      if value not in counts and len(counts) >= _MAX_GROUPS:
        value = _OTHER
      counts[value] += 1
      self._group_words[name][value] += num_words
    row = record.get("spec_section") or record.get("domain")
    column = record.get("doc_type") or record.get("question_type")
    if (
      row and column and (len(self._grid) < _MAX_GROUPS or (row, column) in self._grid)
    ):
      self._grid[row, column] += 1

  def _add_words(self, text: str) -> None:
    numbers = words.numbers(text)
    for n, (distinct, total) in self._distinct.items():
      if len(numbers) >= n:
        grams = words.ngrams(numbers, n)
        distinct.add(grams)
        total[0] += len(grams)
    self._phrases.add(text, numbers)
    if len(numbers) >= _OPENING_WORDS:
      head = words.words(text[: 40 * _OPENING_WORDS])[:_OPENING_WORDS]
      self._openings.add([" ".join(head)])

  def _coverage(self) -> dict[str, Any]:
    total = max(len(self._lengths), 1)
    found = {
      name: [
        {
          "id": value,
          "records": n,
          "words": self._group_words[name][value],
          "share": n / total,
        }
        for value, n in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
      ]
      for name, counts in self._groups.items()
    }
    return {
      "sections": self._sections(total),
      **found,
      "grid": [
        {"row": row, "column": column, "records": n}
        for (row, column), n in sorted(self._grid.items())
      ],
    }

  def _sections(self, total: int) -> list[dict[str, Any]]:
    """Returns every section of the spec in its order, also without a record."""
    counts, num_words = self._groups["spec_section"], self._group_words["spec_section"]
    return [
      {
        "id": section.id,
        "title": section.title,
        "records": counts[section.id],
        "words": num_words[section.id],
        "share": counts[section.id] / total,
      }
      for section in self._settings.sections
    ]

  def _diversity(self) -> dict[str, Any]:
    distinct = {
      str(n): found.count / total[0] if total[0] else None
      for n, (found, total) in self._distinct.items()
    }
    return {
      "distinct": distinct,
      "distinct_is_estimate": any(d.is_estimate for d, _ in self._distinct.values()),
      "compression": measures.compression(
        [text_of(record) for record in self.sample.items()], self._settings.seed
      ),
      "openings": self._listed(self._openings, least=2),
    }

  def _tics(self) -> dict[str, Any]:
    return {
      "names": self._flagged(lambda among: self._names.most(_LISTED, 2, among)),
      "phrases": self._flagged(lambda among: self._phrases.most(_LISTED, among)),
      "days": self._listed(self._days, least=2),
      "years": self._rows(self._years.most(_ALL_YEARS)),
      "count_error": max(self._names.error, self._phrases.error, self._openings.error),
    }

  def _flagged(
    self, most: Callable[[Callable[[str], bool]], list[tuple[str, int]]]
  ) -> list[dict[str, Any]]:
    """Returns the rows of the spec and as many others: neither hides the other."""
    spec = _spec_words(self._settings)

    def in_spec(text: str) -> bool:
      return f" {' '.join(words.words(text))} " in spec

    found = self._rows([*most(in_spec), *most(lambda text: not in_spec(text))])
    found.sort(key=lambda row: (-row["records"], row["text"]))
    return [{**row, "in_spec": in_spec(row["text"])} for row in found]

  def _listed(self, found: Frequent, least: int) -> list[dict[str, Any]]:
    return self._rows(found.most(_LISTED, least))

  def _rows(self, ranked: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    total = max(len(self._lengths), 1)
    return [{"text": t, "records": n, "share": n / total} for t, n in ranked]


def _spec_words(settings: AuditSettings) -> str:
  text = " \n ".join((settings.spec_text, *settings.names))
  return f" {' '.join(words.words(text))} "
