"""Records to tokens with loss weights, many at once.

Documents are encoded by all cores, conversations are rendered together; what comes out
is the same as one by one.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax import chat
from msm_jax.errors import UserError
from msm_jax.pieces import Piece
from msm_jax.tokenizer import Tokenizer

Record = Mapping[str, Any]
_BATCH_RECORDS, _BATCH_CHARACTERS = 256, 1 << 19
_BATCH_CHATS = 64  # rendered by one request to the template's worker


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
  """Yields records in groups that take little memory, whatever their lengths."""
  batch: list[Record] = []
  size = 0
  for record in records:
    batch.append(record)
    size += len(record.get("text", ""))
    if len(batch) == _BATCH_RECORDS or size >= _BATCH_CHARACTERS:
      yield batch
      batch, size = [], 0
  if batch:
    yield batch


def encode_record(
  record: Record,
  tokenizer: Tokenizer,
  *,
  train_on: str = "assistant",
  prefix: str | None = None,
  system_prompt: str | None = None,
) -> Piece:
  """Returns the tokens of a record: documents get BOS (if there is one) and EOS.

  Every token of a document carries loss, unless its `loss_spans` ([start, end, weight]
  in characters) say otherwise; a token that reaches into a span has the span's weight.

  Args:
    record: a document or a conversation.
    tokenizer: gives the ids.
    train_on: of conversations, `assistant` or `all`; documents have their spans.
    prefix: stands in front of a document and never carries loss. The document's own
      tokens are those it has alone, unless the tokenizer puts a space in front of
      every text: then both are encoded as one text.
    system_prompt: stands before a conversation (see `chat.behind`).

  Raises:
    UserError: a record of another kind or without a token to train on, or spans that
      do not lie in its text; it names the record.
  """
  return encode_records(
    [record], tokenizer, train_on=train_on, prefix=prefix, system_prompt=system_prompt
  )[0]


def encode_records(
  records: Sequence[Record],
  tokenizer: Tokenizer,
  *,
  train_on: str = "assistant",
  prefix: str | None = None,
  system_prompt: str | None = None,
) -> list[Piece]:
  """Returns what `encode_record` does for each, faster: many are encoded at once."""
  found: list[Piece | None] = [None] * len(records)
  kinds: dict[str, list[int]] = {"plain": [], "spans": [], "conversation": []}
  for i, record in enumerate(records):
    kinds[_kind(record, tokenizer, prefix, system_prompt)].append(i)
  head, num_masked = _head(tokenizer, prefix)
  texts = [records[i]["text"] for i in kinds["plain"]]
  for i, ids in zip(kinds["plain"], tokenizer.encode_ids(texts), strict=True):
    found[i] = _document(head, ids, tokenizer.eos_id, num_masked)
  for i in kinds["spans"]:
    found[i] = _with_spans(records[i], tokenizer, prefix)
  talks = [records[i] for i in kinds["conversation"]]
  talks = _conversations(talks, tokenizer, train_on, system_prompt)
  for i, piece in zip(kinds["conversation"], talks, strict=True):
    found[i] = piece
  return found


def _kind(
  record, tokenizer: Tokenizer, prefix: str | None, system_prompt: str | None
) -> str:
  if record["kind"] not in ("document", "conversation"):
    raise UserError(
      f"record {record.get('id')!r} is a {record['kind']!r}: rows are made of "
      "documents and conversations"
    )
  if record["kind"] == "conversation":
    if prefix is not None:
      raise UserError(
        f"record {record.get('id')!r} is a conversation: a prefix ({prefix!r}) stands "
        "in front of documents; leave it out for this corpus"
      )
    return "conversation"
  if system_prompt is not None:
    raise UserError(
      f"record {record.get('id')!r} is a document: a system_prompt "
      f"({system_prompt!r}) stands before conversations; leave it out for this corpus, "
      "or give documents a prefix"
    )
  joined = prefix is not None and not tokenizer.backend.goes_on()
  return "spans" if record.get("loss_spans") or joined else "plain"


def _head(tokenizer: Tokenizer, prefix: str | None) -> tuple[np.ndarray, int]:
  """Returns the ids that stand before a text, and how many of them carry no loss."""
  bos = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
  if prefix is None:
    return np.asarray(bos, np.int32), 0
  ids = tokenizer.encode(prefix).ids
  return np.concatenate([bos, ids]).astype(np.int32), len(bos) + len(ids)


def _document(head: np.ndarray, ids: np.ndarray, eos: int, num_masked: int) -> Piece:
  ids = np.concatenate([head, ids, [eos]]).astype(np.int32)
  weights = np.ones(len(ids), np.float32)
  weights[:num_masked] = 0.0
  return Piece(ids, weights)


def _with_spans(record, tokenizer: Tokenizer, prefix: str | None):
  """Returns a document with loss spans, or whose prefix is encoded with its text."""
  joined = prefix is not None and not tokenizer.backend.goes_on()
  before = len(prefix) if joined else 0
  text = (prefix if joined else "") + record["text"]
  head, num_masked = _head(tokenizer, None if joined else prefix)
  encoding = tokenizer.encode(text)
  piece = _document(head, encoding.ids, tokenizer.eos_id, num_masked)
  inner = piece.weights[len(head) : -1]
  begins = _behind_space(text, encoding.starts, encoding.ends) - before
  if record.get("loss_spans"):
    for start, end, weight in _loss_spans(record):
      inner[(encoding.ends - before > start) & (begins < end)] = weight
  inner[begins < 0] = 0.0  # a token of the prefix
  return piece


def _conversations(
  records, tokenizer: Tokenizer, train_on: str, system_prompt: str | None
) -> list[Piece]:
  """Returns the tokens of conversations; one that cannot be encoded is named."""
  talks = [
    (chat.behind(system_prompt, record["messages"]), record.get("tools"))
    for record in records
  ]
  try:
    return [Piece(*encoded) for encoded in _chats(tokenizer, talks, train_on)]
  except UserError:
    for record, talk in zip(records, talks, strict=True):
      try:
        chat.encode_all(tokenizer, [talk], train_on=train_on)
      except UserError as error:
        raise UserError(f"record {record.get('id')!r}: {error}") from None
    raise


def _chats(tokenizer: Tokenizer, talks, train_on: str):
  for at in range(0, len(talks), _BATCH_CHATS):
    yield from chat.encode_all(
      tokenizer, talks[at : at + _BATCH_CHATS], train_on=train_on
    )


def _behind_space(text: str, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
  """Returns where the words of tokens begin: a word's token often holds the space
  before it, which may belong to the span before.
  """
  found = []
  for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
    word = text[start:end].lstrip()
    found.append(end - len(word) if word else start)
  return np.asarray(found, np.int32)


def _loss_spans(record: Record) -> Sequence[tuple[int, int, float]]:
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
