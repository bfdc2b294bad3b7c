"""Which request has which row: rows that finish are given the next prompt at once.

Prompts of like length are read together, so that few shapes are compiled and little of
a cache lies idle: requests are taken in classes of the columns that they need, longest
first. What this host decides follows from what all hosts see alike.

P population, B rows, R rows to begin with, T slots of prompts.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from msm_jax import sharding
from msm_jax.errors import UserError
from msm_jax.sampling import programs
from msm_jax.sampling.programs import Asked, Program, Rows, Settings

_PROMPT_MULTIPLE, _COLUMN_MULTIPLE = 16, 32
_REFILLED = 8  # a refill waits for this part of the rows
_MOST_TOKENS = 64  # before the host looks again


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
  """A prompt (int32 ids) of a member, and the seed of its completion (uint32)."""

  member: int
  number: int
  prompt: np.ndarray
  seed: int


class Sampled(NamedTuple):
  """A completion (int32 ids, the stop id left out), and whether a stop id ended it."""

  ids: np.ndarray
  is_stopped: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Batch:
  """Rows on the devices and what they draw with.

  Attributes:
    params: (base, adapters), from `decoding.prepare`.
    program: what to compile.
    settings: of drawing.
    num_members: of the population; 1 without one.
    num_rows: of each.
    max_new_tokens: of each request.
  """

  params: tuple
  program: Program
  settings: Settings
  num_members: int
  num_rows: int
  max_new_tokens: int

  def run(self, requests: Sequence[Request]) -> Iterator[tuple[Request, Sampled]]:
    """Yields the requests with their completions as they end."""
    classes: dict[int, list[Request]] = {}
    for request in sorted(requests, key=lambda request: -len(request.prompt)):
      classes.setdefault(self._columns(request), []).append(request)
    for num_columns, members in classes.items():
      yield from self._run(members, num_columns)

  def _columns(self, request: Request) -> int:
    width = _bucket(len(request.prompt), _PROMPT_MULTIPLE)
    return _bucket(width + self.max_new_tokens, _COLUMN_MULTIPLE)

  def _run(self, requests, num_columns) -> Iterator[tuple[Request, Sampled]]:
    waiting = [[r for r in requests if r.member == p] for p in range(self.num_members)]
    most = max(map(len, waiting))
    num_rows = min(self.num_rows, _rounded(most, self.num_rows))
    slots: list[list[Request | None]] = [[None] * num_rows for _ in waiting]
    rows = programs.empty(
      self.params,
      program=self.program,
      num_members=self.num_members,
      num_rows=num_rows,
      sizes=(num_columns, self.max_new_tokens),
    )
    column = np.int32(0)
    refilled = max(1, num_rows // _REFILLED)
    while any(waiting) or any(slot for member in slots for slot in member):
      rows, column = self._fill(rows, column, slots, waiting, refilled)
      rows, column = self._go_on(rows, column, slots, waiting, refilled)
      yield from self._ended(rows, slots)

  def _fill(self, rows: Rows, column, slots, waiting, refilled: int):
    """Returns (rows, column) with free rows begun anew."""
    while True:
      free = [[i for i, slot in enumerate(member) if slot is None] for member in slots]
      open_ = [min(map(len, pair)) for pair in zip(free, waiting, strict=True)]
      if not max(open_):
        return rows, column
      num_rows = len(slots[0])
      count = num_rows if max(open_) > num_rows // 2 else refilled
      taken = []
      for member, places, asked in zip(slots, free, waiting, strict=True):
        pairs = [(place, asked.pop(0)) for place in places[:count] if asked]
        taken.append(pairs)
        for place, request in pairs:
          member[place] = request
      asked = self._asked(taken, count, num_rows)
      args = self.params, rows, column, asked, self.settings
      rows = programs.begin(*args, program=self.program)

  def _asked(self, taken, count: int, num_rows: int) -> Asked:
    """Returns requests, and where they go, as arrays."""
    longest = max(len(r.prompt) for pairs in taken for _, r in pairs)
    shape = (self.num_members, count)
    asked = Asked(
      tokens_RT=np.zeros((*shape, _bucket(longest, _PROMPT_MULTIPLE)), np.int32),
      length_R=np.ones(shape, np.int32),
      row_R=np.full(shape, num_rows, np.int32),
      limit_R=np.full(shape, self.max_new_tokens, np.int32),
      seed_R=np.zeros(shape, np.uint32),
    )
    for p, pairs in enumerate(taken):
      for i, (place, request) in enumerate(pairs):
        asked.tokens_RT[p, i, -len(request.prompt) :] = request.prompt
        asked.length_R[p, i] = len(request.prompt)
        asked.row_R[p, i] = place
        asked.seed_R[p, i] = request.seed
    return asked if self.program.has_members else Asked(*(x[0] for x in asked))

  def _go_on(self, rows: Rows, column, slots, waiting, refilled: int):
    """Returns (rows, column) after as many tokens as nobody has to wait for."""
    # Where somebody waits, so many free rows are worth a look.
    least = [len(slots[0]) - refilled + 1 if asked else 0 for asked in waiting]
    least = np.asarray(least, np.int32)
    wait = least if self.program.has_members else least[0], np.int32(_MOST_TOKENS)
    args = self.params, rows, column, wait, self.settings
    return programs.go_on(*args, program=self.program)

  def _ended(self, rows: Rows, slots) -> Iterator[tuple[Request, Sampled]]:
    seen = rows.is_open_B, rows.is_bad_B, rows.count_B, rows.out_Bn, rows.token_B
    seen = [sharding.fetch(x) for x in seen]
    if not self.program.has_members:
      seen = [x[None] for x in seen]
    is_open, is_bad, counts, outs, _ = seen
    if is_bad.any():
      p, i = map(int, np.argwhere(is_bad)[0])
      request = slots[p][i]
      raise UserError(
        f"the model's logits are not finite after prompt {request.number}"
        f"{f' of member {p}' if self.program.has_members else ''} and "
        f"{int(counts[p, i]) - 1} tokens more: nothing was taken for an answer; look "
        "at its training loss, or use dtype='float32'"
      )
    stops = np.asarray(self.settings.stop_ids)
    for p, member in enumerate(slots):
      for i, request in enumerate(member):
        if request is None or is_open[p, i]:
          continue
        member[i] = None
        ids = outs[p, i, : counts[p, i]]
        is_stopped = bool(np.isin(ids[-1], stops))
        yield request, Sampled(ids[:-1] if is_stopped else ids, is_stopped)


def _rounded(count: int, most: int) -> int:
  """Returns the least of most, most / 2, ... that is at least `count`, or most."""
  while most % 2 == 0 and most // 2 >= count:
    most //= 2
  return most


def _bucket(size: int, multiple: int) -> int:
  """Returns `size` rounded up: to a multiple, of an eighth of its power of two."""
  multiple = max(multiple, 1 << max(0, size.bit_length() - 3))
  return -(-size // multiple) * multiple
