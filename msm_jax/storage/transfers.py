"""Files of this machine to and from a bucket, large ones in parts, many at a time."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msm_jax import progress
from msm_jax.storage import bucket, service, threads

PART = 16 * 2**20  # bytes of one request; of uploads a multiple of 256 KiB


def upload(
  path: str | os.PathLike[str], url: str, if_generation: int | None = None
) -> bucket.Entry:
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
    return bucket.write_bytes(url, path.read_bytes(), if_generation)
  host, name = bucket.split(url)
  about = bucket.about_upload(name, bucket.crc32c_of(path))
  params = {"uploadType": "resumable", **bucket.precondition(if_generation)}

  def send() -> Mapping[str, Any]:
    body, kind = json.dumps(about).encode(), {"Content-Type": "application/json"}
    at = f"upload/{bucket.objects_at(host)}"
    begun = service.ask(url, "POST", at, params, kind, body)[0]
    return _send_parts(url, begun["location"], path, size)

  return bucket.written(url, send, about)


def download_all(
  entries: Mapping[str, bucket.Entry],
  paths: Mapping[str, pathlib.Path],
  scratch: pathlib.Path,
  shown: progress.Progress | None = None,
  landed: Callable[[str], object] = lambda url: None,
) -> None:
  """Downloads objects to files, several parts at a time.

  A file is there only when it holds what the bucket says; what came before an error
  stays.

  Args:
    entries: by URL.
    paths: of the files, by URL.
    scratch: a directory on the same disk, for files that are not whole yet.
    shown: counts bytes.
    landed: is told, from any thread, the URL of each that is there.

  Raises:
    NotFound: an object was replaced or deleted meanwhile.
  """
  for url, entry in entries.items():
    bucket.check_encoding(url, entry.encoding)

  def get(url: str) -> None:
    for is_first in (True, *[False] * (bucket.TRIES - 1)):
      with _unfinished(scratch) as temporary:
        _fill(url, entries[url], temporary, pool, shown if is_first else None)
        if bucket.crc32c_of(temporary) == entries[url].crc32c:
          paths[url].parent.mkdir(parents=True, exist_ok=True)
          os.replace(temporary, paths[url])
          landed(url)
          return
    raise bucket.damaged(url)

  # Files wait for their parts, so each kind has threads of its own.
  with threads.pool() as pool, threads.pool() as files:
    threads.each(files, get, entries)


def upload_all(
  paths: Mapping[str, pathlib.Path],
  shown: progress.Progress | None = None,
  *,
  new: bool = False,
) -> None:
  """Uploads files (URL -> path), several at a time; `shown` counts bytes.

  Raises:
    Changed: there is one already, where all are to be `new`.
  """

  def put(url: str) -> None:
    upload(paths[url], url, 0 if new else None)
    if shown is not None:
      shown.advance(paths[url].stat().st_size)

  with threads.pool() as pool:
    threads.each(pool, put, paths)


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
      except bucket.NotFound as error:  # the upload was given up; another begins
        raise service.NotAsSent from error
      if body:
        return json.loads(body)
      start = int(headers["range"].partition("-")[2]) + 1 if "range" in headers else 0


def _fill(
  url: str,
  entry: bucket.Entry,
  path: pathlib.Path,
  pool: concurrent.futures.Executor,
  shown: progress.Progress | None,
) -> None:
  """Writes an object into a file, its parts in any order."""
  at = bucket.object_at(*bucket.split(url))
  params = {"alt": "media", "generation": str(entry.generation)}
  with path.open("wb") as file:
    file.truncate(entry.size)

    def get(start: int) -> None:
      end = min(start + PART, entry.size)
      headers = {"Range": f"bytes={start}-{end - 1}", **bucket.AS_IT_IS}
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
def _unfinished(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  handle, name = tempfile.mkstemp(dir=directory)
  os.close(handle)
  os.chmod(name, 0o644)
  try:
    yield pathlib.Path(name)
  finally:
    pathlib.Path(name).unlink(missing_ok=True)
