"""What a fake of Google Cloud Storage holds: buckets of objects with generations.

Objects, preconditions and listings follow the JSON API's reference
(cloud.google.com/storage/docs/json_api/v1/objects), in memory.
"""

import base64
import bisect
import dataclasses
import hashlib
import itertools
import threading
import time
from collections.abc import Mapping
from typing import Any

import google_crc32c


class Refused(Exception):
  """An answer that is an error: `code` and its text."""

  def __init__(self, code: int, message: str):
    super().__init__(message)
    self.code, self.message = code, message


@dataclasses.dataclass(frozen=True)
class Object:
  """One generation of an object."""

  bucket: str
  name: str
  data: bytes
  generation: int
  metageneration: int = 1
  content_type: str = "application/octet-stream"
  content_encoding: str = ""  # gzip: `data` are compressed
  metadata: Mapping[str, str] | None = None
  composed: bool = False  # such objects have no MD5
  created: float = 0.0
  md5: str = ""
  crc32c: str = ""

  def resource(self, base: str) -> dict[str, Any]:
    """Returns the object as the API describes it."""
    at = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(self.created))
    link = f"{base}/storage/v1/b/{self.bucket}/o/{self.name}"
    found = {
      "kind": "storage#object",
      "id": f"{self.bucket}/{self.name}/{self.generation}",
      "selfLink": link,
      "mediaLink": f"{link}?generation={self.generation}&alt=media",
      "name": self.name,
      "bucket": self.bucket,
      "generation": str(self.generation),
      "metageneration": str(self.metageneration),
      "contentType": self.content_type,
      "storageClass": "STANDARD",
      "size": str(len(self.data)),
      "crc32c": self.crc32c,
      "etag": f"{self.generation}/{self.metageneration}",
      "timeCreated": at,
      "updated": at,
    }
    if self.content_encoding:
      found["contentEncoding"] = self.content_encoding
    if self.md5:
      found["md5Hash"] = self.md5
    if self.metadata:
      found["metadata"] = dict(self.metadata)
    return found


class Store:
  """Buckets of objects; one lock for all, as every change is one at a time."""

  def __init__(self, *buckets: str):
    self.buckets: dict[str, dict[str, Object]] = {name: {} for name in buckets}
    self.lock = threading.RLock()
    # Generations grow with time, as the service's do, and never repeat.
    self._generations = itertools.count(int(time.time() * 1e6))

  def names(self, bucket: str) -> list[str]:
    """Returns the names in a bucket, in order."""
    with self.lock:
      return sorted(self._bucket(bucket))

  def read(self, bucket: str, name: str, query: Mapping[str, str]) -> Object:
    """Returns an object whose preconditions hold."""
    with self.lock:
      found = self._bucket(bucket).get(name)
      self._check(found, query, reading=True)
      asked = query.get("generation")
      if found is None or asked not in (None, str(found.generation)):
        raise Refused(404, f"No such object: {bucket}/{name}")
      return found

  def write(
    self, bucket: str, name: str, data: bytes, query: Mapping[str, str], **fields: Any
  ) -> Object:
    """Replaces an object by a new generation of it, if the preconditions hold."""
    if not name:
      raise Refused(400, "Required")
    with self.lock:
      objects = self._bucket(bucket)
      self._check(objects.get(name), query)
      crc32c = google_crc32c.value(data).to_bytes(4, "big")
      md5 = b"" if fields.get("composed") else hashlib.md5(data).digest()
      objects[name] = Object(
        bucket,
        name,
        data,
        next(self._generations),
        created=time.time(),
        md5=base64.b64encode(md5).decode(),
        crc32c=base64.b64encode(crc32c).decode(),
        **fields,
      )
      return objects[name]

  def patch(
    self, bucket: str, name: str, changed: Mapping[str, Any], query: Mapping[str, str]
  ) -> Object:
    """Changes the metadata of an object: the same generation, a new metageneration."""
    with self.lock:
      found = self.read(bucket, name, query)
      self._check(found, query)
      found = dataclasses.replace(
        found,
        metageneration=found.metageneration + 1,
        metadata={**(found.metadata or {}), **changed.get("metadata", {})},
        content_type=changed.get("contentType", found.content_type),
      )
      self._bucket(bucket)[name] = found
      return found

  def delete(self, bucket: str, name: str, query: Mapping[str, str]) -> None:
    """Deletes an object, if the preconditions hold."""
    with self.lock:
      self.read(bucket, name, {k: v for k, v in query.items() if k == "generation"})
      self._check(self._bucket(bucket)[name], query)
      del self._bucket(bucket)[name]

  def compose(
    self, bucket: str, name: str, body: Mapping[str, Any], query: Mapping[str, str]
  ) -> Object:
    """Joins up to 32 objects of a bucket into one."""
    sources = body.get("sourceObjects", [])
    if not 0 < len(sources) <= 32:
      raise Refused(400, "The number of source components is not between 1 and 32.")
    with self.lock:
      parts = [
        self.read(bucket, each["name"], {k: str(v) for k, v in each.items()})
        for each in sources
      ]
      data = b"".join(part.data for part in parts)
      kind = body.get("destination", {}).get("contentType", parts[0].content_type)
      return self.write(bucket, name, data, query, content_type=kind, composed=True)

  def list(
    self, bucket: str, query: Mapping[str, str]
  ) -> tuple[list[Object], list[str], str | None]:
    """Returns a page of objects, of prefixes up to the delimiter, and the next page."""
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    at_most = min(int(query.get("maxResults") or 1000), 1000)
    last = base64.b64decode(query.get("pageToken", "")).decode()
    with self.lock:
      objects = self._bucket(bucket)
      names = sorted(objects)
    start = max(prefix, query.get("startOffset", ""))
    items: list[Object] = []
    prefixes: list[str] = []
    for name in names[bisect.bisect_left(names, start) :]:
      end = query.get("endOffset", "")
      if not name.startswith(prefix) or (end and name >= end):
        break
      cut = name.find(delimiter, len(prefix)) if delimiter else -1
      shown = name if cut < 0 else name[: cut + len(delimiter)]
      if (last and shown <= last) or (prefixes and shown == prefixes[-1]):
        continue
      if len(items) + len(prefixes) == at_most:
        shown = max([*prefixes[-1:], *(each.name for each in items[-1:])])
        return items, prefixes, base64.b64encode(shown.encode()).decode()
      if cut < 0:
        items.append(objects[name])
      else:
        prefixes.append(shown)
    return items, prefixes, None

  def _bucket(self, bucket: str) -> dict[str, Object]:
    if bucket not in self.buckets:
      raise Refused(404, "The specified bucket does not exist.")
    return self.buckets[bucket]

  def _check(
    self, found: Object | None, query: Mapping[str, str], reading: bool = False
  ) -> None:
    """Refuses what the preconditions of a request forbid."""
    generation = found.generation if found else 0
    metageneration = found.metageneration if found else 0
    for name, is_now in (
      ("Generation", generation),
      ("Metageneration", metageneration),
    ):
      wanted, unwanted = query.get(f"if{name}Match"), query.get(f"if{name}NotMatch")
      if wanted is not None and int(wanted) != is_now:
        raise Refused(412, "At least one of the pre-conditions did not hold.")
      if unwanted is not None and int(unwanted) == is_now:
        if reading and found:
          raise Refused(304, "")
        if not reading:
          raise Refused(412, "At least one of the pre-conditions did not hold.")
