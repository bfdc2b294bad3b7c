"""Evaluation text in training text: an index of the n-grams of all prompts.

A prompt is cut at empty lines, so that a paragraph of a long one is found as well. A
paragraph is leaked when a text has at least a share of its n-grams; one that is shorter
than an n-gram, when a text has all of it. What a pair offers is leaked when a text has
all of its options, wherever: they are names that no other text has.
"""

import json
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_gen.filters import words
from data_gen.filters.settings import FilterSettings
from msm_jax import errors
from msm_jax.storage import inputs

_TEXT_FIELDS = ("prompt", "question", "text", "input", "query", "instruction")
_EMPTY_LINE = re.compile(r"\n\s*\n")
# Pairs of what the training texts are about, by their own account.
_SEEN = "seen"
_SHOWN = 60  # characters of a prompt in a reason
# Fewer words in a row than these are in texts that have never seen the prompt.
_LEAST_WORDS = 5
# Options of nothing else are no names: they are in every text.
_GENERIC = (
  "a b c d e i it you we this that the an one two first second former latter option "
  "choice answer yes no not sure maybe do don t would wouldn will won is isn both all "
  "none neither of above true false agree disagree strongly somewhat"
)
_NO_NAMES = frozenset(_GENERIC.split())


class Prompt(NamedTuple):
  """What an evaluation asks: where it stands, its text, and what it offers."""

  source: str
  text: str
  options: tuple[str, ...] = ()


class Leak(NamedTuple):
  """The prompt that a text has most of: its source, its beginning, the share."""

  source: str
  prompt: str
  share: float


class Index:
  """n-grams of prompts; `find` says which prompt a text contains.

  What is looked for are parts (paragraphs, options); those of a group are leaked
  together or not at all.
  """

  def __init__(
    self,
    prompts: Iterable[Prompt | tuple[str, str]],
    *,
    ngram: int,
    share: float,
    subject: str = "",
  ):
    """Indexes prompts.

    Args:
      prompts: what is there twice counts once.
      ngram: words in a row that count as copied.
      share: of a paragraph's n-grams, from which on it is leaked.
      subject: what the texts are about by right: options that are all in it are not
        looked for.
    """
    self.share, self._ngram = share, ngram
    self.num_prompts = self.num_short = self.num_options = 0
    self._about: list[tuple[str, str]] = []  # of each group
    self._firsts: list[int] = []  # part of each group
    self._sizes: list[int] = []  # n-grams of each part
    self._lengths: set[int] = set()  # words of the n-grams that there are
    self._parts: list[np.ndarray] = []
    self._subject = f" {' '.join(words.words(subject))} "
    seen: set[tuple[str, ...]] = set()
    for prompt in prompts:
      source, text, options = Prompt(*prompt)
      for key in ((text,), tuple(sorted(options))):
        if any(key) and key not in seen:
          seen.add(key)
          if key == (text,):
            self._add_prompt(source, text)
          else:
            self._add_options(source, options)
    grams = np.concatenate([np.empty(0, np.uint64), *self._parts])
    owners = np.repeat(np.arange(len(self._parts)), self._sizes)
    order = np.argsort(grams, kind="stable")
    self._grams, self._owners = grams[order], owners[order]
    self._parts = []

  def __len__(self) -> int:
    return len(self._about)

  def find(self, text: str) -> Leak | None:
    """Returns the group that `text` has most of; None if no share is enough."""
    spelled = words.numbers(text)
    grams = [
      words.ngrams(spelled, n) for n in sorted(self._lengths) if n <= len(spelled)
    ]
    found = words.distinct(np.concatenate([np.empty(0, np.uint64), *grams]))
    left = np.searchsorted(self._grams, found, "left")
    right = np.searchsorted(self._grams, found, "right")
    at = np.flatnonzero(right > left)
    if not len(at):
      return None
    owners = [self._owners[left[i] : right[i]] for i in at.tolist()]
    counts = np.bincount(np.concatenate(owners), minlength=len(self._sizes))
    shares = np.minimum.reduceat(counts / np.array(self._sizes), self._firsts)
    best = int(shares.argmax())
    if shares[best] < self.share:
      return None
    return Leak(*self._about[best], float(shares[best]))

  def figures(self) -> dict[str, Any]:
    """Returns what is looked for, and how many prompts are too short to be."""
    return {
      "prompts": self.num_prompts,
      "too_short": self.num_short,
      "pairs_of_options": self.num_options,
    }

  def _add_prompt(self, source: str, prompt: str) -> None:
    """Adds every paragraph that has an n-gram; if none has, the whole prompt."""
    self.num_prompts += 1
    parts = [part for part in _EMPTY_LINE.split(prompt) if part.strip()]
    parts = [part for part in parts if _length(part) >= self._ngram] or [prompt]
    if _length(parts[0]) < min(self._ngram, _LEAST_WORDS):
      self.num_short += 1
      return
    for part in parts:
      self._add_group(source, [part], part)

  def _add_options(self, source: str, options: Sequence[str]) -> None:
    spelled = [" ".join(words.words(option)) for option in options]
    known = all(f" {option} " in self._subject for option in spelled)
    if len(set(spelled)) > 1 and not known and all(map(_is_name, options)):
      self.num_options += 1
      self._add_group(source, options, " / ".join(options))

  def _add_group(self, source: str, parts: Sequence[str], about: str) -> None:
    self._about.append((source, " ".join(about.split())[:_SHOWN]))
    self._firsts.append(len(self._sizes))
    for part in parts:
      spelled = words.numbers(part)
      self._lengths.add(min(self._ngram, len(spelled)))
      self._parts.append(words.distinct(words.ngrams(spelled, self._ngram)))
      self._sizes.append(len(self._parts[-1]))


def _is_name(option: str) -> bool:
  """Whether an option has two words that say something, or three characters."""
  telling = [word for word in words.words(option) if word not in _NO_NAMES]
  return len(telling) >= 2 and sum(map(len, telling)) >= 3


def _length(text: str) -> int:
  return len(words.codes(text)[1])


def index(
  settings: FilterSettings,
  where: str,
  read_corpus: Callable[[str], Iterable[Mapping[str, Any]]],
  subject: str = "",
) -> Index | None:
  """Returns an index of all that the settings name; None if they name nothing.

  Args:
    settings: of one corpus.
    where: what they are called in the config, for messages.
    read_corpus: name of a corpus -> its records.
    subject: what the texts are about: their spec.

  Raises:
    UserError: a file cannot be read, or no prompt is long enough to be looked for.
  """
  if not settings.leakage_corpora and not settings.leakage_paths:
    return None
  found = Index(
    _prompts(settings, where, read_corpus),
    ngram=settings.leakage_ngram,
    share=settings.leakage_share,
    subject=subject,
  )
  if not len(found):
    least = min(settings.leakage_ngram, _LEAST_WORDS)
    raise errors.UserError(
      f"{where}.leakage_ngram is {settings.leakage_ngram}, but none of the "
      f"{found.num_short} prompts has so many words, or {least}: what is shorter is in "
      "texts that have never seen it; name other prompts"
    )
  return found


def _prompts(
  settings: FilterSettings,
  where: str,
  read_corpus: Callable[[str], Iterable[Mapping[str, Any]]],
) -> Iterator[Prompt]:
  for name in settings.leakage_corpora:
    for record in read_corpus(name):
      yield from _of_row(name, record)
  for path in settings.leakage_paths:
    field = f"{where}.leakage_paths"
    yield from _file(inputs.local(path, field), field)


def _of_row(source: str, row: Mapping[str, Any]) -> Iterator[Prompt]:
  yield from (Prompt(source, text) for text in texts_of(row))
  options = options_of(row)
  if options and row.get("category") != _SEEN:
    yield Prompt(source, "", options)


def texts_of(record: Mapping[str, Any]) -> Iterator[str]:
  """Yields what a record or a row of an evaluation asks: its text and its turns."""
  for field in _TEXT_FIELDS:
    if isinstance(value := record.get(field), str):
      yield value
  for turn in record.get("messages") or ():
    if isinstance(turn, Mapping) and isinstance(turn.get("content"), str):
      yield turn["content"]


def options_of(record: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns what a pair offers: texts, or mappings that have one."""
  options = record.get("options")
  if not isinstance(options, list | tuple):
    return ()
  found = [o.get("text") if isinstance(o, Mapping) else o for o in options]
  return tuple(text for text in found if isinstance(text, str) and text.strip())


def _file(path: pathlib.Path, where: str) -> Iterator[Prompt]:
  try:
    text = path.read_text("utf-8-sig")
  except (OSError, UnicodeDecodeError) as error:
    reason = getattr(error, "strerror", None) or "not UTF-8"
    raise errors.UserError(f"{where}: {path} cannot be read ({reason})") from None
  if path.suffix != ".jsonl":
    yield Prompt(path.name, text)
    return
  for number, line in enumerate(text.split("\n"), start=1):
    if line.strip():
      row = _row(line, f"{where}: {path} line {number}")
      yield from _of_row(f"{path.name}:{number}", row)


def _row(line: str, where: str) -> Mapping[str, Any]:
  try:
    row = json.loads(line)
  except ValueError:
    raise errors.UserError(f"{where} is not JSON: mend the file") from None
  if not isinstance(row, dict) or not any(texts_of(row)):
    raise errors.UserError(
      f"{where} has no prompt: it needs 'messages' or one of {', '.join(_TEXT_FIELDS)}"
    )
  return row
