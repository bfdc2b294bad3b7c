"""Text to token ids and back: the libraries behind `tokenizer.json` and SentencePiece.

Both encoders have one face: `encode`, `encode_batch`, `encode_ids`, `decode`,
`token_id`, `token_text`, `is_added`, `vocab_size`, `begins` (which token does the file
itself put in front of a text?). They never add special tokens, and the text of a
special token in a string becomes that one token.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import sentencepiece
import tokenizers

from msm_jax.errors import UserError

SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # SentencePiece's mark for a space
_CONTROL = 3  # the kind of a SentencePiece piece


@dataclasses.dataclass(frozen=True)
class Encoding:
  """Token ids with the half-open span of characters that each came from.

  Spans leave no gap: a space that a library counts to no token belongs to the token
  after it. The tokens of one character's bytes all have that character's span.
  """

  ids: np.ndarray  # int32 [n]
  starts: np.ndarray  # int32 [n], characters
  ends: np.ndarray  # int32 [n], characters


def join(parts: Sequence[Encoding], starts: Sequence[int]) -> Encoding:
  """Returns the encoding of a text whose parts, at `starts`, were encoded alone."""
  if len(parts) == 1:
    return parts[0]
  return Encoding(
    np.concatenate([part.ids for part in parts]),
    np.concatenate([part.starts + at for part, at in zip(parts, starts, strict=True)]),
    np.concatenate([part.ends + at for part, at in zip(parts, starts, strict=True)]),
  )


@dataclasses.dataclass(frozen=True)
class AddedToken:
  """A token that is cut out of a text before the rest is encoded.

  `index` is None where a file names the token without its id; `lstrip` and `rstrip`
  let it swallow the white space beside it.
  """

  content: str
  index: int | None = None
  special: bool = True
  lstrip: bool = False
  rstrip: bool = False
  single_word: bool = False
  normalized: bool = False


class JsonEncoder:
  """The Rust library behind `tokenizer.json`.

  Tokens that tokenizer_config.json adds to those of the file are added here too.
  """

  def __init__(self, path: pathlib.Path, added: Sequence[AddedToken]):
    try:
      self.inner = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
      raise UserError(f"{path} is not a tokenizer.json ({error})") from None
    self.inner.no_truncation()
    self.inner.no_padding()
    known = {token.content for token in self.inner.get_added_tokens_decoder().values()}
    for token in added:
      if token.content not in known:
        self._add(path, token)

  def _add(self, path: pathlib.Path, token: AddedToken) -> None:
    index = self.inner.token_to_id(token.content)
    if index is None and token.index is None:
      return  # a name without a token; whoever needs it says so
    if index is None:
      index = self.inner.get_vocab_size(with_added_tokens=True)
    if token.index not in (None, index):
      raise UserError(
        f"{path} would number the added token {token.content!r} {index}, "
        f"tokenizer_config.json says {token.index}: the two files do not belong "
        "together"
      )
    flags = dataclasses.asdict(token)
    del flags["index"]
    self.inner.add_tokens([tokenizers.AddedToken(**flags)])

  def vocab_size(self) -> int:
    return max(self.inner.get_vocab(with_added_tokens=True).values()) + 1

  def encode(self, text: str) -> Encoding:
    """Returns the ids of a text."""
    return _with_spans(self.inner.encode(text, add_special_tokens=False))

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    """Returns what `encode` does for each, on all cores."""
    found = self.inner.encode_batch(list(texts), add_special_tokens=False)
    return [_with_spans(encoding) for encoding in found]

  def encode_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the ids of each text, on all cores."""
    found = self.inner.encode_batch_fast(list(texts), add_special_tokens=False)
    return [np.asarray(encoding.ids, np.int32) for encoding in found]

  def goes_on(self) -> bool:
    """Says whether the two parts of a text may be encoded one after the other."""
    # A space that is put in front of every text would stand between them.
    first = self.inner.encode("a", add_special_tokens=False).tokens[:1]
    return not first or not first[0].startswith(SPACE)

  def decode(self, ids: list[int]) -> str:
    return self.inner.decode(ids, skip_special_tokens=False)

  def token_id(self, token: str) -> int | None:
    return self.inner.token_to_id(token)

  def token_text(self, index: int) -> str:
    """Returns the text of one token; bytes that are no character as <0x..>."""
    name = self.inner.id_to_token(index)
    if name is None:
      return ""
    alone = self.inner.decode([index], skip_special_tokens=False)
    if "\ufffd" in alone:
      bytes_of = _byte_of_character()
      if all(character in bytes_of for character in name):
        return "".join(f"<0x{bytes_of[character]:02X}>" for character in name)
      return name
    # Some decoders drop the space of the first token.
    return self.inner.decode([index, index], skip_special_tokens=False)[len(alone) :]

  def is_added(self, index: int) -> bool:
    """Says whether a token is cut out of a text, as special tokens are."""
    return index in self._added

  @functools.cached_property
  def _added(self) -> frozenset[int]:
    return frozenset(self.inner.get_added_tokens_decoder())

  def begins(self) -> int | None:
    """Returns the token that the file puts in front of a text, None for none."""
    bare = self.inner.encode("a", add_special_tokens=False).ids
    full = self.inner.encode("a", add_special_tokens=True).ids
    return full[0] if full[:1] != bare[:1] else None


def _with_spans(encoding: tokenizers.Encoding) -> Encoding:
  spans = np.asarray(encoding.offsets, np.int32).reshape(-1, 2)
  starts, ends = spans[:, 0], spans[:, 1]
  # A post-processor may have trimmed the space off a token, or a token of spaces
  # down to nothing.
  before = np.concatenate([[0], np.maximum.accumulate(ends)[:-1]])[: len(ends)]
  starts = np.minimum(starts, before).astype(np.int32)
  return Encoding(np.asarray(encoding.ids, np.int32), starts, ends)


class SentencePieceEncoder:
  """The library behind `tokenizer.model`, and added tokens.

  Text without an added token gets exactly the ids that the library gives. Control
  pieces (`<s>`, `[INST]`), which the library never makes from text, and added tokens
  are cut out first. The space that a model puts in front of a text (`add_dummy_prefix`)
  stands in front of the text only; with `legacy`, as in transformers, in front of what
  follows an added token too.
  """

  def __init__(
    self, path: pathlib.Path, added: Sequence[AddedToken] = (), *, legacy: bool = False
  ):
    from sentencepiece import sentencepiece_model_pb2 as model_pb2

    try:
      self.inner = sentencepiece.SentencePieceProcessor(model_file=str(path))
      proto = model_pb2.ModelProto.FromString(path.read_bytes())
    except Exception as error:  # OSError, RuntimeError, protobuf's own
      raise UserError(f"{path} is not a SentencePiece model ({error})") from None
    self.prefixes = proto.normalizer_spec.add_dummy_prefix
    self.inside = self.inner  # for what follows an added token
    if self.prefixes and not legacy:
      proto.normalizer_spec.add_dummy_prefix = False
      self.inside = sentencepiece.SentencePieceProcessor(
        model_proto=proto.SerializeToString()
      )
    control = [AddedToken(p.piece) for p in proto.pieces if p.type == _CONTROL]
    tokens = {token.content: token for token in (*control, *added)}
    self.added = {
      content: index
      for content, token in tokens.items()
      if (index := self._index(token)) is not None
    }
    self.names = {index: content for content, index in self.added.items()}
    # At one place the longest token wins.
    self.cut_out = sorted(self.added, key=len, reverse=True)
    self.pattern = _pattern([tokens[content] for content in self.cut_out])

  def _index(self, token: AddedToken) -> int | None:
    return self._piece_id(token.content) if token.index is None else token.index

  def _piece_id(self, piece: str) -> int | None:
    found = self.inner.piece_to_id(piece)
    return found if self.inner.id_to_piece(found) == piece else None

  def vocab_size(self) -> int:
    return max([self.inner.vocab_size() - 1, *self.names]) + 1

  def encode(self, text: str) -> Encoding:
    rows: list[tuple[int, int, int]] = []
    at = 0
    for match in self.pattern.finditer(text):
      rows += self._pieces(text, at, match.start())
      found = match.group()  # with the white space that it swallowed
      index = self.added.get(found, self.added.get(found.strip()))
      rows.append((index, match.start(), match.end()))
      at = match.end()
    rows += self._pieces(text, at, len(text))
    table = np.asarray(rows, np.int32).reshape(-1, 3)
    return Encoding(table[:, 0], table[:, 1], table[:, 2])

  def encode_batch(self, texts: Sequence[str]) -> list[Encoding]:
    """Returns what `encode` does for each."""
    return [self.encode(text) for text in texts]

  def encode_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
    """Returns the ids of each text; those without an added token on all cores."""
    plain = [text for text in texts if not self.pattern.search(text)]
    found = iter(self.inner.encode(plain, num_threads=os.cpu_count()))
    return [
      self.encode(text).ids
      if self.pattern.search(text)
      else np.asarray(next(found), np.int32)
      for text in texts
    ]

  def _pieces(self, text: str, start: int, end: int) -> list[tuple[int, int, int]]:
    """Returns (id, start, end) of the pieces of a part of `text`, in characters."""
    if start == end:
      return []
    encoder = self.inner if start == 0 else self.inside
    part = text[start:end]
    pieces = encoder.encode(part, return_type="proto").pieces
    # The library counts bytes of UTF-8.
    sizes = [len(character.encode("utf-8")) for character in part]
    character_at = [*np.repeat(np.arange(start, end), sizes).tolist(), end]
    rows = [(p.id, character_at[p.begin], character_at[p.end]) for p in pieces]
    # Of a character's bytes only the last piece has the span.
    for i in range(len(rows) - 2, -1, -1):
      index, first, last = rows[i]
      if first == last and encoder.is_byte(index):
        rows[i] = (index, first, rows[i + 1][2])
    return rows

  def goes_on(self) -> bool:
    """Says whether the two parts of a text may be encoded one after the other."""
    return not self.prefixes

  def decode(self, ids: list[int]) -> str:
    parts, pending = [], b""
    for index in ids:
      byte = self._byte(index)
      if byte is not None:
        pending += byte
        continue
      parts += [_characters(pending), self.token_text(index)]
      pending = b""
    text = "".join([*parts, _characters(pending)])
    return text.removeprefix(" ") if self.prefixes else text

  def _byte(self, index: int) -> bytes | None:
    if index in self.names or not 0 <= index < self.inner.vocab_size():
      return None
    if not self.inner.is_byte(index):
      return None
    return bytes([int(self.inner.id_to_piece(index)[3:-1], 16)])  # <0x0A>

  def token_text(self, index: int) -> str:
    """Returns the text of one token, control pieces by their name."""
    if index in self.names:
      return self.names[index]
    if not 0 <= index < self.inner.vocab_size():
      return ""
    return self.inner.id_to_piece(index).replace(SPACE, " ")

  def token_id(self, token: str) -> int | None:
    return self.added.get(token, self._piece_id(token))

  def is_added(self, index: int) -> bool:
    """Says whether a token is cut out of a text, as special tokens are."""
    return index in self.names

  def begins(self) -> int | None:
    """Returns None: such a file does not say what a text begins with."""
    return None


def _pattern(tokens: Sequence[AddedToken]) -> re.Pattern[str]:
  """Returns what finds added tokens in a text; at one place the longest wins."""
  if not tokens:
    return re.compile("(?!)")
  longest_first = sorted(tokens, key=lambda token: -len(token.content))
  pattern = "|".join(map(_regex, longest_first))
  if any(token.lstrip or not token.content for token in tokens):
    return re.compile(pattern)
  # Hundreds of alternatives are only tried where one of them can begin.
  first = "".join(sorted({re.escape(token.content[0]) for token in tokens}))
  return re.compile(f"(?=[{first}])(?:{pattern})")


def _regex(token: AddedToken) -> str:
  body = re.escape(token.content)
  if token.single_word:
    body = rf"(?<!\w){body}(?!\w)"
  left = r"\s*" if token.lstrip else ""
  right = r"\s*" if token.rstrip else ""
  return f"{left}{body}{right}"


def _characters(data: bytes) -> str:
  """Returns the text of a run of byte pieces; no UTF-8: a mark for each byte."""
  try:
    return data.decode("utf-8")
  except UnicodeDecodeError:
    return "\ufffd" * len(data)


@functools.cache
def _byte_of_character() -> dict[str, int]:
  """Returns which byte each character of a byte-level vocabulary stands for.

  Printable bytes of Latin-1 stand for themselves, the others follow from 256 on.
  """
  printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in printable]
  return {chr(byte): byte for byte in printable} | {
    chr(256 + i): byte for i, byte in enumerate(others)
  }
