"""A file to its rows, one at a time: a bad row is a `Bad`, never the end of the file.

Only what makes the rest of a file unreadable is an error: a list that breaks off,
compressed data that ends too early or that grows beyond any text, another encoding.
"""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from data_gen import arrow_files
from data_gen.importing.folders import SourceFile
from msm_jax.errors import UserError

_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_CHUNK = 1 << 20
_EXCERPT = 200  # characters of a bad row that are kept
# Text shrinks to a tenth, repetitive text to a fiftieth; zeros to a thousandth.
_MAX_GROWTH, _FREE_GROWTH = 200, 64 << 20


class Bad(NamedTuple):
  """A row that is none, and why; `excerpt` is how it begins."""

  reason: str
  excerpt: str = ""


# (number from 1, the row as it was parsed, share of the file that is read)
Row = tuple[int, Any, float]


def rows(file: SourceFile, max_bytes: int) -> Iterator[Row]:
  """Yields the rows of a file; those longer than `max_bytes` are `Bad`.

  Raises:
    UserError: the file as a whole cannot be read.
  """
  if file.format in ("json", "jsonl"):
    yield from _json_rows(file, max_bytes)
    return
  for number, (row, share) in enumerate(arrow_files.read(file.path, file.format), 1):
    yield number, (Bad(row) if isinstance(row, str) else row), share


def count(file: SourceFile, max_bytes: int) -> int:
  """Returns how many rows a file has, bad ones included."""
  if file.format == "parquet":
    return arrow_files.num_rows(file.path)
  return sum(1 for _ in rows(file, max_bytes))


class _Stream:
  """The decompressed bytes of a file, watched for bombs."""

  def __init__(self, file: SourceFile):
    self._file, self._num_read = file, 0
    self._raw: Any = None  # below the decompression, where there is one
    if file.compression == "gzip":
      self._raw = file.path.open("rb")
      self._stream: Any = gzip.GzipFile(fileobj=self._raw)
    elif file.compression == "zstd":
      self._raw, stream = arrow_files.open_zstd(file.path)
      self._stream = _Lines(stream)
    else:
      self._stream = file.path.open("rb")

  def __enter__(self) -> "_Stream":
    return self

  def __exit__(self, *_: object) -> None:
    self._stream.close()
    if self._raw is not None:
      self._raw.close()

  @property
  def share(self) -> float:
    """The share of the file that is read."""
    at = self._raw.tell() if self._raw is not None else self._num_read
    return min(at / max(self._file.size, 1), 1.0)

  def readline(self, limit: int) -> bytes:
    """Returns the next line or its first `limit` bytes."""
    return self._watched(self._stream.readline, limit)

  def read(self, limit: int) -> bytes:
    """Returns the next at most `limit` bytes."""
    return self._watched(self._stream.read, limit)

  def _watched(self, read: Any, limit: int) -> bytes:
    try:
      data = read(limit)
    except (EOFError, zlib.error, OSError, ValueError) as error:
      raise UserError(
        f"{self._file.path} cannot be read to its end ({error}): get it again"
      ) from None
    self._num_read += len(data)
    most = _MAX_GROWTH * self._file.size + _FREE_GROWTH
    if self._file.compression and self._num_read > most:
      raise UserError(
        f"{self._file.path} grows to more than {_MAX_GROWTH} times its size, as text "
        "does not: unpack it yourself if you trust it"
      )
    return data


class _Lines:
  """Lines of a stream that knows only `read`."""

  def __init__(self, stream: Any):
    self._stream, self._buffer = stream, b""

  def close(self) -> None:
    self._stream.close()

  def read(self, limit: int) -> bytes:
    data, self._buffer = self._buffer[:limit], self._buffer[limit:]
    return data or self._stream.read(limit)

  def readline(self, limit: int) -> bytes:
    parts, length = [], 0
    while length < limit:
      if not self._buffer:
        self._buffer = self._stream.read(_CHUNK)
      if not self._buffer:
        break
      end = self._buffer.find(b"\n", 0, limit - length) + 1
      end = end or min(len(self._buffer), limit - length)
      parts.append(self._buffer[:end])
      self._buffer = self._buffer[end:]
      length += end
      if parts[-1].endswith(b"\n"):
        break
    return b"".join(parts)


def _json_rows(file: SourceFile, max_bytes: int) -> Iterator[Row]:
  """Yields the rows of JSON lines, or of one JSON list if the file begins with `[`."""
  with _Stream(file) as stream:
    head = stream.readline(_CHUNK)
    if head.startswith(_UTF16):
      raise UserError(f"{file.path} is in UTF-16: convert it to UTF-8")
    head = head.removeprefix(_BOM)
    while file.format == "json" and head and not head.strip():
      head = stream.readline(_CHUNK)
    is_list = file.format == "json" and head.lstrip().startswith(b"[")
    yield from (_elements if is_list else _lines)(file, stream, head, max_bytes)


def _lines(file: SourceFile, stream: _Stream, line: bytes, limit: int) -> Iterator[Row]:
  number = 0
  while line:
    number += 1
    whole = line.endswith(b"\n")
    if not whole and len(line) <= limit:
      line += stream.readline(limit + 1 - len(line))
    if len(line) > limit and not line.endswith(b"\n"):
      yield number, Bad(_too_long(limit), _excerpt(line)), stream.share
      while line and not line.endswith(b"\n"):
        line = stream.readline(_CHUNK)
    elif line.strip():
      yield number, _parse(line), stream.share
    line = stream.readline(min(limit + 1, _CHUNK))


def _too_long(limit: int) -> str:
  return f"longer than {limit >> 20} MB (max_row_mb)"


def _excerpt(data: bytes) -> str:
  return data[:_EXCERPT].decode("utf-8", errors="replace")


def _parse(line: bytes) -> Any:
  try:
    return json.loads(line.decode("utf-8"))
  except UnicodeDecodeError:
    return Bad("not UTF-8", _excerpt(line))
  except RecursionError:
    return Bad("nested too deeply", _excerpt(line))
  except ValueError as error:
    return Bad(f"not JSON ({error})", _excerpt(line))


def _elements(
  file: SourceFile, stream: _Stream, head: bytes, limit: int
) -> Iterator[Row]:
  """Yields the elements of one long JSON list without reading it whole."""
  decoder = json.JSONDecoder()
  text = _Text(file, stream, head)
  text.skip("[")
  number = 0
  while not text.at("]"):
    number += 1
    while True:
      try:
        value, end = decoder.raw_decode(text.buffer, text.start)
        # A number at the very end of what is read may go on.
        if end < len(text.buffer) or not text.more():
          break
      except (ValueError, RecursionError) as error:
        if len(text.buffer) - text.start > limit or not text.more():
          raise UserError(
            f"{file.path}: element {number} of the list is not JSON, or longer than "
            f"{limit >> 20} MB ({error}): mend the file, or convert it to .jsonl, of "
            "which single bad lines are left out"
          ) from None
    text.start = end
    yield number, value, stream.share
    if not text.at("]"):
      text.skip(",")


class _Text:
  """A window on the characters of a long JSON text."""

  def __init__(self, file: SourceFile, stream: _Stream, head: bytes):
    self._file, self._stream = file, stream
    self._decoder = codecs.getincrementaldecoder("utf-8")()
    self.buffer, self.start = self._decode(head), 0

  def more(self) -> bool:
    """Reads as much again as is waiting; returns whether there was more."""
    data = self._stream.read(max(_CHUNK, len(self.buffer) - self.start))
    self.buffer = self.buffer[self.start :] + self._decode(data, final=not data)
    self.start = 0
    return bool(data)

  def _decode(self, data: bytes, final: bool = False) -> str:
    try:
      return self._decoder.decode(data, final)
    except UnicodeDecodeError:
      raise UserError(f"{self._file.path} is not UTF-8: convert it") from None

  def at(self, sign: str) -> bool:
    """Goes past white space; returns whether `sign` comes next."""
    while True:
      while self.start < len(self.buffer) and self.buffer[self.start] in " \t\r\n":
        self.start += 1
      if self.start < len(self.buffer):
        return self.buffer[self.start] == sign
      if not self.more():
        raise UserError(f"{self._file.path} breaks off: its list has no end")

  def skip(self, sign: str) -> None:
    """Goes past `sign`."""
    if not self.at(sign):
      raise UserError(
        f"{self._file.path} is not a JSON list ({sign!r} is missing before "
        f"{self.buffer[self.start : self.start + 20]!r}): mend the file"
      )
    self.start += 1
