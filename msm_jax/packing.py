"""Documents and conversations to rows of equal length, once, before training.

A row holds several documents (`targets` are the inputs one token on):

    inputs         the   cat    | a     dog   sat
    targets        cat   </s>   | dog   sat   </s>
    positions      0     1      | 0     1     2       begin again in each document
    segment_ids    1     1      | 2     2     2       attention stays within one
    loss_weights   1     1      | 1     1     1       0 for context

The last token of a document is only ever a target, so n tokens fill n - 1 slots; what
is left of a row is padding: 0 in every field.

A plan is made first: `best_fit` (whole documents, longest first: a few thousand fill
rows to about 99.9 %) or `concat` (documents one after the other, cut where a row ends).
Rows are then written as records, in the order of the plan. The order of training comes
later, from the seed (`row_order`).
"""

import bisect
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from msm_jax.errors import UserError
from msm_jax.pieces import Piece, Pieces, join

FIELDS = ("inputs", "targets", "positions", "segment_ids", "loss_weights")
_DTYPES = dict.fromkeys(FIELDS, np.dtype("<i4")) | {"loss_weights": np.dtype("<f4")}
LONG_DOCUMENTS = ("error", "split", "drop")
PACKINGS = ("best_fit", "concat")
ORDERS = ("mixed", "sequential")
_ORDER = 1  # what is drawn from a seed: the order of documents that are joined


def fit(pieces: Pieces, seq_len: int, long_documents: str) -> Pieces:
  """Returns pieces of at most `seq_len` slots that have something to train on.

  What happens to longer ones is explicit. `split` cuts documents alone: a part of a
  conversation would be an answer without its question, so it is left out whole.

  Raises:
    UserError: a piece is too long and `long_documents` is `error`.
  """
  assert long_documents in LONG_DOCUMENTS, long_documents
  long = pieces.num_slots > seq_len
  if long.any() and long_documents == "error":
    first = int(np.flatnonzero(long)[0])
    raise TooLong(
      int(pieces.records[first]),
      f"document {pieces.records[first]} has {pieces.sizes[first]} tokens, a row holds "
      f"{seq_len} ({long.sum()} of {len(pieces)} are too long): raise seq_len, or set "
      "long_documents to 'split' or 'drop'",
    )
  if long_documents == "drop":
    pieces = pieces.take(~long)
  elif long.any():
    pieces = _split(pieces.take(~long | pieces.is_document), seq_len)
  # A part that only holds context would be a row without a loss.
  return pieces.take(pieces.num_targets > 0)


class TooLong(UserError):
  """A record does not fit into a row; `record` is its number in the corpus."""

  def __init__(self, record: int, message: str):
    super().__init__(message)
    self.record = record


def _split(pieces: Pieces, seq_len: int) -> Pieces:
  """Cuts documents; neighbours share a token: a last target is the next first input."""
  num_parts = np.maximum(-(-pieces.num_slots // seq_len), 1)
  which = np.repeat(np.arange(len(pieces)), num_parts)
  begins = _count_up(num_parts) * seq_len
  slots = np.minimum(pieces.num_slots[which] - begins, seq_len)
  return pieces.cut(which, begins, slots + 1)


def _count_up(counts: np.ndarray) -> np.ndarray:
  """Returns 0 ... counts[0] - 1, 0 ... counts[1] - 1, and so on."""
  return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def layout(
  pieces: Pieces, seq_len: int, packing: str, seed: int
) -> tuple[Pieces, list[list[int]]]:
  """Returns (pieces, rows as lists of their numbers), packed in one of the `PACKINGS`.

  `best_fit` keeps pieces whole. `concat` cuts documents where a row ends, their order
  drawn from `seed`; conversations stay whole in rows of their own.
  """
  if packing == "best_fit":
    return pieces, plan(pieces.num_slots, seq_len)
  documents = np.flatnonzero(pieces.is_document)
  order = np.random.default_rng((seed, _ORDER)).permutation(documents)
  parts, rows = concat(pieces.take(order), seq_len)
  whole = pieces.take(~pieces.is_document)
  rows += [[len(parts) + i for i in row] for row in plan(whole.num_slots, seq_len)]
  return join(parts, whole), rows


def concat(pieces: Pieces, seq_len: int) -> tuple[Pieces, list[list[int]]]:
  """Returns (parts, rows): pieces one after the other, cut where a row ends.

  As in `fit`, the parts of a piece share a token, so that each target stands in exactly
  one row; each part is a segment of its own, whose positions begin at 0: nothing
  attends across documents or rows. All rows but the last are full. A row whose parts
  carry no loss is left out.
  """
  ends = np.cumsum(pieces.num_slots)
  begins = ends - pieces.num_slots
  first = begins // seq_len
  num_parts = np.maximum((ends - 1) // seq_len - first + 1, 0)
  which = np.repeat(np.arange(len(pieces)), num_parts)
  row = first[which] + _count_up(num_parts)
  at = np.maximum(begins[which], row * seq_len)
  until = np.minimum(ends[which], (row + 1) * seq_len)
  parts = pieces.cut(which, at - begins[which], until - at + 1)
  rows = np.split(np.arange(len(parts)), np.flatnonzero(np.diff(row)) + 1)
  trained = parts.num_targets > 0
  return parts, [row.tolist() for row in rows if trained[row].any()]


def plan(lengths: Sequence[int] | np.ndarray, seq_len: int) -> list[list[int]]:
  """Returns rows as lists of document indices: best fit, longest first.

  Each document goes into the row with the least room that still holds it. Documents of
  one length are placed together: a row that takes one of them is the tightest for the
  next as long as it holds another.
  """
  lengths = np.asarray(lengths, np.int64)
  order = np.argsort(-lengths, kind="stable")
  edges = np.flatnonzero(np.diff(lengths[order])) + 1
  documents = order.tolist()
  rows: list[list[int]] = []
  rooms = _Rooms()
  for at, end in itertools.pairwise([0, *edges.tolist(), len(documents)]):
    need = int(lengths[order[at]]) if end else 0
    while at < end:
      found = rooms.tightest(need)
      room = seq_len if found is None else found
      each = max(room // need, 1) if need else end - at  # too long: by itself
      count = -(-(end - at) // each)
      if found is None:
        taken = list(range(len(rows), len(rows) + count))
        rows += [[] for _ in taken]
      else:
        taken = rooms.take(room, count)
      for row in taken:
        rows[row] += documents[at : min(at + each, end)]
        at += each
      spare = max(at - end, 0)  # the last row may take fewer
      at = min(at, end)
      rooms.add(room - need * each, taken[: len(taken) - bool(spare)])
      if spare:
        rooms.add(room - need * (each - spare), taken[-1:])
  return rows


class _Rooms:
  """Rows by how much room they have left."""

  def __init__(self):
    self.sizes: list[int] = []  # the distinct amounts, ascending
    self.rows: dict[int, list[int]] = {}

  def tightest(self, need: int) -> int | None:
    """Returns the least room that is at least `need`."""
    at = bisect.bisect_left(self.sizes, need)
    return self.sizes[at] if at < len(self.sizes) else None

  def take(self, room: int, count: int) -> list[int]:
    """Removes and returns up to `count` rows with this room, the last ones first."""
    rows = self.rows[room]
    taken = rows[: -count - 1 : -1]
    del rows[-count:]
    if not rows:
      del self.rows[room]
      self.sizes.pop(bisect.bisect_left(self.sizes, room))
    return taken

  def add(self, room: int, rows: list[int]) -> None:
    """Adds rows with this room."""
    if rows and room not in self.rows:
      bisect.insort(self.sizes, room)
      self.rows[room] = []
    if rows:
      self.rows[room] += rows


def make_row(pieces: Sequence[Piece], seq_len: int) -> dict[str, np.ndarray]:
  """Returns the fields, each [seq_len], of one row that holds `pieces` in order."""
  row = {name: np.zeros(seq_len, _DTYPES[name]) for name in FIELDS}
  at = 0
  for segment, piece in enumerate(pieces, start=1):
    span = slice(at, at + piece.num_slots)
    row["inputs"][span] = piece.ids[:-1]
    row["targets"][span] = piece.ids[1:]
    row["positions"][span] = np.arange(piece.num_slots)
    row["segment_ids"][span] = segment
    row["loss_weights"][span] = piece.weights[1:]
    at += piece.num_slots
  return row


def pack(pieces: Sequence[Piece], seq_len: int) -> Iterator[dict[str, np.ndarray]]:
  """Yields the rows that hold all `pieces`, best fit."""
  rows = plan([piece.num_slots for piece in pieces], seq_len)
  yield from make_rows(pieces, rows, seq_len)


def make_rows(
  pieces: Sequence[Piece], rows: Iterable[Sequence[int]], seq_len: int
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the rows of a plan, reading each of their pieces when it is needed."""
  for row in rows:
    yield make_row([pieces[i] for i in row], seq_len)


def to_record(row: Mapping[str, np.ndarray]) -> dict[str, bytes]:
  """Returns a row as a record: raw little-endian bytes per field."""
  return {name: row[name].astype(_DTYPES[name]).tobytes() for name in FIELDS}


def from_record(record: Mapping[str, bytes]) -> dict[str, np.ndarray]:
  """Returns the row in a record."""
  return {name: np.frombuffer(record[name], _DTYPES[name]) for name in FIELDS}


def exact_shares(total: int, shares: Sequence[float]) -> list[int]:
  """Returns whole counts in proportion to `shares` that add up to `total`."""
  exact = np.asarray(shares, np.float64) / np.sum(shares) * total
  counts = np.floor(exact).astype(int)
  # The largest remainders get what rounding down left over; ties go to the first.
  missing = total - int(counts.sum())
  counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
  return counts.tolist()


def row_order(
  num_rows: Sequence[int], counts: Sequence[int], seed: int, order: str = "mixed"
) -> np.ndarray:
  """Returns int64 [sum(counts), 2]: (component, row) of every row of a run, in order.

  Component c gives exactly `counts[c]` of the rows, spread evenly over the run
  (`mixed`), or all of them before the first of the next component (`sequential`). It
  walks through its `num_rows[c]` rows in a new random order in each epoch; the order
  depends on (seed, component, epoch) only, so the whole state of a loader is how far
  it is.
  """
  assert order in ORDERS, order
  places, components, rows = [], [], []
  for component, (size, count) in enumerate(zip(num_rows, counts, strict=True)):
    epochs = -(-count // size)
    drawn = [
      np.random.default_rng((seed, component, epoch)).permutation(size)
      for epoch in range(epochs)
    ]
    rows.append(np.concatenate(drawn)[:count] if drawn else np.zeros(0, np.int64))
    components.append(np.full(count, component))
    places.append((np.arange(count) + 0.5) / max(count, 1))
  table = np.stack([np.concatenate(components), np.concatenate(rows)], axis=1)
  if order == "mixed":
    table = table[np.argsort(np.concatenate(places), kind="stable")]
  return table.astype(np.int64)
