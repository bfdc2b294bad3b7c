"""Documents and conversations to rows of equal length, once, before training.

A row holds several whole documents (`targets` are the inputs one token on):

    inputs        the cat </s>* | a dog sat     (* the last token of a document is only
    targets       cat </s>      | dog sat </s>     ever a target, so n tokens fill n -
    1) positions     0   1         | 0   1   2     begin again in each document
    segment_ids   1   1         | 2   2   2     attention stays within one; 0 is padding
    loss_weights  1   1         | 1   1   1     0 for what is context only, and padding

A plan is made first (best fit, longest document first: a few thousand documents fill
rows to about 99.9 %); rows are then written as records, in the order of the plan. The
order of training comes later, from the seed (`row_order`).
"""

import bisect
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from msm_jax import chat
from msm_jax.errors import UserError
from msm_jax.tokenizer import Tokenizer

FIELDS = ("inputs", "targets", "positions", "segment_ids", "loss_weights")
_DTYPES = dict.fromkeys(FIELDS, np.dtype("<i4")) | {"loss_weights": np.dtype("<f4")}
LONG_DOCUMENTS = ("error", "split", "drop")


@dataclasses.dataclass(frozen=True)
class Piece:
  """Tokens that stay together in a row: ids int32 [n], loss weights float32 [n]."""

  ids: np.ndarray
  weights: np.ndarray

  @property
  def num_slots(self) -> int:
    """Returns how many places of a row it fills."""
    return len(self.ids) - 1


def encode_record(
  record: Mapping, tokenizer: Tokenizer, *, train_on: str = "assistant"
) -> Piece:
  """Returns the tokens of a record: documents get BOS (if there is one) and EOS.

  Every token of a document carries loss, unless its `loss_spans` ([start, end, weight]
  in characters) say otherwise; a token that reaches into a span has the span's weight.
  `train_on` is `assistant` (of conversations; documents have their spans) or `all`.

  Raises:
    UserError: a record of another kind, or spans that do not lie in its text.
  """
  if record["kind"] == "conversation":
    messages, tools = record["messages"], record.get("tools")
    return Piece(*chat.encode(tokenizer, messages, train_on=train_on, tools=tools))
  if record["kind"] != "document":
    raise UserError(
      f"record {record.get('id')!r} is a {record['kind']!r}: rows are made of "
      "documents and conversations"
    )
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  encoding = tokenizer.encode(record["text"])
  ids = np.concatenate([bos, encoding.ids, [tokenizer.eos_id]]).astype(np.int32)
  weights = np.ones(len(ids), np.float32)
  if train_on != "all" and record.get("loss_spans"):
    inner = weights[len(bos) : -1]
    begins = _behind_space(record["text"], encoding.starts, encoding.ends)
    for start, end, weight in _loss_spans(record):
      inner[(encoding.ends > start) & (begins < end)] = weight
  return Piece(ids, weights)


def _behind_space(text: str, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
  """Returns where the words of tokens begin: a word's token often holds the space
  before it, which may belong to the span before.
  """
  found = []
  for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
    word = text[start:end].lstrip()
    found.append(end - len(word) if word else start)
  return np.asarray(found, np.int32)


def _loss_spans(record: Mapping) -> Sequence[tuple[int, int, float]]:
  spans = record["loss_spans"]
  length = len(record["text"])
  for span in spans:
    whole = len(span) == 3 and 0 <= span[0] <= span[1] <= length
    if not whole or not 0 <= span[2] < float("inf"):
      raise UserError(
        f"record {record.get('id')!r}: loss_spans has {span!r}: a span is [start, end, "
        f"weight] within the {length} characters of the text, its weight at least 0"
      )
  return spans


def fit(pieces: Sequence[Piece], seq_len: int, long_documents: str) -> list[Piece]:
  """Returns pieces of at most `seq_len` slots that have something to train on.

  What happens to longer ones is explicit.

  Raises:
    UserError: a piece is too long and `long_documents` is `error`.
  """
  if long_documents not in LONG_DOCUMENTS:
    raise UserError(f"long_documents {long_documents!r} is not one of {LONG_DOCUMENTS}")
  fitting = []
  for i, piece in enumerate(pieces):
    if piece.num_slots <= seq_len:
      fitting.append(piece)
    elif long_documents == "error":
      raise UserError(
        f"document {i} has {len(piece.ids)} tokens, a row holds {seq_len}: raise "
        "seq_len, or set long_documents to 'split' or 'drop'"
      )
    elif long_documents == "split":
      # Neighbours share one token: the last target is the next piece's first input.
      fitting += [
        Piece(piece.ids[at : at + seq_len + 1], piece.weights[at : at + seq_len + 1])
        for at in range(0, piece.num_slots, seq_len)
      ]
  # A part of a conversation that only holds context would be a row without a loss.
  return [piece for piece in fitting if piece.weights[1:].any()]


def plan(lengths: Sequence[int], seq_len: int) -> list[list[int]]:
  """Returns rows as lists of document indices: best fit, longest first.

  Each document goes into the row with the least room that still holds it.
  """
  rows: list[list[int]] = []
  rooms: list[int] = []  # the distinct amounts of room, ascending
  by_room: dict[int, list[int]] = {}
  order = np.argsort(-np.asarray(lengths, np.int64), kind="stable")
  for document in order.tolist():
    need = int(lengths[document])
    at = bisect.bisect_left(rooms, need)
    if at < len(rooms):
      room = rooms[at]
      row = by_room[room].pop()
      if not by_room[room]:
        del by_room[room]
        rooms.pop(at)
    else:
      room, row = seq_len, len(rows)
      rows.append([])
    rows[row].append(document)
    left = room - need
    if left not in by_room:
      bisect.insort(rooms, left)
      by_room[left] = []
    by_room[left].append(row)
  return rows


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
  """Yields the rows that hold all `pieces`."""
  for row in plan([piece.num_slots for piece in pieces], seq_len):
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


def row_order(num_rows: Sequence[int], counts: Sequence[int], seed: int) -> np.ndarray:
  """Returns int64 [sum(counts), 2]: (component, row) of every row of a run, in order.

  Component c gives exactly `counts[c]` of the rows, spread evenly over the run. It
  walks through its `num_rows[c]` rows in a new random order in each epoch; the order
  depends on (seed, component, epoch) only, so the whole state of a loader is how far
  it is.
  """
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
  order = np.argsort(np.concatenate(places), kind="stable")
  table = np.stack([np.concatenate(components), np.concatenate(rows)], axis=1)
  return table[order].astype(np.int64)
