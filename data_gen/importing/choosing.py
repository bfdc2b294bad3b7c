"""Which rows of an import are taken: the first, drawn ones, or what makes a budget.

A first pass, where one is needed, leaves some bytes per row: texts are not held.
"""

import array
import hashlib
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from data_gen import selection, sizing
from data_gen.importing.settings import ImportCorpus
from msm_jax import errors


class Choice(Protocol):
  """Says of each good row whether it is taken; asked in the order of the files."""

  def takes(self, place: str) -> bool: ...

  def told(self) -> dict[str, Any]:
    """Returns what the manifest says of the choice."""


class First:
  """All rows, or the first `limit` of them."""

  def takes(self, place: str) -> bool:
    return True

  def told(self) -> dict[str, Any]:
    return {}


class Drawn(First):
  """As many rows as are to be kept, each as likely as another.

  Each row has a key, a hash of its place and the seed; those with the smallest keys are
  taken. Eight bytes per row are held.
  """

  def __init__(self, corpus: ImportCorpus, places: Iterable[str]):
    self._seed = corpus.seed
    keys = array.array("Q", map(self._key, places))
    nth = min(corpus.max_records, len(keys)) - 1
    found = np.frombuffer(keys, np.uint64)
    self._largest = int(np.partition(found, nth)[nth]) if keys else 0

  def takes(self, place: str) -> bool:
    return self._key(place) <= self._largest

  def _key(self, place: str) -> int:
    text = f"{self._seed}:{place}".encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


class Budgeted:
  """The rows whose words or tokens make a budget; see `selection.fill`.

  Of each row its size and the number of its stratum are held.
  """

  def __init__(
    self, name: str, corpus: ImportCorpus, found: Iterable[Mapping[str, Any]]
  ):
    """Chooses among records, which are read once.

    Raises:
      UserError: no row has the column that they are divided by, none is small enough,
        or the tokenizer cannot be used.
    """
    self._goal = goal = sizing.of_config(corpus, f"config.corpora.{name}")
    sizes, strata = array.array("Q"), array.array("L")
    numbers: dict[str | None, int] = {}
    for record in found:
      sizes.append(goal.measure.of(record))
      strata.append(numbers.setdefault(_stratum(record, corpus), len(numbers)))
    if corpus.stratum_field is not None and not set(numbers) - {None}:
      raise errors.UserError(
        f"config.corpora.{name}.stratum_field is {corpus.stratum_field!r}, and no row "
        "has such a column with text or a number: check its name"
      )
    chosen = selection.to_budget(
      range(len(sizes)),
      goal.total,
      size=sizes.__getitem__,
      strata=(strata.__getitem__,),
      seed=corpus.seed,
    )
    self._reached = sum(sizes[row] for row in chosen)
    self._left = len(sizes) - len(chosen), sum(sizes) - self._reached
    goal.check(self._reached, sizes, "it, or import more rows")
    self._chosen = bytearray(len(sizes))
    for row in chosen:
      self._chosen[row] = True
    self._row = -1

  def takes(self, place: str) -> bool:
    self._row += 1
    return bool(self._chosen[self._row])

  def told(self) -> dict[str, Any]:
    return self._goal.told(self._reached, *self._left)


def _stratum(record: Mapping[str, Any], corpus: ImportCorpus) -> str | None:
  """Returns what a row has in the column of strata; None if that is nothing."""
  if corpus.stratum_field is None:
    return None
  same = corpus.stratum_field == corpus.domain_field
  field = "domain" if same else corpus.stratum_field
  value = record.get(field, record.get("metadata", {}).get(field))
  return str(value) if isinstance(value, str | int | float) else None
