"""A small phrase grammar: text files of rules, and a writer that expands them.

A rule file has `= name` lines, each followed by its alternatives, one a line. In an
alternative `[a|b]` is a choice and `{name}` another rule or a binding of the writer.
Rules are written in lower case; `sentence` puts in capitals, articles and the stop.
"""

import functools
import pathlib
import random
import re
from collections.abc import Mapping

DIRECTORY = pathlib.Path(__file__).parent / "english"
# Files that every document shares; in the others, rules are called <file>.<name>.
_SHARED = ("pools", "frames", "dialogue", "genres", "chat", "facts")

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{([\w.-]+)\}")
_ARTICLE = re.compile(r"\b([Aa]) (?=[aeiouAEIOU])(?!one\b|once\b|uni|use|eu)")
# Not after a question in quotation marks: `"why?" asked Ada` goes on.
_START = re.compile(r"(^[\"'(]?|(?:[.!?]|\.[\"')])\s+[\"'(]?)([a-z])")


@functools.cache
def rules() -> Mapping[str, tuple[str, ...]]:
  """Returns all rules by name."""
  found: dict[str, tuple[str, ...]] = {}
  for path in sorted(DIRECTORY.glob("*.txt")):
    prefix = "" if path.stem in _SHARED else f"{path.stem}."
    found |= _read(path, prefix)
  return found


def _read(path: pathlib.Path, prefix: str) -> dict[str, tuple[str, ...]]:
  lists: dict[str, list[str]] = {}
  current: list[str] = []
  for line in path.read_text(encoding="utf-8").splitlines():
    if line.startswith("= "):
      name = line[2:].strip()
      current = lists.setdefault(prefix + name, [])
    elif line.strip() and not line.startswith("#"):
      current.append(line.strip().replace("{v.", "{" + prefix))
  return {name: tuple(lines) for name, lines in lists.items()}


class Writer:
  """Expands rules for one document and avoids using an alternative twice in it."""

  def __init__(self, rng: random.Random, bindings: Mapping[str, str]):
    self.rng = rng
    self.bindings = dict(bindings)
    self._unused: dict[str, list[str]] = {}

  def alternatives(self, name: str) -> tuple[str, ...]:
    """Returns the alternatives of the rule `name`, in the order of its file."""
    return rules()[name]

  def pick(self, name: str) -> str:
    """Returns an alternative of the rule `name`, an unused one if there is one."""
    unused = self._unused.get(name)
    if not unused:
      unused = list(rules()[name])
      self.rng.shuffle(unused)
      self._unused[name] = unused
    return unused.pop()

  def expand(self, text: str, extra: Mapping[str, str] | None = None) -> str:
    """Returns `text` without choices and slots; `extra` goes before the bindings."""
    scope = {**self.bindings, **(extra or {})}
    while "{" in text or "[" in text:
      # Choices first, so that a rule in the branch not taken is not used up.
      while "[" in text:
        text = _CHOICE.sub(lambda m: self.rng.choice(m[1].split("|")), text)
      text = _SLOT.sub(lambda m: scope.get(m[1]) or self.pick(m[1]), text)
    return " ".join(text.split())

  def line(self, name: str, **extra: str) -> str:
    """Returns the rule `name` as one sentence or more."""
    return sentence(self.expand("{" + name + "}", extra))

  def title(self, name: str, **extra: str) -> str:
    """Returns the rule `name` as a heading: capital letter, no stop."""
    text = self.expand("{" + name + "}", extra)
    return tidy(text)


def tidy(text: str) -> str:
  """Returns `text` with capitals at the starts of sentences and `an` before vowels."""
  text = _ARTICLE.sub(r"\1n ", text)
  text = re.sub(r"\s+([.,;:?!])", r"\1", text)
  return _START.sub(lambda m: m[1] + m[2].upper(), text)


def sentence(text: str) -> str:
  """Returns `text` tidied and with a stop at its end."""
  text = tidy(text)
  return text if re.search(r"[.!?][\"')]?$", text) else text + "."
