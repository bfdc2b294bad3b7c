"""Records on disk: ArrayRecord shards beside a manifest. Shared with `data_gen`.

A dataset is a directory:

    manifest.json                  num_records, shards: [{path, num_records, sha256}],
    ... data-00000-of-00002.array_record
    data-00001-of-00002.array_record

A record is a msgpack map with a schema version `v`. Shards are compressed record by
record (`group_size:1`), so that any record is one cheap random read, and their bytes
depend on the records alone: the sha256 of a shard is a content id.

A dataset appears whole or not at all: it is written to a temporary sibling directory,
read back, flushed to disk and renamed. (ArrayRecord itself does not notice a writer
that died: such a file opens as a dataset of zero records.)
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import msgpack
from array_record.python import array_record_module

from msm_jax.errors import UserError

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
_WRITER_OPTIONS = "group_size:1,zstd:3"
_READER_OPTIONS = "readahead_buffer_size:0,max_parallelism:0"
_READ_CHUNK = 1024  # records read at once when streaming

PathLike = str | os.PathLike[str]


def encode(record: Mapping[str, Any]) -> bytes:
  """Returns `record` as bytes, stamped with the schema version."""
  return msgpack.packb({"v": SCHEMA_VERSION, **record}, use_bin_type=True)


def decode(data: bytes) -> dict[str, Any]:
  """Returns the record in `data`, without its schema version."""
  record = msgpack.unpackb(data, raw=False)
  version = record.pop("v", None)
  if version != SCHEMA_VERSION:
    raise UserError(
      f"record has schema version {version}, this code reads {SCHEMA_VERSION}: "
      "make the dataset again with this version"
    )
  return record


def sha256_bytes(data: bytes) -> str:
  """Returns the hex digest of `data`."""
  return hashlib.sha256(data).hexdigest()


def sha256_text(text: str) -> str:
  """Returns the hex digest of `text` in UTF-8."""
  return sha256_bytes(text.encode("utf-8"))


def sha256_json(value: Any) -> str:
  """Returns the hex digest of `value` as canonical JSON."""
  return sha256_text(json.dumps(value, sort_keys=True, separators=(",", ":")))


def sha256_file(path: PathLike) -> str:
  """Returns the hex digest of a file's bytes."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: PathLike, data: bytes) -> None:
  """Writes `data` to `path` so that a reader sees the old file or the new one."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(f".{path.name}.tmp-{os.getpid()}")
  with open(temporary, "wb") as file:
    file.write(data)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def write_json(path: PathLike, value: Any) -> None:
  """Writes `value` as indented JSON, atomically."""
  text = json.dumps(value, indent=1, ensure_ascii=False)
  write_file(path, (text + "\n").encode("utf-8"))


def read_json(path: PathLike) -> Any:
  """Returns the JSON value in `path`; a damaged file is a `UserError`."""
  try:
    return json.loads(pathlib.Path(path).read_text("utf-8"))
  except FileNotFoundError:
    raise
  except (ValueError, UnicodeDecodeError) as error:
    raise UserError(
      f"{path} is not valid JSON ({error}): mend it, or delete it if a run of this "
      "program made it, and run again"
    ) from None


def write_dataset(
  directory: PathLike,
  records: Iterable[Mapping[str, Any]],
  *,
  manifest: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
  records_per_shard: int = 4096,
  extra_files: Mapping[str, bytes | BinaryIO] | None = None,
) -> dict[str, Any]:
  """Writes a whole dataset at once and returns its manifest.

  Args:
    directory: where the dataset appears when it is complete; must not exist yet.
    records: streamed once, in this order.
    manifest: what to say beside `num_records` and `shards`; a function is called when
      all records are written.
    records_per_shard: all shards but the last hold this many.
    extra_files: name -> bytes, written beside the shards; an open file is copied from
      its beginning when all records are written.

  Raises:
    UserError: `directory` exists already.
  """
  directory = pathlib.Path(directory)
  if directory.exists():
    raise UserError(f"{directory} exists already: delete it to make it again")
  directory.parent.mkdir(parents=True, exist_ok=True)
  temporary = directory.with_name(f".{directory.name}.tmp-{os.getpid()}")
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir()
  try:
    shards = _write_shards(temporary, records, records_per_shard)
    whole = {
      **(manifest() if callable(manifest) else manifest),
      "num_records": sum(shard["num_records"] for shard in shards),
      "shards": shards,
    }
    for name, data in (extra_files or {}).items():
      _write_extra(temporary / name, data)
    write_json(temporary / MANIFEST, whole)
    _fsync(temporary)
    os.replace(temporary, directory)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
  return whole


def read_manifest(directory: PathLike) -> dict[str, Any]:
  """Returns the manifest of a dataset; a `UserError` if there is none."""
  path = pathlib.Path(directory) / MANIFEST
  try:
    manifest = read_json(path)
  except FileNotFoundError:
    raise UserError(
      f"{path} does not exist: no complete dataset is there; make it first"
    ) from None
  if not isinstance(manifest, dict) or "shards" not in manifest:
    raise UserError(f"{path} has no field 'shards': delete the directory and rerun")
  return manifest


def shard_paths(directory: PathLike, verify: slice = slice(None)) -> list[str]:
  """Returns the shards of a dataset in order, checked against the manifest.

  `verify` says which of them are checked: all, or a part where others check the rest.

  Raises:
    UserError: naming the shard that is missing, truncated or changed.
  """
  directory = pathlib.Path(directory)
  shards = read_manifest(directory)["shards"]
  for shard in shards[verify]:
    _check_shard(directory / shard["path"], shard)
  return [str(directory / shard["path"]) for shard in shards]


def read_dataset(directory: PathLike, verify: bool = True) -> Iterator[dict[str, Any]]:
  """Yields the records of a dataset in order, checking each shard before it is read."""
  directory = pathlib.Path(directory)
  for shard in read_manifest(directory)["shards"]:
    path = directory / shard["path"]
    if verify:
      _check_shard(path, shard)
    yield from map(decode, read_shard(path, shard["num_records"]))


def read_shard(path: PathLike, num_records: int) -> Iterator[bytes]:
  """Yields the raw records of one shard; a `UserError` names it when it is damaged."""
  reader = array_record_module.ArrayRecordReader(str(path), _READER_OPTIONS)
  try:
    if reader.num_records() != num_records:
      raise UserError(
        f"{path} holds {reader.num_records()} records, its manifest says "
        f"{num_records}: the shard is truncated; delete its directory and rerun"
      )
    for start in range(0, num_records, _READ_CHUNK):
      yield from reader.read(list(range(start, min(start + _READ_CHUNK, num_records))))
  finally:
    if reader.ok():
      reader.close()


def _write_extra(path: pathlib.Path, data: bytes | BinaryIO) -> None:
  if isinstance(data, bytes):
    return write_file(path, data)
  data.seek(0)
  with path.open("wb") as file:
    shutil.copyfileobj(data, file)
  _fsync(path)


def _write_shards(
  directory: pathlib.Path, records: Iterable[Mapping[str, Any]], per_shard: int
) -> list[dict[str, Any]]:
  names: list[str] = []
  counts: list[int] = []
  writer = None
  for record in records:
    if writer is None or counts[-1] == per_shard:
      if writer is not None:
        writer.close()
      names.append(f"part-{len(names):05d}")
      counts.append(0)
      writer = array_record_module.ArrayRecordWriter(
        str(directory / names[-1]), _WRITER_OPTIONS
      )
    writer.write(encode(record))
    counts[-1] += 1
  if writer is not None:
    writer.close()
  return [
    _finish_shard(directory, part, f"data-{i:05d}-of-{len(names):05d}.array_record", n)
    for i, (part, n) in enumerate(zip(names, counts, strict=True))
  ]


def _finish_shard(
  directory: pathlib.Path, part: str, name: str, num_records: int
) -> dict[str, Any]:
  """Gives a written shard its name after every record was read back."""
  path = directory / name
  os.replace(directory / part, path)
  for _ in read_shard(path, num_records):
    pass
  _fsync(path)
  return {"path": name, "num_records": num_records, "sha256": sha256_file(path)}


def _check_shard(path: pathlib.Path, shard: Mapping[str, Any]) -> None:
  if not path.exists():
    raise UserError(
      f"{path} is missing, its manifest lists it: restore it, or delete the directory "
      "and rerun"
    )
  if sha256_file(path) != shard["sha256"]:
    raise UserError(
      f"{path} is truncated or was changed (sha256 differs from its manifest): restore "
      "it, or delete the directory and rerun"
    )


def _fsync(path: pathlib.Path) -> None:
  handle = os.open(path, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
