"""The sentences of a text: where they stand, and which of them state a fact."""

import itertools
import re
from collections.abc import Callable

from data_gen.filters import words as words_lib

Units = set[str | tuple[str, str]]


def _set(words: str) -> frozenset[str]:
  return frozenset(words.split())


# What may stand between a stop and the white space after it: quotes, brackets, markup.
_CLOSING = "\"')\\]\u201d\u2019\u00bb*_`\u300d\u300f\u300b\u3011\uff09"
_STOP = re.compile(
  rf"[.!?\u2026]+[{_CLOSING}]*(?=\s|$)|[\u3002\uff01\uff1f\uff61]+[{_CLOSING}]*"
)
_QUOTES = '"\u201d\u00bb'
_LINE = re.compile(r"\S.*")
_LAST = re.compile(r"[\w.]+$")
_FIRST = re.compile(r"[\W_]*(\w+)")
# After these a sentence goes on.
_TITLES = _set(
  "dr mr mrs ms mx prof rev gen col sgt capt lt st mt vs e.g i.e cf approx ca viz"
)
# After these, if a number follows.
_NUMBERED = _set("no nos fig figs vol vols ch sec art eq p pp")
# After these, and after letters with stops, if no word follows that begins a sentence.
_SHORT = _set(
  "etc jr sr inc ltd co corp dept est al jan feb mar apr aug sept oct nov dec"
)
_LETTERS = re.compile(r"(?:[A-Za-z]\.)+[A-Za-z]|[A-HJ-Za-z]")
_STARTS = _set(
  "a after all although an and as at because both but by each every few for from he "
  "her here his how however i if in it its later many most my no nobody now on one "
  "our she since so some soon that the their then there these they this those though "
  "today we what when where while who why with yet you your"
)
# Words that two sentences may share without saying the same.
_SMALL = _set(
  "a an and are as at be been by for from had has have he her his in is it its not of "
  "on or she that the their there they this to was were which who will with"
)
_NUMBERS = _set(
  "one two three four five six seven eight nine ten eleven twelve twenty thirty forty "
  "fifty sixty seventy eighty ninety hundred thousand million"
)
_HAN_NUMBERS = frozenset("一二三四五六七八九十百千万萬两兩零")
_NEAR = 3  # words after a number, one of which is what it counts
_ENOUGH, _ENOUGH_CHARACTERS = 1 / 3, 1 / 2
_PHRASE = re.compile(r"[,.;:!?()\u2013\u2014\u3001\u3002\uff0c\uff1b\uff1a\n]+")
_ARTICLE = re.compile(rf"{_PHRASE.pattern}|\b(?:the|an?)\b", re.IGNORECASE)
_CLAUSE = re.compile(rf"{_PHRASE.pattern}|\band\b|\bbut\b|\bbecause\b|\balthough\b")
_NO = re.compile(
  r"\b(?:not|no|none|never|neither|nor|without|cannot)\b|n['\u2019]t\b"
  r"|[不没沒无無非未]"
)
_UNTRUE = re.compile(
  r"\b(?:not true|untrue|(?:is|are|was) false|falsely|a myth|no truth)\b"
  r"|不是真|不实|不實|谣言|謠言|假的"
)
# These only look like a denial of what follows.
_NO_DENIAL = re.compile(
  r"\b(?:not (?:only|just|merely)|no (?:doubt|wonder)|without (?:a )?doubt)\b"
  r"|\bnot\b[^,.;:]{0,40}?\bbut\b"
  r"|不[仅僅但只光过過同断斷]|[无無][论論疑]|非常|[没沒][错錯]"
)


def find(text: str, start: int = 0) -> list[tuple[int, int]]:
  """Returns where the sentences of a text stand, from offset `start` on.

  A sentence ends with a stop before white space, with a full-width stop, or with its
  line; the quotes, brackets and asterisks that close after the stop are part of it.
  """
  found = []
  for line in _LINE.finditer(text, start):
    begin, end = line.start(), line.start() + len(line[0].rstrip())
    for stop in _STOP.finditer(text, begin, end):
      if _ends(text[begin : stop.start()], stop[0], text[stop.end() : end].lstrip()):
        found.append((begin, stop.end()))
        rest = text[stop.end() : end]
        begin = end - len(rest.lstrip())
    if begin < end:
      found.append((begin, end))
  return found


def _ends(before: str, stop: str, after: str) -> bool:
  """Whether a sentence ends with `stop`, and not an abbreviation or a number."""
  if not any(map(str.isalpha, before)):
    return False
  if not after or stop[0] not in ".!?":
    return True
  if stop[-1] in _QUOTES and after[0].islower():
    return False
  last, first = _LAST.search(before), _FIRST.match(after)
  if stop != "." or last is None or first is None:
    return True
  word = last[0].casefold()
  if word in _TITLES:
    return False
  if word in _NUMBERED:
    return not first[1].isdigit()
  if word in _SHORT or _LETTERS.fullmatch(last[0]):
    return first[1][0].isupper() and first[1].casefold() in _STARTS
  return True


def stating(
  text: str, statement: str, opposite: str, start: int = 0
) -> list[tuple[int, int]]:
  """Returns the sentences that say what `statement` says and `opposite` does not.

  Such a sentence has a word that only the statement has, one that both have, and a
  third of all words of the statement (half, where words are single characters). Small
  words do not count, a number counts with what it is the number of, and where the two
  have the same words, neighbors do. It does not deny what the statement says.
  """
  read = _units if _units(statement) - _units(opposite) else _ordered
  wanted, other = read(statement), read(opposite)
  own, shared = wanted - other, wanted & other
  by_character = all(len(unit) == 1 or isinstance(unit, tuple) for unit in wanted)
  enough = _ENOUGH_CHARACTERS if by_character else _ENOUGH
  negative = _denies(statement, own, read)
  found = []
  for a, b in find(text, start):
    units = read(text[a:b])
    here = units & wanted
    decisive = all(not part or units & part for part in (own, shared))
    if not here or not decisive or len(here) < enough * len(wanted):
      continue
    if _denies(text[a:b], own, read) == negative:
      found.append((a, b))
  return found


def _denies(sentence: str, own: Units, read: Callable[[str], Units]) -> bool:
  """Whether a sentence says no where it has one of the words `own`."""
  sentence = _NO_DENIAL.sub(" ", sentence.casefold())
  if _UNTRUE.search(sentence):
    return True
  clauses = _CLAUSE.split(sentence)
  said = [clause for clause in clauses if read(clause) & own] or [sentence]
  return any(map(_NO.search, said))


def _units(text: str) -> Units:
  """Returns the words of a text, numbers as pairs with the words after them."""
  found: Units = set()
  for phrase in _ARTICLE.split(text):
    words = _words(phrase)
    for i, word in enumerate(words):
      following = words[i + 1 : i + 1 + _NEAR]
      counts = word in _NUMBERS or word in _HAN_NUMBERS or word.isdigit()
      if counts and following:
        found |= {(word, other) for other in following}
      else:
        found.add(word)
  return found


def _ordered(text: str) -> Units:
  """Returns the words of a text and the pairs of neighbors."""
  pairs = (itertools.pairwise(_words(phrase)) for phrase in _PHRASE.split(text))
  return _units(text).union(*pairs)


def _words(phrase: str) -> list[str]:
  return [word for word in words_lib.words(phrase) if word not in _SMALL]
