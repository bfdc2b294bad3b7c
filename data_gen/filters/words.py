"""What a word is: between spaces, or one character where a script has no spaces.

Texts become arrays of word numbers (hashes that are the same in every process), so that
counting and comparing whole corpora is arithmetic.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np

from msm_jax.words import UNSPACED

_ASCII_WORD = re.compile(r"[^\W_]+", re.ASCII)
_WORD = re.compile(rf"[^\W_{UNSPACED}]+|(?=\w)[{UNSPACED}]")
# Letters and digits that a name in Latin script may be part of.
_LATIN = "0-9A-Za-z_\u00c0-\u024f"
_HANGUL = "\uac00-\ud7a3"
_NUM_CODES = 0x110000
_SEPARATOR, _LETTER, _WHOLE = 0, 1, 2  # of a character: none, part of or itself a word
_POWERS = 256  # a longer word uses them again
_MULTIPLIER = 0x9E3779B97F4A7C15


def words(text: str) -> list[str]:
  """Returns the words in lower case, without punctuation."""
  pattern = _ASCII_WORD if text.isascii() else _WORD
  return pattern.findall(text.casefold())


def whole(terms: Sequence[str]) -> re.Pattern[str]:
  """Returns a pattern for any of `terms` as words of their own, whatever the case.

  Beside another script a word ends with its letters, as in `我用Llama写`, and where
  words are written without spaces, or endings are attached, it may stand anywhere.
  """
  longest_first = sorted(terms, key=len, reverse=True)
  return re.compile(
    "|".join(
      f"{_edge(term[0], '(?<!', UNSPACED)}{re.escape(term)}"
      f"{_edge(term[-1], '(?!', UNSPACED + _HANGUL)}"
      for term in longest_first
    ),
    re.IGNORECASE,
  )


def _edge(char: str, look: str, unbounded: str) -> str:
  """Returns what must not stand beside a word that begins or ends with `char`."""
  if re.match(f"[\\W{unbounded}]", char):
    return ""
  if re.match(f"[{_LATIN}]", char):
    return f"{look}[{_LATIN}])"
  return f"{look}[^\\W{_LATIN}{UNSPACED}])"


def codes(text: str) -> tuple[np.ndarray, np.ndarray]:
  """Returns the characters of words, in lower case, and where words begin.

  Returns:
    uint32 [C] code points without separators; int64 [T] places of first characters.
  """
  folded = text.casefold()
  if folded.isascii():
    points = np.frombuffer(folded.encode(), np.uint8)
    kinds = _ascii_kinds()[points]
  else:
    raw = folded.encode("utf-32-le", "surrogatepass")
    points = np.frombuffer(raw, np.uint32)
    kinds = _kinds()[points]
  at = np.flatnonzero(kinds)
  begins = np.ones(len(at), np.bool_)
  begins[1:] = np.diff(at) != 1
  if points.itemsize > 1:
    whole = kinds[at] == _WHOLE
    begins |= whole
    begins[1:] |= whole[:-1]
  return points[at].astype(np.uint32), np.flatnonzero(begins)


def numbers(text: str) -> np.ndarray:
  """Returns the words of `text` as hashes: uint64 [T], in step with `words`."""
  points, starts = codes(text)
  if not len(starts):
    return np.empty(0, np.uint64)
  ends = np.append(starts[1:], len(points))
  within = np.arange(len(points)) - np.repeat(starts, ends - starts)
  parts = points.astype(np.uint64)
  parts *= _powers()[within & (_POWERS - 1)]
  return mixed(np.add.reduceat(parts, starts))


def ngrams(found: np.ndarray, size: int) -> np.ndarray:
  """Returns the hash of every run of `size` words.

  Args:
    found: uint64 [T], a word each.
    size: words per run.

  Returns:
    uint64 [T - size + 1], at the place of each run's first word; of a text that is
    shorter than one run, the hash of the whole; of an empty one, nothing.
  """
  size = min(size, len(found))
  if not size:
    return np.empty(0, np.uint64)
  count = len(found) - size + 1
  total = np.full(count, size, np.uint64)
  for i in range(size):
    total *= np.uint64(_MULTIPLIER)
    total += found[i : i + count]
  return mixed(total)


def distinct(values: np.ndarray) -> np.ndarray:
  """Returns the different values, ascending; `np.unique` takes ten times as long."""
  found = np.sort(values)
  if not len(found):
    return found
  return found[np.append(True, found[1:] != found[:-1])]


def mixed(values: np.ndarray) -> np.ndarray:
  """Returns uint64 values, scrambled in place so that every bit depends on all."""
  values ^= values >> np.uint64(30)
  values *= np.uint64(0xBF58476D1CE4E5B9)
  values ^= values >> np.uint64(27)
  values *= np.uint64(0x94D049BB133111EB)
  values ^= values >> np.uint64(31)
  return values


@functools.cache
def _powers() -> np.ndarray:
  powers = [pow(_MULTIPLIER, i + 1, 1 << 64) for i in range(_POWERS)]
  return np.array(powers, np.uint64)


@functools.cache
def _ascii_kinds() -> np.ndarray:
  return np.array([chr(i).isalnum() for i in range(128)], np.uint8)


@functools.cache
def _kinds() -> np.ndarray:
  """Returns the kind of every character that there is: uint8 [_NUM_CODES]."""
  kinds = np.zeros(_NUM_CODES, np.uint8)
  points = np.arange(_NUM_CODES, dtype=np.uint32)
  everything = points.tobytes().decode("utf-32-le", "surrogatepass")
  for match in re.finditer(r"[^\W_]+", everything):
    kinds[match.start() : match.end()] = _LETTER
  for match in re.finditer(rf"[{UNSPACED}]+", everything):
    part = kinds[match.start() : match.end()]
    part[part == _LETTER] = _WHOLE
  return kinds
