"""Texts that were there already, but for case, spacing and punctuation."""

import hashlib

import numpy as np

from data_gen.filters import words


class Duplicates:
  """Remembers texts; finds those that differ in case, spacing or punctuation only."""

  def __init__(self) -> None:
    self._seen: dict[bytes, str] = {}

  def first_of(self, text: str, identity: str) -> str | None:
    """Returns who had this text first; None, and remembers it, if nobody had."""
    first = self._seen.setdefault(_key(text), identity)
    return None if first == identity else first

  def find(self, text: str, identity: str) -> str | None:
    """Returns who had this text first, and remembers nothing."""
    first = self._seen.get(_key(text), identity)
    return None if first == identity else first


def _key(text: str) -> bytes:
  points, starts = words.codes(text)
  digest = hashlib.sha256(starts.astype(np.uint32).tobytes())
  digest.update(points.tobytes())
  return digest.digest()[:16]
