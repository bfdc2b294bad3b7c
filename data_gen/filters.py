"""What is not kept: texts that were there already. Every rejection has its reason."""

import hashlib
import re

_NOT_A_WORD = re.compile(r"[\W_]+")


class Duplicates:
  """Remembers texts; finds those that differ in case, spacing or punctuation only."""

  def __init__(self) -> None:
    self._seen: dict[bytes, str] = {}

  def first_of(self, text: str, identity: str) -> str | None:
    """Returns who had this text first; None, and remembers it, if nobody had."""
    words = _NOT_A_WORD.sub(" ", text.casefold()).strip()
    key = hashlib.sha256(words.encode()).digest()[:16]
    first = self._seen.setdefault(key, identity)
    return None if first == identity else first


def num_words(text: str) -> int:
  """Returns the number of words between white space: the measure of matched corpora."""
  return len(text.split())


def category(reason: str) -> str:
  """Returns the part of a rejection's reason that others share: it can be counted."""
  for sign in (":", " ("):
    reason = reason.split(sign, 1)[0]
  return "duplicate" if reason.startswith("duplicate of ") else reason
