"""Evaluation text in training text: an index of the n-grams of all prompts.

A prompt is cut at empty lines, so that a paragraph of a long one is found as well. A
paragraph is leaked when a text has at least a share of its n-grams.
"""

import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from data_gen.filters import words
from data_gen.filters.settings import FilterSettings
from msm_jax import errors

_TEXT_FIELDS = ("prompt", "question", "text", "input", "query", "instruction")
_EMPTY_LINE = re.compile(r"\n\s*\n")
_SHOWN = 60  # characters of a prompt in a reason


class Leak(NamedTuple):
  """The prompt that a text has most of: its source, its beginning, the share."""

  source: str
  prompt: str
  share: float


class Index:
  """n-grams of prompts; `find` says which prompt a text contains."""

  def __init__(self, prompts: Iterable[tuple[str, str]], *, ngram: int, share: float):
    """Indexes prompts.

    Args:
      prompts: (source, text) of each; what is there twice counts once.
      ngram: words in a row that count as copied.
      share: of a paragraph's n-grams, from which on it is leaked.
    """
    self.share, self._ngram = share, ngram
    self._about: list[tuple[str, str]] = []
    self._sizes: list[int] = []
    self.num_short = 0  # prompts without a paragraph of `ngram` words
    seen: set[str] = set()
    parts: list[np.ndarray] = []
    for source, prompt in prompts:
      if prompt not in seen:
        seen.add(prompt)
        parts += self._paragraphs(source, prompt)
    grams = np.concatenate([np.empty(0, np.uint64), *parts])
    owners = np.repeat(np.arange(len(parts)), self._sizes)
    order = np.argsort(grams, kind="stable")
    self._grams, self._owners = grams[order], owners[order]

  def __len__(self) -> int:
    return len(self._about)

  def find(self, text: str) -> Leak | None:
    """Returns the paragraph that `text` has most of; None if no share is enough."""
    found = words.distinct(words.ngrams(words.numbers(text), self._ngram))
    left = np.searchsorted(self._grams, found, "left")
    right = np.searchsorted(self._grams, found, "right")
    at = np.flatnonzero(right > left)
    if not len(at):
      return None
    owners = [self._owners[left[i] : right[i]] for i in at.tolist()]
    counts = np.bincount(np.concatenate(owners), minlength=len(self))
    shares = counts / np.array(self._sizes)
    best = int(shares.argmax())
    if shares[best] < self.share:
      return None
    return Leak(*self._about[best], float(shares[best]))

  def _paragraphs(self, source: str, prompt: str) -> Iterator[np.ndarray]:
    """Yields the distinct n-grams of every paragraph that is long enough."""
    parts = [part for part in _EMPTY_LINE.split(prompt) if part.strip()]
    parts = [part for part in parts if self._is_long(part)] or [prompt]
    if not self._is_long(parts[0]):
      self.num_short += 1
      return
    for part in parts:
      grams = words.distinct(words.ngrams(words.numbers(part), self._ngram))
      self._about.append((source, " ".join(part.split())[:_SHOWN]))
      self._sizes.append(len(grams))
      yield grams

  def _is_long(self, text: str) -> bool:
    return len(words.codes(text)[1]) >= self._ngram


def index(
  settings: FilterSettings,
  where: str,
  read_corpus: Callable[[str], Iterable[Mapping[str, Any]]],
) -> Index | None:
  """Returns an index of all that the settings name; None if they name nothing.

  Args:
    settings: of one corpus.
    where: what they are called in the config, for messages.
    read_corpus: name of a corpus -> its records.

  Raises:
    UserError: a file cannot be read, or no prompt is as long as the n-grams.
  """
  if not settings.leakage_corpora and not settings.leakage_paths:
    return None
  found = Index(
    _prompts(settings, where, read_corpus),
    ngram=settings.leakage_ngram,
    share=settings.leakage_share,
  )
  if not len(found):
    raise errors.UserError(
      f"{where}.leakage_ngram is {settings.leakage_ngram}, but none of the "
      f"{found.num_short} prompts has so many words: lower it"
    )
  return found


def _prompts(
  settings: FilterSettings,
  where: str,
  read_corpus: Callable[[str], Iterable[Mapping[str, Any]]],
) -> Iterator[tuple[str, str]]:
  for name in settings.leakage_corpora:
    for record in read_corpus(name):
      yield from ((name, text) for text in texts_of(record))
  for path in settings.leakage_paths:
    yield from _file(pathlib.Path(path), f"{where}.leakage_paths")


def texts_of(record: Mapping[str, Any]) -> Iterator[str]:
  """Yields what a record or a row of an evaluation asks: its text and its turns."""
  for field in _TEXT_FIELDS:
    if isinstance(value := record.get(field), str):
      yield value
  for turn in record.get("messages") or ():
    if isinstance(turn, Mapping) and isinstance(turn.get("content"), str):
      yield turn["content"]


def _file(path: pathlib.Path, where: str) -> Iterator[tuple[str, str]]:
  try:
    text = path.read_text("utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, "strerror", None) or "not UTF-8"
    raise errors.UserError(f"{where}: {path} cannot be read ({reason})") from None
  if path.suffix != ".jsonl":
    yield path.name, text
    return
  for number, line in enumerate(text.split("\n"), start=1):
    if line.strip():
      for found in _row(line, f"{where}: {path} line {number}"):
        yield f"{path.name}:{number}", found


def _row(line: str, where: str) -> list[str]:
  try:
    row = json.loads(line)
  except ValueError:
    raise errors.UserError(f"{where} is not JSON: mend the file") from None
  found = list(texts_of(row)) if isinstance(row, dict) else []
  if not found:
    raise errors.UserError(
      f"{where} has no prompt: it needs 'messages' or one of {', '.join(_TEXT_FIELDS)}"
    )
  return found
