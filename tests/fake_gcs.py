"""A fake of Google Cloud Storage: its JSON API on a local port, with scripted faults.

Serves gcsfs, TensorStore's `gcs` driver and Orbax on both. In a test:

    with fake_gcs.FakeGcs("bucket") as gcs, gcs.environment():
      ...  # gs://bucket/... is there, for this process and those it starts

As a process, for several that are to outlive each other: `python tests/fake_gcs.py
--bucket=bucket` prints the variables to set, one NAME=VALUE a line, then a blank line;
`PUT /fake/faults` and `PUT /fake/outage` script it from elsewhere.
"""

import argparse
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

# gcsfs asks for the kind of a bucket over gRPC, emulator or not, and waits for minutes;
# it reads this when it is imported, so this comes before.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

import fake_gcs_http
import fake_gcs_store
import fsspec.config
from fake_gcs_http import CHUNK, plan

__all__ = ["CHUNK", "FakeGcs", "plan"]


class FakeGcs:
  """Serves on `url`; a context manager.

  Attributes:
    store: the buckets and objects.
    faults: what befalls a request: a status ('503', '429', '403'), 'reset' (the
      connection), 'lost' (done, but the answer is lost), 'slow 0.5' (seconds),
      'corrupt' (a byte of a body, either way), 'truncate' (half an answer), 'short'
      (half a part of a resumable upload is taken).
    calls: every request, as METHOD /path?query.
    token: what every request must carry as its bearer token, if anything.
    denied: buckets that answer 403.
    most_in_flight: the most requests at a time so far.
  """

  def __init__(
    self,
    *buckets: str,
    faults: fake_gcs_http.Faults = lambda call, n: "",
    port: int = 0,
  ):
    self.store = fake_gcs_store.Store(*buckets)
    self.faults = faults
    self.calls: list[str] = []
    self.token: str | None = None
    self.denied: set[str] = set()
    self.in_flight = self.most_in_flight = 0
    self.uploads: dict[str, dict[str, Any]] = {}
    self.lock = threading.Lock()
    self.closing = threading.Event()
    self._out_until = 0.0
    self._server = fake_gcs_http.Server(("127.0.0.1", port), fake_gcs_http.Handler)
    self._server.fake = self
    self.url = f"http://127.0.0.1:{self._server.server_port}"
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.02,), daemon=True
    )

  def __enter__(self) -> "FakeGcs":
    self._thread.start()
    return self

  def __exit__(self, kind, error, trace) -> None:
    self.closing.set()
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()

  def variables(self) -> dict[str, str]:
    """Returns the environment in which clients reach this and nothing else."""
    host = self.url.removeprefix("http://")
    return {
      "STORAGE_EMULATOR_HOST": self.url,  # gcsfs
      "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
      "FSSPEC_GCS_TOKEN": "anon",
      "TENSORSTORE_GCS_HTTP_URL": self.url,  # TensorStore
      "GOOGLE_AUTH_TOKEN_FOR_TESTING": self.token or "testing",
      # No credentials of this machine: neither files nor the metadata service.
      "GOOGLE_APPLICATION_CREDENTIALS": "",
      "CLOUDSDK_CONFIG": "/nonexistent",
      "NO_GCE_CHECK": "true",
      "GCE_METADATA_HOST": host,
      "GCE_METADATA_ROOT": host,
    }

  @contextlib.contextmanager
  def environment(self) -> Iterator[None]:
    """Sets `variables()` inside, and what fsspec had read of them at its import."""
    before = {name: os.environ.get(name) for name in self.variables()}
    os.environ.update(self.variables())
    settings = fsspec.config.conf.setdefault("gcs", {})
    settings_before = dict(settings)
    settings.update(token="anon", use_listings_cache=False)
    try:
      yield
    finally:
      settings.clear()
      settings.update(settings_before)
      for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
          os.environ[name] = value

  def outage(self, seconds: float) -> None:
    """Resets every connection for so long from now on."""
    self._out_until = time.monotonic() + seconds

  def put(self, bucket: str, name: str, data: bytes, **fields: str) -> None:
    """Puts an object there, past all faults."""
    self.store.write(bucket, name, data, {}, **fields)

  def get(self, bucket: str, name: str) -> bytes:
    """Returns what an object holds, past all faults."""
    return self.store.read(bucket, name, {}).data

  def fault_of(self, call: str) -> str:
    """Notes a request; returns what befalls it."""
    with self.lock:
      self.calls.append(call)
      if time.monotonic() < self._out_until:
        return "reset"
      return self.faults(call, len(self.calls) - 1)


def main() -> None:
  """Serves until stdin ends, so that nothing outlives the process that started it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--port", type=int, default=0)
  parser.add_argument("--bucket", action="append", default=[])
  args = parser.parse_args()
  with FakeGcs(*args.bucket, port=args.port) as fake:
    for name, value in fake.variables().items():
      print(f"{name}={value}")
    print(flush=True)
    sys.stdin.read()


if __name__ == "__main__":
  main()
