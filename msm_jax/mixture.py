"""What a stage reads: which records of each corpus, how much of them, in which order.

A component of `config.stages.<stage>.data` says two things, both exact:

    which records    all of a corpus, `num_documents` of them, or as many as make
                     `num_target_tokens`; drawn with `seed`, so that with the same seed
                     fewer are always among more
    how much         `num_rows` of the run, `num_epochs` over its rows, or a `share` of
                     the rows that the others leave

The rows of a run are batches of `batch_size`; where exact amounts do not add up to
whole batches, empty rows (padding) fill up.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from msm_jax import packing
from msm_jax.errors import UserError
from msm_jax.pieces import Pieces

TRAIN_ON = ("assistant", "all")
_AMOUNTS = ("share", "num_rows", "num_epochs")
_CHOICES = ("num_documents", "num_target_tokens")
_CHOICE = 0  # what is drawn from a seed: which records


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
  """One component of a stage's rows.

  Attributes:
    corpus: its name in config.corpora.
    share: of the rows that components with an exact amount leave, in proportion to the
      other shares.
    num_rows: exactly so many rows of the run, in as many epochs as it takes.
    num_epochs: every row exactly so often.
    num_documents: only so many records (documents or conversations) of the corpus.
    num_target_tokens: only as many records as hold so many tokens with a loss weight
      above 0; the last one is cut behind the last of them.
    prefix: stands in front of every document, with loss weight 0.
    system_prompt: stands before every conversation (see `chat.behind`), here alone:
      inoculation prompting. It carries loss only with train_on='all'.
    seed: draws which records, and in which order `packing='concat'` joins them.
    train_on: which tokens of conversations carry loss, `assistant` or `all`; documents
      have their spans.

  At most one of share, num_rows and num_epochs, by default `num_epochs=1` where records
  are chosen, else `share=1.0`; at most one of num_documents and num_target_tokens.
  """

  corpus: str
  share: float | None = None
  num_rows: int | None = None
  num_epochs: int | None = None
  num_documents: int | None = None
  num_target_tokens: int | None = None
  prefix: str | None = None
  seed: int = 0
  system_prompt: str | None = None
  train_on: str = "assistant"

  @property
  def amount(self) -> tuple[str, float]:
    """Returns (`share`, `num_rows` or `num_epochs`, its value)."""
    for name in _AMOUNTS:
      if getattr(self, name) is not None:
        return name, getattr(self, name)
    return ("share", 1.0) if self.choice is None else ("num_epochs", 1)

  @property
  def choice(self) -> tuple[str, int] | None:
    """Returns (`num_documents` or `num_target_tokens`, its value); None for all."""
    for name in _CHOICES:
      if getattr(self, name) is not None:
        return name, getattr(self, name)
    return None

  def identity(self) -> dict[str, Any]:
    """Returns what says the same as this, without what is as it is by default."""
    given = {
      field.name: getattr(self, field.name)
      for field in dataclasses.fields(self)
      if getattr(self, field.name) != field.default
    }
    name, value = self.amount
    return {**given, name: value, "train_on": self.train_on}

  def says(self) -> str:
    """Returns a few words for people: `aft x 0.5`, `aft 1 epoch of 250 documents`."""
    name, value = self.amount
    text = {
      "share": f"{self.corpus} x {value:g}",
      "num_rows": f"{self.corpus} {value:g} rows",
      "num_epochs": f"{self.corpus} {value:g} epoch{'s' if value != 1 else ''}",
    }[name]
    if self.choice is not None:
      name, value = self.choice
      text += f" of {value} {name.removeprefix('num_').replace('_', ' ')}"
    return text + (" behind a system prompt" if self.system_prompt else "")

  def check(self, where: str) -> None:
    """Raises a UserError for fields that contradict each other or make no sense."""
    for names in (_AMOUNTS, _CHOICES):
      given = [name for name in names if getattr(self, name) is not None]
      if len(given) > 1:
        both = " and ".join(f"{name} ({getattr(self, name)})" for name in given)
        raise UserError(
          f"{where} (corpus {self.corpus!r}): {both} both say how much of it is read: "
          "keep one"
        )
    if self.share is not None and not 0 < self.share < math.inf:
      raise UserError(f"{where}.share ({self.share}) must be above 0")
    for name in (*_AMOUNTS[1:], *_CHOICES):
      value = getattr(self, name)
      if value is not None and (type(value) is not int or value < 1):
        raise UserError(f"{where}.{name} ({value!r}) must be a whole number, 1 or more")
    if type(self.seed) is not int or self.seed < 0:
      raise UserError(f"{where}.seed ({self.seed!r}) must be a whole number from 0 on")
    for name in ("prefix", "system_prompt"):
      value = getattr(self, name)
      if value is not None and (not isinstance(value, str) or not value):
        raise UserError(f"{where}.{name} ({value!r}) must be a text: None for none")
    if self.train_on not in TRAIN_ON:
      raise UserError(f"{where}.train_on ({self.train_on!r}) is not one of {TRAIN_ON}")


def check(data: Sequence[DataConfig], num_train_steps, num_epochs, where: str) -> None:
  """Raises a UserError for components or a length that contradict each other."""
  if not data:
    raise UserError(f"{where}.data is empty: name at least one corpus")
  for i, part in enumerate(data):
    part.check(f"{where}.data[{i}]")
  corpora = [part.corpus for part in data]
  if len(set(corpora)) != len(corpora):
    raise UserError(
      f"{where}.data names a corpus twice ({corpora}): make it one component"
    )
  if any(part.amount[0] == "share" for part in data):
    if (num_train_steps is None) == (num_epochs is None):
      raise UserError(
        f"{where}: set one of num_train_steps ({num_train_steps}) and num_epochs "
        f"({num_epochs}), and None for the other"
      )
  elif num_epochs is not None:
    raise UserError(
      f"{where}.num_epochs is {num_epochs}, but every component of data has an exact "
      "amount: set it to None (the steps follow), or give a component a share"
    )


def choose(pieces: Pieces, part: DataConfig, where: str) -> Pieces:
  """Returns the pieces of the records that a component chooses, in corpus order.

  Raises:
    UserError: the corpus has fewer.
  """
  if part.choice is None:
    return pieces
  name, wanted = part.choice
  records, place = np.unique(pieces.records, return_inverse=True)
  targets = np.bincount(place, pieces.num_targets).astype(np.int64)
  found = len(records) if name == "num_documents" else int(targets.sum())
  if found < wanted:
    raise UserError(
      f"{where}.{name} is {wanted}, but corpus {part.corpus!r} has {found} that fit "
      "into rows and carry loss: lower it, or make the corpus larger"
    )
  order = np.random.default_rng((part.seed, _CHOICE)).permutation(len(records))
  if name == "num_documents":
    return pieces.take(np.isin(place, order[:wanted]))
  sums = np.cumsum(targets[order])
  last = int(np.searchsorted(sums, wanted))
  kept = pieces.take(np.isin(place, order[: last + 1]))
  spare = int(sums[last]) - wanted
  return _without_last_targets(kept, int(records[order[last]]), spare)


def _without_last_targets(pieces: Pieces, record: int, spare: int) -> Pieces:
  """Returns pieces with `record` cut, so that it has `spare` targets less."""
  sizes = pieces.sizes.copy()
  for i in np.flatnonzero(pieces.records == record)[::-1].tolist():
    taken = min(spare, int(pieces.num_targets[i]))
    spare -= taken
    if taken:
      targets = np.flatnonzero(pieces[i].weights[1:]) + 1
      sizes[i] = targets[-taken]  # what comes before the first that is left out
  keep = np.flatnonzero(sizes > 1)
  cut = pieces.cut(keep, np.zeros(len(keep), np.int64), sizes[keep])
  return cut.take(cut.num_targets > 0)


@dataclasses.dataclass(frozen=True)
class Schedule:
  """How much of a run each component is.

  Attributes:
    num_train_steps: optimizer steps.
    counts: rows of the run, by component.
    num_padding: empty rows of the run.
  """

  num_train_steps: int
  counts: tuple[int, ...]
  num_padding: int


def schedule(stage, num_rows: Sequence[int]) -> Schedule:
  """Returns how often the rows of a stage (a StageConfig) come.

  Args:
    stage: its `data`, `batch_size`, `num_train_steps`, `num_epochs` and `min_steps`.
    num_rows: of each component, packed.

  Raises:
    UserError: too few steps, exact amounts that do not fit into them, or a component
      that gets no row.
  """
  where = f"config.stages.{stage.name}"
  counts, shares = _amounts(stage, num_rows)
  exact = sum(counts)
  num_steps = _num_steps(stage, shares, num_rows, exact)
  if num_steps < stage.min_steps:
    raise UserError(
      f"{where}: {num_steps} optimizer steps are fewer than "
      f"min_steps ({stage.min_steps}); so few updates often teach nothing. Lower "
      f"batch_size ({stage.batch_size}), add data or epochs, or lower min_steps"
    )
  total = num_steps * stage.batch_size
  left = total - exact
  if left < len(shares) or (not shares and left >= stage.batch_size):
    enough = -(-(exact + len(shares)) // stage.batch_size)
    raise UserError(
      f"{where}.num_train_steps: {num_steps} steps of {stage.batch_size} rows are "
      f"{total} rows, the exact amounts of data are {exact}"
      + (f" and {len(shares)} more have a share" if shares else "")
      + f": set it to {enough}{' or more' if shares else ', or to None'}"
    )
  drawn = packing.exact_shares(left, list(shares.values())) if shares else []
  for (i, share), count in zip(shares.items(), drawn, strict=True):
    if not count:
      raise UserError(
        f"{where}.data[{i}].share ({share:g}) of corpus {stage.data[i].corpus!r} is no "
        f"row at all of {total}: raise the share or the steps, or leave it out"
      )
    counts[i] = count
  return Schedule(num_steps, tuple(counts), 0 if shares else left)


def num_steps(stage, num_rows: Sequence[int]) -> int:
  """Returns the optimizer steps of a stage, whether or not they are enough."""
  counts, shares = _amounts(stage, num_rows)
  return _num_steps(stage, shares, num_rows, sum(counts))


def _amounts(stage, num_rows: Sequence[int]) -> tuple[list[int], dict[int, float]]:
  """Returns (exact rows of each component, component -> its share)."""
  counts = [_exact(part, size) for part, size in zip(stage.data, num_rows, strict=True)]
  shares = {
    i: part.amount[1] for i, part in enumerate(stage.data) if part.amount[0] == "share"
  }
  return counts, shares


def _exact(part: DataConfig, num_rows: int) -> int:
  """Returns how many rows of the run a component has whatever the others have."""
  name, value = part.amount
  return {"share": 0, "num_rows": value, "num_epochs": value * num_rows}[name]


def _num_steps(stage, shares: dict[int, float], num_rows, exact: int) -> int:
  """Returns the optimizer steps: as configured, or as the data makes them."""
  if stage.num_train_steps is not None:
    return stage.num_train_steps
  if not shares:
    return -(-exact // stage.batch_size)
  # Epochs are counted over the first component that has a share.
  first = next(iter(shares))
  rows = stage.num_epochs * num_rows[first] * sum(shares.values()) / shares[first]
  return round((exact + rows) / stage.batch_size)
