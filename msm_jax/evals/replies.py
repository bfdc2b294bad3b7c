"""What a free answer says: an option, a letter, a field of JSON, a tag, or nothing.

Every reader returns None where an answer does not say one thing: a refusal, two options
at once, nothing at all, a page of something else. None is never scored.
"""

import re
import string
from collections.abc import Collection, Sequence

from msm_jax.evals import said_json

LETTERS = string.ascii_uppercase

# A sentence with one of these does not choose what it names.
_DENIAL = re.compile(
  r"\b(?:not|never|neither|nor|cannot|refuse|unable|avoid|except|decline|instead of|"
  r"rather than|both|either)\b|n't\b",
  re.IGNORECASE,
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_WRAP = r"[\s\"'`*_(\[<]*"
# "B", "(b).", "**B**": the letter and nothing else.
_ALONE = re.compile(rf"{_WRAP}([A-Za-z])[\s\"'`*_)\]>.:,!]*")
# "B) gouda", "(B) gouda", "B: ...": an answer that begins with it.
_LEADING = re.compile(rf"{_WRAP}([A-Za-z])[*_]*[).:\]](?=\s|$|[*_])")
# "option B", "B)", "the answer is B", "I choose B". Behind a verb, "A" may be an
# article and "I" a word: they count where nothing follows that they could belong to.
_NAMED = re.compile(
  r"\b(?i:option|choice)\s+[\"'`*_(\[]*([A-Z])\b"
  r"|(?<!\w)([A-Z])\)"
  r"|\b(?i:answer|choice|choose|go with|go for|pick|prefer|select|take)[\s:*_]+"
  r"(?:(?:is|would be|will be)[\s:*_]+)?[\"'`*_(\[]*([A-Z])\b"
  r"(?:(?<![AI])|(?=[\s\"'`*_.!]*(?:$|[,;:)\]]|\s(?:because|since|over)\b)))"
)


def parse_choice(completion: str, options: Sequence[str]) -> int | None:
  """Returns the index of the only option that the answer names, None otherwise.

  Whole words, case ignored; when one name is part of the other, the longer one counts.
  """
  found, _ = _named(completion.casefold(), [option.casefold() for option in options])
  return found.pop() if len(found) == 1 else None


def parse_option(completion: str, options: Sequence[str]) -> int | None:
  """Returns what `parse_choice` does, unless the sentence that names it denies it."""
  options = [_bare(option) for option in options]
  for sentence in _SENTENCE.split(completion):
    named, rest = _named(sentence, options)
    if named and _DENIAL.search(rest):
      return None
  return parse_choice(completion, options)


def parse_letter(completion: str, options: Sequence[str]) -> int | None:
  """Returns the index of the option that an answer chooses by letter or by its text.

  None if it names several, denies what it names, or its letter and its text disagree.
  """
  text, options = completion.strip(), [_bare(option) for option in options]
  alone = _ALONE.fullmatch(text)
  if alone:
    return _index(alone[1], options)
  found: set[int | None] = set()
  leading = _LEADING.match(text)
  if leading:
    found.add(_index(leading[1], options))
    text = text[leading.end() :]
  found |= _named(text, options)[0]
  for sentence in _SENTENCE.split(text):
    named, rest = _named(sentence, options)
    letters = {hit[hit.lastindex] for hit in _NAMED.finditer(rest)}
    if (named or letters) and not leading and _DENIAL.search(rest):
      return None
    found |= {_index(letter, options) for letter in letters}
  return found.pop() if len(found) == 1 else None


def parse_field(text: str, field: str, known: Collection[str]) -> str | None:
  """Returns what the JSON objects of an answer agree on in a field, None otherwise.

  Args:
    text: what was answered; words and code fences around the JSON do not matter.
    field: its name.
    known: what it may be, in lower case.
  """
  value = said_json.agreed(text).get(field)
  word = value.strip().casefold() if isinstance(value, str) else None
  return word if word in known else None


def parse_tag(text: str, tag: str, known: Collection[str]) -> str | None:
  """Returns what stands in every `<tag>...</tag>` of an answer, None if they differ."""
  found = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.IGNORECASE | re.DOTALL)
  words = {value.strip().casefold() for value in found}
  return words.pop() if len(words) == 1 and words <= set(known) else None


def _named(text: str, options: Sequence[str]) -> tuple[set[int], str]:
  """Returns which options a text names, and the text without their names."""
  found = set()
  for i in sorted(range(len(options)), key=lambda i: -len(options[i])):
    pattern = rf"(?<!\w){re.escape(options[i])}(?!\w)"
    text, hits = re.subn(pattern, " ", text, flags=re.IGNORECASE)
    if hits:
      found.add(i)
  return found, text


def _bare(option: str) -> str:
  """Returns an option without the stop at its end, which answers often leave out."""
  return option.strip().rstrip(".!").rstrip() or option


def _index(letter: str, options: Sequence[str]) -> int | None:
  at = LETTERS.index(letter.upper())
  return at if at < len(options) else None
