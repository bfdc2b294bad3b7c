"""The HTTP side of the fake of Google Cloud Storage: routes, uploads and faults."""

import base64
import collections
import gzip
import hashlib
import http.server
import json
import re
import socket
import struct
import urllib.parse
import uuid
from collections.abc import Callable
from typing import Any

import fake_gcs_store
import google_crc32c
from fake_gcs_store import Refused

# ("METHOD /path?query", how many such requests came before) -> fault ("" for none).
Faults = Callable[[str, int], str]
CHUNK = 256 * 1024  # parts of a resumable upload but the last are multiples of it


def plan(rules: list[list[Any]]) -> Faults:
  """Returns faults from rules: [pattern, the n-th requests that fit it or [], fault].

  Requests are counted from 1 for each rule; no numbers means all of them.
  """
  seen: collections.Counter[int] = collections.Counter()

  def fault(call: str, n: int) -> str:
    for i, (pattern, numbers, what) in enumerate(rules):
      if re.search(pattern, call):
        seen[i] += 1
        if not numbers or seen[i] in numbers:
          return what
    return ""

  return fault


class Server(http.server.ThreadingHTTPServer):
  """Takes connections for a fake service."""

  daemon_threads = True
  request_queue_size = 2048
  fake: Any

  def handle_error(self, request, client_address) -> None:
    """Clients that were killed are part of the tests."""


class Handler(http.server.BaseHTTPRequestHandler):
  """Answers one request; `self.server.fake` is the service."""

  protocol_version = "HTTP/1.1"
  disable_nagle_algorithm = True
  server: Server

  @property
  def fake(self) -> Any:
    return self.server.fake

  def log_message(self, *args) -> None:
    """Nothing is logged."""

  def handle_call(self) -> None:
    fake, (path, _, query) = self.fake, self.path.partition("?")
    self.query = dict(urllib.parse.parse_qsl(query, keep_blank_values=True))
    self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
    if path.startswith("/fake/"):
      return self._script(path)
    self.fault = fake.fault_of(f"{self.command} {self.path}")
    with fake.lock:
      fake.in_flight += 1
      fake.most_in_flight = max(fake.most_in_flight, fake.in_flight)
    try:
      if self._befalls_at_once():
        return None
      return self._answer(path)
    except Refused as error:
      return self.refuse(error.code, error.message)
    finally:
      with fake.lock:
        fake.in_flight -= 1

  do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_call

  def _script(self, path: str) -> None:
    given = json.loads(self.body)
    if path == "/fake/outage":
      self.fake.outage(given["seconds"])
    else:
      self.fake.faults = plan(given)
    self.send(200, b"{}")

  def _befalls_at_once(self) -> bool:
    """Does what befalls a request before it is done; returns whether that is all."""
    fault, _, seconds = self.fault.partition(" ")
    if fault == "slow":
      self.fake.closing.wait(float(seconds))
    elif fault == "reset":
      self.reset()
      return True
    elif fault.isdigit():
      self.refuse(int(fault), "scripted")
      return True
    return False

  def damaged(self, data: bytes) -> bytes:
    """Returns `data` with another last byte, if that is what befalls it."""
    if self.fault != "corrupt" or not data:
      return data
    return data[:-1] + bytes([data[-1] ^ 1])

  def _answer(self, path: str) -> None:
    asked, given = self.fake.token, self.headers.get("Authorization")
    if asked is not None and given != f"Bearer {asked}":
      raise Refused(401, "Anonymous caller does not have storage.objects.get access.")
    for pattern, answer in _ROUTES:
      if found := re.fullmatch(pattern, f"{self.command} {path}"):
        parts = [urllib.parse.unquote(each) for each in found.groups()]
        if parts and parts[0] in self.fake.denied:
          raise Refused(403, "The caller does not have storage.objects.get access.")
        return answer(self, *parts)
    raise Refused(404, f"Not Found: {path}")

  # Buckets.

  def buckets(self) -> None:
    self.send(200, {"kind": "storage#buckets", "items": []})

  def bucket(self, name: str) -> None:
    self.fake.store.names(name)
    self.send(200, {"kind": "storage#bucket", "name": name, "id": name})

  def make_bucket(self) -> None:
    name = json.loads(self.body)["name"]
    if name in self.fake.store.buckets:
      raise Refused(409, "Your previous request to create the bucket succeeded.")
    self.fake.store.buckets[name] = {}
    self.send(200, {"kind": "storage#bucket", "name": name, "id": name})

  # Objects.

  def list(self, bucket: str) -> None:
    items, prefixes, token = self.fake.store.list(bucket, self.query)
    reply = {"kind": "storage#objects"}
    if items:
      reply["items"] = [each.resource(self.fake.url) for each in items]
    if prefixes:
      reply["prefixes"] = prefixes
    if token:
      reply["nextPageToken"] = token
    self.send(200, reply)

  def look(self, bucket: str, name: str) -> None:
    if self.query.get("alt") == "media":
      return self.media(bucket, name)
    return self.describe(self.fake.store.read(bucket, name, self.query))

  def media(self, bucket: str, name: str) -> None:
    found = self.fake.store.read(bucket, name, self.query)
    headers = {
      "X-Goog-Generation": str(found.generation),
      "X-Goog-Metageneration": str(found.metageneration),
      "X-Goog-Stored-Content-Length": str(len(found.data)),
      "X-Goog-Stored-Content-Encoding": found.content_encoding or "identity",
      "X-Goog-Hash": f"crc32c={found.crc32c}" + f",md5={found.md5}" * bool(found.md5),
      "ETag": f'"{found.generation}"',
    }
    if found.content_encoding == "gzip":  # cloud.google.com/storage/docs/transcoding
      if "gzip" not in self.headers.get("Accept-Encoding", ""):
        return self.send(200, gzip.decompress(found.data), headers, found.content_type)
      headers["Content-Encoding"] = "gzip"
    data, size = found.data, len(found.data)
    code, first, last = 200, 0, size - 1
    if asked := re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", "")):
      first, last = (int(part) if part else None for part in asked.groups())
      if first is None:
        first, last = max(size - last, 0), size - 1
      last = size - 1 if last is None else min(last, size - 1)
      if first > last:
        raise Refused(416, "Requested range not satisfiable")
      code, headers["Content-Range"] = 206, f"bytes {first}-{last}/{size}"
    data = self.damaged(data[first : last + 1])
    self.send(code, data, headers, found.content_type)

  def write(self, bucket: str) -> None:
    kind = self.query.get("uploadType", "media")
    if kind == "resumable":
      return self._begin(bucket)
    about, data = {}, self.body
    if kind == "multipart":
      about, data = self._parts()
    name = about.get("name") or self.query.get("name", "")
    kind = about.get("contentType") or self.headers.get("Content-Type")
    data = self.damaged(data)
    check(about, data)
    return self.describe(
      self.fake.store.write(
        bucket,
        name,
        data,
        self.query,
        content_type=kind or "application/octet-stream",
        metadata=about.get("metadata"),
      )
    )

  def delete(self, bucket: str, name: str) -> None:
    self.fake.store.delete(bucket, name, self.query)
    self.send(204, b"")

  def patch(self, bucket: str, name: str) -> None:
    changed = json.loads(self.body)
    self.describe(self.fake.store.patch(bucket, name, changed, self.query))

  def compose(self, bucket: str, name: str) -> None:
    body = json.loads(self.body)
    self.describe(self.fake.store.compose(bucket, name, body, self.query))

  def copy(self, bucket: str, name: str, how: str, into: str, as_name: str) -> None:
    asked = {"generation": self.query.get("sourceGeneration")}
    found = self.fake.store.read(bucket, name, {k: v for k, v in asked.items() if v})
    made = self.fake.store.write(
      into, as_name, found.data, self.query, content_type=found.content_type
    )
    if how == "copyTo":
      return self.describe(made)
    size = str(len(found.data))
    reply = {"kind": "storage#rewriteResponse", "done": True, "objectSize": size}
    resource = made.resource(self.fake.url)
    return self.send(200, {**reply, "totalBytesRewritten": size, "resource": resource})

  def move(self, bucket: str, name: str, as_name: str) -> None:
    with self.fake.store.lock:
      found = self.fake.store.read(bucket, name, {})
      made = self.fake.store.write(
        bucket, as_name, found.data, self.query, content_type=found.content_type
      )
      self.fake.store.delete(bucket, name, {})
    self.describe(made)

  # Resumable uploads: a session, then its parts in order.

  def _begin(self, bucket: str) -> None:
    about = json.loads(self.body or b"{}")
    name = about.get("name") or self.query.get("name", "")
    with self.fake.store.lock:
      self.fake.store.list(bucket, {"maxResults": "1"})
      found = self.fake.store.buckets[bucket].get(name)
      self.fake.store._check(found, self.query)
    key = uuid.uuid4().hex
    kind = self.headers.get("X-Upload-Content-Type", "application/octet-stream")
    self.fake.uploads[key] = {
      "bucket": bucket,
      "name": name,
      "query": self.query,
      "data": bytearray(),
      "about": about,
      "fields": {"content_type": kind, "metadata": about.get("metadata")},
    }
    at = f"{self.fake.url}/upload/storage/v1/b/{bucket}/o?upload_id={key}"
    self.send(200, b"", {"Location": f"{at}&uploadType=resumable"})

  def go_on(self, bucket: str) -> None:
    """Takes the next part of an upload, or says how far it is."""
    if "upload_id" not in self.query:
      return self.write(bucket)
    upload = self.fake.uploads.get(self.query["upload_id"])
    if upload is None:
      raise Refused(404, "No such upload")
    if "done" in upload:  # asked again, because the answer was lost
      return self.describe(upload["done"])
    data, given = upload["data"], self.headers.get("Content-Range", "")
    parsed = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", given)
    if parsed is None:
      raise Refused(400, f"Invalid Content-Range {given!r}")
    first, _, total = parsed.groups()
    if first is not None:
      if int(first) > len(data):
        raise Refused(503, "parts are missing")
      part = self.body[: len(self.body) // 2] if self.fault == "short" else self.body
      if total == "*" and len(self.body) % CHUNK:
        raise Refused(400, "a part that is not the last must be a multiple of 256 KiB")
      data[int(first) :] = self.damaged(part)
    if total.isdigit() and len(data) == int(total):
      check(upload["about"], bytes(data))
      made = self.fake.store.write(
        upload["bucket"],
        upload["name"],
        bytes(data),
        upload["query"],
        **upload["fields"],
      )
      upload["done"] = made
      data.clear()
      return self.describe(made)
    headers = {"Range": f"bytes=0-{len(data) - 1}"} if data else {}
    return self.send(308, b"", headers)

  def give_up(self, bucket: str) -> None:
    """Forgets an upload."""
    self.fake.uploads.pop(self.query.get("upload_id", ""), None)
    self.send(499, b"")

  def _parts(self) -> tuple[dict[str, Any], bytes]:
    """Returns the metadata and the data of a body of two parts."""
    boundary = re.search(r'boundary="?([^";]+)"?', self.headers["Content-Type"])
    mark = b"--" + boundary[1].encode()
    end = b"\r\n" if self.body.startswith(mark + b"\r\n") else b"\n"
    body = self.body[len(mark + end) : self.body.rindex(end + mark + b"--")]
    about, _, data = body.partition(end + mark + end)
    _, _, about = about.partition(end + end)
    _, _, data = data.partition(end + end)
    return json.loads(about), data

  # Answers.

  def describe(self, found: fake_gcs_store.Object) -> None:
    self.send(200, found.resource(self.fake.url))

  def refuse(self, code: int, message: str) -> None:
    error = {"code": code, "message": message, "errors": [{"message": message}]}
    self.send(code, b"" if code == 304 else {"error": error})

  def reset(self) -> None:
    """Ends the connection in the middle of things."""
    linger = struct.pack("ii", 1, 0)  # a reset instead of an orderly end
    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    self.connection.close()
    self.close_connection = True

  def send(self, code: int, data: Any, headers=None, kind="application/json") -> None:
    if self.fault_is("lost"):
      return self.reset()
    if not isinstance(data, bytes):
      data = json.dumps(data).encode()
    self.send_response(code)
    self.send_header("Content-Type", kind)
    if code not in (204, 304):
      self.send_header("Content-Length", str(len(data)))
    for name, value in (headers or {}).items():
      self.send_header(name, value)
    self.end_headers()
    half = self.fault_is("truncate")
    self.wfile.write(data[: len(data) // 2] if half else data)
    self.close_connection = self.close_connection or half
    return None

  def fault_is(self, fault: str) -> bool:
    return getattr(self, "fault", "") == fault


def check(about: dict[str, Any], data: bytes) -> None:
  """Refuses data that are not what their sender says."""
  found = {
    "crc32c": google_crc32c.Checksum(data).digest(),
    "md5Hash": hashlib.md5(data).digest(),
  }
  for name, digest in found.items():
    wanted = about.get(name)
    if wanted not in (None, base64.b64encode(digest).decode()):
      raise Refused(400, f"Provided {name} {wanted} doesn't match calculated {name}.")


_NAME = "/b/([^/]+)"
_OBJECT = f"{_NAME}/o/([^/]+)"
_UPLOAD = f"/(?:upload|resumable/upload)/storage/v1{_NAME}/o"
_ROUTES = [
  ("GET /storage/v1/b", Handler.buckets),
  ("POST /storage/v1/b", Handler.make_bucket),
  (f"GET /storage/v1{_NAME}", Handler.bucket),
  (f"GET /storage/v1{_NAME}/o/?", Handler.list),
  (f"GET /storage/v1{_OBJECT}", Handler.look),
  (f"GET /download/storage/v1{_OBJECT}", Handler.media),
  (f"DELETE /storage/v1{_OBJECT}", Handler.delete),
  (f"(?:PATCH|PUT) /storage/v1{_OBJECT}", Handler.patch),
  (f"POST /storage/v1{_OBJECT}/compose", Handler.compose),
  (f"POST /storage/v1{_OBJECT}/(rewriteTo|copyTo){_OBJECT}", Handler.copy),
  (f"POST /storage/v1{_OBJECT}/moveTo/o/([^/]+)", Handler.move),
  (f"(?:PUT|POST) {_UPLOAD}", Handler.go_on),
  (f"DELETE {_UPLOAD}", Handler.give_up),
]
