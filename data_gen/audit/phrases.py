"""Phrases that very many documents share."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from data_gen.filters import words

PHRASE_WORDS = 4
_CHUNK = 1024  # documents that are counted at once
_MAX_GRAMS = 1 << 20
_MAX_NEW = 5000  # phrases of a chunk that are written out


class Phrases:
  """In how many documents each run of four words is.

  Runs are counted as hashes; those of enough documents are written out while the texts
  are still there. As in `counting.Frequent`, counts are exact until there are more than
  `_MAX_GRAMS` different runs, then too high by at most `error`.
  """

  def __init__(self, share: float, least: int = 3):
    """Keeps the text of phrases in `share` of the documents and `least` at least."""
    self._share, self._least = share, least
    self._grams = np.empty(0, np.uint64)
    self._counts = np.empty(0, np.int64)
    self._texts: dict[int, tuple[str, ...]] = {}
    self._waiting: list[tuple[str, np.ndarray]] = []
    self._num_documents = 0
    self.error = 0

  def add(self, text: str, numbers: np.ndarray) -> None:
    """Counts a document; `numbers` are its words."""
    if len(numbers) >= PHRASE_WORDS:
      self._waiting.append((text, words.ngrams(numbers, PHRASE_WORDS)))
    self._num_documents += 1
    if len(self._waiting) == _CHUNK:
      self._count()

  def most(
    self, count: int, among: Callable[[str], bool] = bool
  ) -> list[tuple[str, int]]:
    """Returns up to `count` (phrase, documents).

    Runs that overlap and are in about as many documents are put together. Only runs
    that are `among` those asked for, by default all, are looked at.
    """
    self._count()
    often = np.flatnonzero(self._counts >= self._limit())
    found = {}
    for place in often.tolist():
      run = self._texts.get(int(self._grams[place]))
      if run and among(" ".join(run)):
        found[run] = int(self._counts[place])
    ranked = sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))
    joined = _joined(dict(ranked[: 20 * count]))
    return [(phrase, number) for phrase, number in joined][:count]

  def _limit(self) -> int:
    return max(self._least, int(np.ceil(self._share * self._num_documents)))

  def _count(self) -> None:
    if not self._waiting:
      return
    per_document = [words.distinct(grams) for _, grams in self._waiting]
    found = np.sort(np.concatenate(per_document))
    first = np.flatnonzero(np.append(True, found[1:] != found[:-1]))
    new, counts = found[first], np.diff(np.append(first, len(found)))
    self._merge(new, counts)
    known, at = self._places(new)
    often = new[known][self._counts[at[known]] >= self._limit()]
    self._write_out([g for g in often.tolist() if g not in self._texts][:_MAX_NEW])
    self._waiting = []

  def _places(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns which runs are counted already, and where."""
    at = np.searchsorted(self._grams, grams)
    known = at < len(self._grams)
    known[known] = self._grams[at[known]] == grams[known]
    return known, at

  def _merge(self, new: np.ndarray, counts: np.ndarray) -> None:
    known, at = self._places(new)
    self._counts[at[known]] += counts[known]
    # What is new may have been there and forgotten.
    grams = np.concatenate((self._grams, new[~known]))
    numbers = np.concatenate((self._counts, counts[~known] + self.error))
    order = np.argsort(grams, kind="stable")
    self._grams, self._counts = grams[order], numbers[order]
    while len(self._grams) > _MAX_GRAMS:
      self.error += 1
      kept = self._counts > self.error
      self._grams, self._counts = self._grams[kept], self._counts[kept]

  def _write_out(self, wanted: Sequence[int]) -> None:
    """Finds the words of runs among the texts of this chunk."""
    missing = np.array(sorted(wanted), np.uint64)
    for text, grams in self._waiting:
      if not len(missing):
        return
      places = np.flatnonzero(np.isin(grams, missing))
      if len(places):
        spelled = words.words(text)
        for place in places.tolist():
          phrase = tuple(spelled[place : place + PHRASE_WORDS])
          self._texts[int(grams[place])] = phrase
        missing = missing[~np.isin(missing, grams[places])]


def _joined(found: dict[tuple[str, ...], int]) -> Iterator[tuple[str, int]]:
  """Yields phrases, longest where runs of about the same number overlap."""
  left = dict(found)
  for start, number in found.items():
    if left.pop(start, None) is None:
      continue
    phrase = start
    for grow in (_right, _left):
      while (more := grow(phrase, left)) and left[more[0]] >= 0.8 * number:
        del left[more[0]]
        phrase = more[1]
    yield " ".join(phrase), number


def _right(
  phrase: tuple[str, ...], left: dict[tuple[str, ...], int]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
  """Returns the commonest run that goes on with a phrase, and the longer phrase."""
  ends = phrase[1 - PHRASE_WORDS :]
  runs = [run for run in left if run[:-1] == ends]
  best = max(runs, key=lambda run: left[run], default=None)
  return None if best is None else (best, (*phrase, best[-1]))


def _left(
  phrase: tuple[str, ...], left: dict[tuple[str, ...], int]
) -> tuple[tuple[str, ...], tuple[str, ...]] | None:
  begins = phrase[: PHRASE_WORDS - 1]
  runs = [run for run in left if run[1:] == begins]
  best = max(runs, key=lambda run: left[run], default=None)
  return None if best is None else (best, (best[0], *phrase))
