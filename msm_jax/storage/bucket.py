"""Objects of Google Cloud Storage at gs:// URLs, whole or not at all.

What is sent and what comes is compared by CRC32C. An object appears when it is whole,
and so does a file that is made of one. Requests are tried again for a while (service).
"""

import base64
import dataclasses
import json
import os
import pathlib
import urllib.parse
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from msm_jax.errors import UserError
from msm_jax.storage import service
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

TRIES = 5  # of a transfer that does not hold what was sent
_OURS = "msm-jax-upload"  # metadata that tells an upload of ours from all others
_FIELDS = "size,crc32c,generation,contentEncoding"
AS_IT_IS = {"Accept-Encoding": "identity"}  # nobody compresses what is compared


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
    page = json.loads(service.ask(url, "GET", objects_at(bucket), params)[1])
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
    found = service.ask(url, "GET", object_at(bucket, name), {"fields": _FIELDS})[1]
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
      url, "GET", objects_at(bucket), params | {"fields": "items(name)"}
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
  at, params = object_at(*split(url)), {"alt": "media"}
  for _ in range(TRIES):
    headers, data = service.ask(url, "GET", at, params, AS_IT_IS)
    check_encoding(url, headers.get("x-goog-stored-content-encoding", ""))
    if f"crc32c={_crc32c(data)}" in headers.get("x-goog-hash", ""):
      return data, int(headers["x-goog-generation"])
  raise damaged(url)


def write_bytes(url: str, data: bytes, if_generation: int | None = None) -> Entry:
  """Writes an object of up to some megabytes; returns it.

  Args:
    if_generation: of the object that it replaces; 0: there must be none.

  Raises:
    Changed: the object is of another generation.
    UserError: no access, no such bucket.
    Unreachable: the service did not answer.
  """
  bucket, name = split(url)
  about = about_upload(name, _crc32c(data))
  mark = b"--" + uuid.uuid4().hex.encode()
  parts = [b"Content-Type: application/json; charset=UTF-8", json.dumps(about).encode()]
  parts = [*parts, b"Content-Type: application/octet-stream", data]
  body = b"%s\r\n%s\r\n\r\n%s\r\n" % (mark, *parts[:2])
  body += b"%s\r\n%s\r\n\r\n%s\r\n%s--" % (mark, *parts[2:], mark)
  kind = f"multipart/related; boundary={mark[2:].decode()}"
  params = {"uploadType": "multipart", **precondition(if_generation)}

  def send() -> Mapping[str, Any]:
    at = f"upload/{objects_at(bucket)}"
    return json.loads(
      service.ask(url, "POST", at, params, {"Content-Type": kind}, body)[1]
    )

  return written(url, send, about)


def delete(url: str, if_generation: int | None = None) -> bool:
  """Deletes an object; returns whether it was there.

  Raises:
    Changed: it is of another generation.
  """
  bucket, name = split(url)
  try:
    service.ask(url, "DELETE", object_at(bucket, name), precondition(if_generation))
  except service.NoBucket:
    raise
  except NotFound:
    return False
  return True


def about_upload(name: str, crc32c: str) -> dict[str, Any]:
  """Returns what an upload says of itself: its checksum, and that it is ours."""
  return {"name": name, "crc32c": crc32c, "metadata": {_OURS: uuid.uuid4().hex}}


def objects_at(bucket: str) -> str:
  return f"storage/v1/b/{bucket}/o"


def object_at(bucket: str, name: str) -> str:
  return f"{objects_at(bucket)}/{urllib.parse.quote(name, safe='')}"


def _entry(found: Mapping[str, str]) -> Entry:
  return Entry(
    int(found["size"]),
    found["crc32c"],
    int(found["generation"]),
    found.get("contentEncoding", ""),
  )


def check_encoding(url: str, encoding: str) -> None:
  """Refuses what is served as something else than what is stored."""
  if encoding not in ("", "identity"):
    raise UserError(
      f"{url} is stored compressed (Content-Encoding: {encoding}), and is nothing that "
      f"can be compared: store it as it is (gcloud storage cp {url} FILE, then "
      f"gcloud storage cp FILE {url})"
    )


def precondition(if_generation: int | None) -> dict[str, str]:
  return {} if if_generation is None else {"ifGenerationMatch": str(if_generation)}


def damaged(url: str) -> Unreachable:
  return Unreachable(
    f"{url}: {TRIES} times in a row what arrived was not what was sent "
    "(CRC32C); look after the network, then run again to go on"
  )


def written(
  url: str, send: Callable[[], Mapping[str, Any]], about: Mapping[str, Any]
) -> Entry:
  """Returns the object that `send` wrote, also where the answer to that was lost."""
  for _ in range(TRIES):
    try:
      found = send()
    except service.NotAsSent:
      continue
    except Changed as error:
      # Ours after all: written at first, then tried again for want of an answer.
      try:
        found = json.loads(service.ask(url, "GET", object_at(*split(url)), {})[1])
      except NotFound:
        raise error from None
      if found.get("metadata", {}).get(_OURS) != about["metadata"][_OURS]:
        raise
    return _entry(found)
  raise damaged(url)


def _crc32c(data: bytes) -> str:
  import google_crc32c

  return base64.b64encode(google_crc32c.Checksum(data).digest()).decode()


def crc32c_of(path: pathlib.Path, size: int | None = None) -> str:
  """Returns the checksum of a file, or of its first `size` bytes, as the service
  writes it.
  """
  import google_crc32c

  checksum = google_crc32c.Checksum()
  with path.open("rb") as file:
    left = os.fstat(file.fileno()).st_size if size is None else size
    while data := file.read(min(left, 2**20)):
      checksum.update(data)
      left -= len(data)
  return base64.b64encode(checksum.digest()).decode()
