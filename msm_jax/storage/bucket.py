"""Objects of Google Cloud Storage at gs:// URLs, whole or not at all.

What is sent and what comes is compared by CRC32C. An object appears when it is whole,
and so does a file that is made of one. Requests are tried again for a while (service).
"""

import base64
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import tempfile
import urllib.parse
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msm_jax import progress
from msm_jax.errors import UserError
from msm_jax.storage import service, threads
from msm_jax.storage.service import Changed, NotFound, Unreachable
from msm_jax.storage.urls import is_remote, join, plain, split

__all__ = [
  "Changed",
  "NotFound",
  "Unreachable",
  "is_remote",
  "join",
  "plain",
  "split",
]

PART = 16 * 2**20  # bytes of one request; of uploads a multiple of 256 KiB
_TRIES = 5  # of a transfer that does not hold what was sent
_OURS = "msm-jax-upload"  # metadata that tells an upload of ours from all others
_FIELDS = "size,crc32c,generation,contentEncoding"
_AS_IT_IS = {"Accept-Encoding": "identity"}  # nobody compresses what is compared


@dataclasses.dataclass(frozen=True)
class Entry:
  """One object.

  Attributes:
    size: in bytes.
    crc32c: base64, as the service writes it.
    generation: changes with every write; 0 stands for "not there" in preconditions.
    encoding: of an object that is stored compressed and is served as something else:
      "gzip"; else "".
  """

  size: int
  crc32c: str
  generation: int
  encoding: str = dataclasses.field(default="", compare=False)


def ls(url: str) -> dict[str, Entry]:
  """Returns every object below a URL by its name there (`a/b.txt`), in order.

  Raises:
    NotFound: there is no such bucket. (No object is no error.)
    UserError: no access.
  """
  return _list(url, {})[0]


def level(url: str) -> tuple[dict[str, Entry], list[str]]:
  """Returns (objects, names of folders) right below a URL; as `ls`."""
  return _list(url, {"delimiter": "/"})


def _list(url: str, params: Mapping[str, str]) -> tuple[dict[str, Entry], list[str]]:
  bucket, name = split(url)
  prefix = f"{name}/" if name else ""
  found: dict[str, Entry] = {}
  folders: list[str] = []
  fields = f"nextPageToken,prefixes,items(name,{_FIELDS})"
  params = {"prefix": prefix, "fields": fields, **params}
  while True:
    page = json.loads(service.ask(url, "GET", _objects(bucket), params)[1])
    for each in page.get("items", []):
      if not each["name"].endswith("/"):  # what consoles write for a folder
        found[each["name"].removeprefix(prefix)] = _entry(each)
    folders += [p.removeprefix(prefix).rstrip("/") for p in page.get("prefixes", [])]
    if "nextPageToken" not in page:
      return found, folders
    params["pageToken"] = page["nextPageToken"]


def stat(url: str) -> Entry | None:
  """Returns the object at a URL; None if there is none."""
  bucket, name = split(url)
  if not name:
    return None
  try:
    found = service.ask(url, "GET", _object(bucket, name), {"fields": _FIELDS})[1]
  except service.NoBucket:
    raise
  except NotFound:
    return None
  return _entry(json.loads(found))


def exists(url: str) -> bool:
  """Returns whether there is an object at a URL, or any below it."""
  if stat(url) is not None:
    return True
  bucket, name = split(url)
  params = {"prefix": f"{name}/" if name else "", "maxResults": "1"}
  try:
    page = service.ask(
      url, "GET", _objects(bucket), params | {"fields": "items(name)"}
    )[1]
  except NotFound:
    return False
  return bool(json.loads(page).get("items"))


def read_bytes(url: str) -> bytes:
  """Returns what an object holds, of up to some megabytes.

  Raises:
    NotFound: there is no such object.
  """
  return read(url)[0]


def read(url: str) -> tuple[bytes, int]:
  """Returns (what an object holds, the generation that holds it); as `read_bytes`."""
  at, params = _object(*split(url)), {"alt": "media"}
  for _ in range(_TRIES):
    headers, data = service.ask(url, "GET", at, params, _AS_IT_IS)
    _check_encoding(url, headers.get("x-goog-stored-content-encoding", ""))
    if f"crc32c={_crc32c(data)}" in headers.get("x-goog-hash", ""):
      return data, int(headers["x-goog-generation"])
  raise _damaged(url)


def write_bytes(url: str, data: bytes, if_generation: int | None = None) -> Entry:
  """Writes an object of up to some megabytes; as `upload`."""
  bucket, name = split(url)
  about = {"name": name, "crc32c": _crc32c(data)}
  about["metadata"] = {_OURS: uuid.uuid4().hex}
  mark = b"--" + uuid.uuid4().hex.encode()
  parts = [b"Content-Type: application/json; charset=UTF-8", json.dumps(about).encode()]
  parts = [*parts, b"Content-Type: application/octet-stream", data]
  body = b"%s\r\n%s\r\n\r\n%s\r\n" % (mark, *parts[:2])
  body += b"%s\r\n%s\r\n\r\n%s\r\n%s--" % (mark, *parts[2:], mark)
  kind = f"multipart/related; boundary={mark[2:].decode()}"
  params = {"uploadType": "multipart", **_precondition(if_generation)}

  def send() -> Mapping[str, Any]:
    at = f"upload/{_objects(bucket)}"
    return json.loads(
      service.ask(url, "POST", at, params, {"Content-Type": kind}, body)[1]
    )

  return _written(url, send, about)


def upload(
  path: str | os.PathLike[str], url: str, if_generation: int | None = None
) -> Entry:
  """Uploads a file; the object is there when it is whole, and not before.

  Args:
    path: a local file.
    url: where it goes.
    if_generation: of the object that it replaces; 0: there must be none.

  Raises:
    Changed: the object is of another generation.
    UserError: no access, no such bucket.
    Unreachable: the service did not answer.
  """
  path = pathlib.Path(path)
  size = path.stat().st_size
  if size <= PART // 2:
    return write_bytes(url, path.read_bytes(), if_generation)
  bucket, name = split(url)
  about = {"name": name, "crc32c": crc32c_of(path)}
  about["metadata"] = {_OURS: uuid.uuid4().hex}
  params = {"uploadType": "resumable", **_precondition(if_generation)}

  def send() -> Mapping[str, Any]:
    body, kind = json.dumps(about).encode(), {"Content-Type": "application/json"}
    begun = service.ask(url, "POST", f"upload/{_objects(bucket)}", params, kind, body)[
      0
    ]
    return _send_parts(url, begun["location"], path, size)

  return _written(url, send, about)


def download_all(
  entries: Mapping[str, Entry],
  paths: Mapping[str, pathlib.Path],
  shown: progress.Progress | None = None,
) -> None:
  """Downloads objects (URL -> entry) to files (URL -> path), several parts at a time.

  A file is there only when it holds what the bucket says; what came before an error
  stays. `shown` counts bytes.

  Raises:
    NotFound: an object was replaced or deleted meanwhile.
  """
  for url, entry in entries.items():
    _check_encoding(url, entry.encoding)

  def get(url: str) -> None:
    for is_first in (True, *[False] * (_TRIES - 1)):
      with _unfinished(paths[url]) as temporary:
        _fill(url, entries[url], temporary, pool, shown if is_first else None)
        if crc32c_of(temporary) == entries[url].crc32c:
          os.replace(temporary, paths[url])
          return
    raise _damaged(url)

  # Files wait for their parts, so each kind has threads of its own.
  with threads.pool() as pool, threads.pool() as files:
    threads.each(files, get, entries)


def upload_all(
  paths: Mapping[str, pathlib.Path], shown: progress.Progress | None = None
) -> None:
  """Uploads files (URL -> path), several at a time; `shown` counts bytes."""

  def put(url: str) -> None:
    upload(paths[url], url)
    if shown is not None:
      shown.advance(paths[url].stat().st_size)

  with threads.pool() as pool:
    threads.each(pool, put, paths)


def delete(url: str, if_generation: int | None = None) -> bool:
  """Deletes an object; returns whether it was there.

  Raises:
    Changed: it is of another generation.
  """
  bucket, name = split(url)
  try:
    service.ask(url, "DELETE", _object(bucket, name), _precondition(if_generation))
  except service.NoBucket:
    raise
  except NotFound:
    return False
  return True


def _objects(bucket: str) -> str:
  return f"storage/v1/b/{bucket}/o"


def _object(bucket: str, name: str) -> str:
  return f"{_objects(bucket)}/{urllib.parse.quote(name, safe='')}"


def _entry(found: Mapping[str, str]) -> Entry:
  return Entry(
    int(found["size"]),
    found["crc32c"],
    int(found["generation"]),
    found.get("contentEncoding", ""),
  )


def _check_encoding(url: str, encoding: str) -> None:
  """Refuses what is served as something else than what is stored."""
  if encoding not in ("", "identity"):
    raise UserError(
      f"{url} is stored compressed (Content-Encoding: {encoding}), and is nothing that "
      f"can be compared: store it as it is (gcloud storage cp {url} FILE, then "
      f"gcloud storage cp FILE {url})"
    )


def _precondition(if_generation: int | None) -> dict[str, str]:
  return {} if if_generation is None else {"ifGenerationMatch": str(if_generation)}


def _damaged(url: str) -> Unreachable:
  return Unreachable(
    f"{url}: {_TRIES} times in a row what arrived was not what was sent "
    "(CRC32C); look after the network, then run again to go on"
  )


def _written(
  url: str, send: Callable[[], Mapping[str, Any]], about: Mapping[str, Any]
) -> Entry:
  """Returns the object that `send` wrote, also where the answer to that was lost."""
  for _ in range(_TRIES):
    try:
      found = send()
    except service.NotAsSent:
      continue
    except Changed as error:
      # Ours after all: written at first, then tried again for want of an answer.
      try:
        found = json.loads(service.ask(url, "GET", _object(*split(url)), {})[1])
      except NotFound:
        raise error from None
      if found.get("metadata", {}).get(_OURS) != about["metadata"][_OURS]:
        raise
    return _entry(found)
  raise _damaged(url)


def _send_parts(
  url: str, session: str, path: pathlib.Path, size: int
) -> Mapping[str, Any]:
  """Sends a file to an upload that was begun, from wherever the service has it."""
  start = 0
  with path.open("rb") as file:
    while True:
      file.seek(start)
      data = file.read(PART)
      if not data and start < size:  # it was cut: that would be asked for ever
        raise service.NotAsSent
      span = f"{start}-{start + len(data) - 1}" if data else "*"
      headers = {"Content-Range": f"bytes {span}/{size}"}
      try:
        headers, body = service.ask(url, "PUT", session, {}, headers, data)
      except NotFound as error:  # the upload was given up; another begins
        raise service.NotAsSent from error
      if body:
        return json.loads(body)
      start = int(headers["range"].partition("-")[2]) + 1 if "range" in headers else 0


def _fill(
  url: str,
  entry: Entry,
  path: pathlib.Path,
  pool: concurrent.futures.Executor,
  shown: progress.Progress | None,
) -> None:
  """Writes an object into a file, its parts in any order."""
  at = _object(*split(url))
  params = {"alt": "media", "generation": str(entry.generation)}
  with path.open("wb") as file:
    file.truncate(entry.size)

    def get(start: int) -> None:
      end = min(start + PART, entry.size)
      headers = {"Range": f"bytes={start}-{end - 1}", **_AS_IT_IS}
      data = service.ask(url, "GET", at, params, headers)[1]
      _write_at(file.fileno(), start, data)
      if shown is not None:
        shown.advance(end - start)

    threads.each(pool, get, range(0, entry.size, PART))
    os.fsync(file.fileno())  # else a machine that stops leaves a file of zeros


def _write_at(file: int, start: int, data: bytes) -> None:
  """Writes all of `data`: a disk that is nearly full takes a part of it, and only the
  next write is refused.
  """
  left = memoryview(data)
  while left:
    written = os.pwrite(file, left, start)
    left, start = left[written:], start + written


@contextlib.contextmanager
def _unfinished(path: pathlib.Path) -> Iterator[pathlib.Path]:
  path.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:50]}.")
  os.close(handle)
  os.chmod(name, 0o644)
  try:
    yield pathlib.Path(name)
  finally:
    pathlib.Path(name).unlink(missing_ok=True)


def _crc32c(data: bytes) -> str:
  import google_crc32c

  return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


def crc32c_of(path: pathlib.Path) -> str:
  """Returns the checksum of a file as the service writes it."""
  import google_crc32c

  checksum = google_crc32c.Checksum()
  with path.open("rb") as file:
    while data := file.read(2**20):
      checksum.update(data)
  return base64.b64encode(checksum.digest()).decode()
