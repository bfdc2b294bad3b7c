"""Parquet, Arrow and zstd files through pyarrow: the one door, an optional extra."""

import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError

_ROWS = 256  # at once
_MAGIC = b"ARROW1"


def require(what: str) -> Any:
  """Returns the module pyarrow, for `what`."""
  try:
    import pyarrow
  except ImportError:
    raise UserError(
      f"{what} needs pyarrow: pip install 'msm-jax[data]' (or pip install pyarrow); "
      ".jsonl and .jsonl.gz need nothing"
    ) from None
  return pyarrow


def open_zstd(path: pathlib.Path) -> tuple[Any, Any]:
  """Returns (a .zst file, the bytes in it as a stream)."""
  arrow = require(f"{path}")
  file = arrow.OSFile(str(path))
  return file, arrow.CompressedInputStream(file, "zstd")


def read(path: pathlib.Path, kind: str) -> Iterator[tuple[dict | str, float]]:
  """Yields (row, share of the file read so far) of a parquet or arrow file.

  A row that cannot be turned into Python is the reason why, as text. Columns of binary
  data are left out.

  Raises:
    UserError: no pyarrow, or the file is damaged.
  """
  arrow = require(f"{path}")
  try:
    yield from (_parquet if kind == "parquet" else _arrow)(arrow, path)
  except (arrow.ArrowException, OSError) as error:
    reason = " ".join(str(error).split())[:200]
    raise UserError(
      f"{path} is no {kind} file or is damaged ({reason}): get it again"
    ) from None


def num_rows(path: pathlib.Path) -> int:
  """Returns how many rows a parquet file says it has."""
  arrow = require(f"{path}")
  try:
    return _open_parquet(path).metadata.num_rows
  except (arrow.ArrowException, OSError) as error:
    reason = " ".join(str(error).split())[:200]
    raise UserError(f"{path} is no parquet file or is damaged ({reason})") from None


def left_out(path: pathlib.Path, kind: str) -> list[str]:
  """Returns the columns of a file that hold binary data."""
  arrow = require(f"{path}")
  try:
    if kind == "parquet":
      schema = _open_parquet(path).schema_arrow
    else:
      with arrow.OSFile(str(path)) as file:
        schema = _open_arrow(arrow, file).schema
  except (arrow.ArrowException, OSError):
    return []  # `read` says what is wrong with it
  return [field.name for field in schema if _is_binary(arrow, field.type)]


def write_parquet(
  path: pathlib.Path,
  rows: Iterable[Mapping[str, Any]],
  columns: Sequence[tuple[str, Any]],
) -> None:
  """Writes rows as one parquet file.

  Args:
    path: of the file.
    rows: column -> value.
    columns: (name, type) as `columns.py` describes them.
  """
  arrow = require("--format=parquet")
  import pyarrow.parquet

  schema = arrow.schema([(name, _type(arrow, kind)) for name, kind in columns])
  with pyarrow.parquet.ParquetWriter(path, schema, compression="zstd") as writer:
    batch: list[Mapping[str, Any]] = []
    for row in rows:
      batch.append(row)
      if len(batch) == _ROWS:
        writer.write_batch(arrow.RecordBatch.from_pylist(batch, schema))
        batch = []
    if batch:
      writer.write_batch(arrow.RecordBatch.from_pylist(batch, schema))


def _type(arrow: Any, kind: Any) -> Any:
  """Returns the Arrow type of a column type: a name, [element] or {field: type}."""
  if isinstance(kind, list):
    return arrow.list_(_type(arrow, kind[0]))
  if isinstance(kind, dict):
    return arrow.struct([(name, _type(arrow, inner)) for name, inner in kind.items()])
  names = {"bool": arrow.bool_, "int64": arrow.int64, "float64": arrow.float64}
  return names.get(kind, arrow.string)()


def _open_parquet(path: pathlib.Path) -> Any:
  import pyarrow.parquet

  # Buffered: a row group of any size is read page by page.
  return pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)


def _parquet(arrow: Any, path: pathlib.Path) -> Iterator[tuple[dict | str, float]]:
  with _open_parquet(path) as file:
    wanted = [f.name for f in file.schema_arrow if not _is_binary(arrow, f.type)]
    total, done = max(file.metadata.num_rows, 1), 0
    for batch in file.iter_batches(_ROWS, columns=wanted, use_threads=False):
      for row in _rows(batch):
        done += 1
        yield row, done / total


def _arrow(arrow: Any, path: pathlib.Path) -> Iterator[tuple[dict | str, float]]:
  size = max(path.stat().st_size, 1)
  with arrow.OSFile(str(path)) as file:
    reader = _open_arrow(arrow, file)
    wanted = [f.name for f in reader.schema if not _is_binary(arrow, f.type)]
    for batch in _batches(arrow, reader):
      for start in range(0, batch.num_rows, _ROWS):
        for row in _rows(batch.select(wanted).slice(start, _ROWS)):
          yield row, file.tell() / size


def _open_arrow(arrow: Any, file: Any) -> Any:
  """Returns a reader of either kind of Arrow file: datasets writes the stream."""
  magic = file.read(len(_MAGIC))
  file.seek(0)
  return arrow.ipc.open_file(file) if magic == _MAGIC else arrow.ipc.open_stream(file)


def _batches(arrow: Any, reader: Any) -> Iterator[Any]:
  if isinstance(reader, arrow.ipc.RecordBatchFileReader):
    yield from map(reader.get_batch, range(reader.num_record_batches))
  else:
    yield from reader


def _rows(batch: Any) -> list[dict | str]:
  try:
    return batch.to_pylist()
  except (UnicodeDecodeError, ValueError, OverflowError):
    return [_row(batch.slice(i, 1)) for i in range(batch.num_rows)]


def _row(batch: Any) -> dict | str:
  try:
    return batch.to_pylist()[0]
  except UnicodeDecodeError:
    return "not UTF-8"
  except (ValueError, OverflowError) as error:  # a date that Python does not have
    return f"not readable ({error})"


def _is_binary(arrow: Any, kind: Any) -> bool:
  types = arrow.types
  if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
    return True
  if types.is_fixed_size_binary(kind):
    return True
  inner = [kind.field(i).type for i in range(kind.num_fields)]
  return any(_is_binary(arrow, one) for one in inner)
