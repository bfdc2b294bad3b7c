"""Requests to Google Cloud Storage: the door to gcsfs.

Of gcsfs this uses the credentials and the connection; the requests are those of the
JSON API (cloud.google.com/storage/docs/json_api/v1), so that how long we wait, what is
compared and what a person reads is decided here. A request is tried again, with
back-off, while the service is busy or the line breaks, for `MSM_JAX_BUCKET_PATIENCE_S`
seconds (default 300). Neither gcsfs nor fsspec is imported before a path is remote.
"""

import asyncio
import concurrent.futures
import contextlib
import functools
import io
import json
import logging
import os
import random
import threading
import time
from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

from msm_jax import exits, progress
from msm_jax.errors import Stopped, UserError

_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.25, 30.0  # between tries
_BUSY = (408, 429, 500, 502, 503, 504)
_CREDENTIALS = (
  "log in with `gcloud auth application-default login`, or name a service account's "
  "key in GOOGLE_APPLICATION_CREDENTIALS"
)
# gcsfs asks for the kind of every bucket over gRPC, which needs another permission and
# waits for minutes where it is not answered; nothing here, nor Orbax, needs to know.
_KIND_OF_BUCKET = "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"


_interrupted = threading.Event()


class NotFound(UserError):
  """There is no such object, or no such bucket."""


class NoBucket(NotFound):
  """There is no such bucket."""


class Changed(UserError):
  """The object is not, or no longer, of the generation that was asked for."""


class Unreachable(Stopped):
  """The service did not answer for as long as we wait: run again to go on."""


class NotAsSent(Exception):
  """The service got other bytes than were sent, or gave an upload up."""


def patience_s() -> float:
  """Returns for how many seconds a request is tried again."""
  given = os.environ.get("MSM_JAX_BUCKET_PATIENCE_S", "300")
  try:
    return float(given)
  except ValueError:
    raise UserError(
      f"MSM_JAX_BUCKET_PATIENCE_S={given} is not a number of seconds"
    ) from None


def check_installed(where: str) -> None:
  """Raises a UserError when gcsfs is not there; `where` is the path that needs it."""
  os.environ.setdefault(_KIND_OF_BUCKET, "false")
  try:
    import gcsfs.core
    import google_crc32c  # noqa: F401, comes with gcsfs
  except ImportError as error:
    raise UserError(
      f"{where}: paths in a bucket need gcsfs ({exits.one_line(error)}): "
      "pip install 'msm-jax[gcs]'"
    ) from None
  # What it raises it also logs; errors are told once.
  logging.getLogger(gcsfs.__name__).setLevel(logging.CRITICAL + 1)


def prepare_libraries(url: str) -> None:
  """Makes Orbax and etils, which reach a bucket through fsspec by themselves, see at
  once what other processes write there.

  Raises:
    UserError: gcsfs is not installed.
  """
  check_installed(url)
  import fsspec.config

  settings = fsspec.config.conf.setdefault("gcs", {})
  settings["use_listings_cache"] = False
  if _is_emulated():
    settings["token"] = "anon"


def ask(
  url: str,
  method: str,
  path: str,
  params: Mapping[str, str],
  headers: Mapping[str, str] | None = None,
  data: bytes | None = None,
) -> tuple[Mapping[str, str], bytes]:
  """Sends a request until it is answered; returns the headers, by their names in lower
  case, and the body.

  Args:
    url: what it is about, for messages.
    method: GET, POST, ...
    path: below the service's address, or a whole address.
    params: of the query.
    headers, data: what goes with it.

  Raises:
    NotFound, Changed, UserError: the service refuses; nobody is asked again.
    NotAsSent: it got other bytes.
    Unreachable: it did not answer in time.
  """
  until, delay_s, said = time.monotonic() + patience_s(), _FIRST_WAIT_S, False
  while True:
    status, reply_headers, body = _send(url, method, path, params, headers, data)
    if isinstance(status, int) and status < 400:
      return reply_headers, body
    if isinstance(status, int) and status not in _BUSY:
      raise _refused(url, status, _message(body))
    if time.monotonic() + delay_s > until:
      raise Unreachable(
        f"{url}: the bucket did not answer ({status}) for {patience_s():g} s; look "
        "after the network, then run again to go on"
      )
    if delay_s > 5 and not said:
      progress.say(f"{url}: no answer ({status}); trying again")
      said = True
    if _interrupted.wait(delay_s * random.uniform(0.5, 1)):
      raise Unreachable(f"{url}: stopped; run again to go on")
    delay_s = min(2 * delay_s, _LONGEST_WAIT_S)


@contextlib.contextmanager
def interrupted() -> Iterator[None]:
  """Has no request of any thread wait for another try inside."""
  _interrupted.set()
  try:
    yield
  finally:
    _interrupted.clear()


def _send(
  url: str,
  method: str,
  path: str,
  params: Mapping[str, str],
  headers: Mapping[str, str] | None,
  data: bytes | None,
) -> tuple[int | str, Mapping[str, str], bytes]:
  """Returns (status, headers, body); the status is a text when there is no answer."""
  check_installed(url)
  import aiohttp
  import gcsfs.retry
  import google.auth.exceptions

  files = _files(os.getpid(), os.environ.get("STORAGE_EMULATOR_HOST"))
  address = path if path.startswith("http") else f"{files._location}/{path}"
  limits = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)

  async def send():
    session = await files._set_session()
    async with session.request(
      method,
      address,
      params=dict(params),
      headers=files._get_headers(headers),
      data=io.BytesIO(data) if data else None,
      timeout=limits,
      allow_redirects=False,  # 308 says how much of an upload has arrived
    ) as reply:
      found = reply.headers  # some come twice, which means the same as a list
      found = {name.lower(): ",".join(found.getall(name)) for name in found}
      return reply.status, found, await reply.read()

  try:
    return _result(url, send(), files.loop)
  except google.auth.exceptions.TransportError as error:
    return exits.one_line(error), {}, b""
  except (
    google.auth.exceptions.GoogleAuthError,
    gcsfs.retry.HttpError,
    gcsfs.retry.NonRetryableError,
  ) as error:
    raise UserError(
      f"{url}: the credentials are not valid ({exits.one_line(error)}): {_CREDENTIALS}"
    ) from None
  except (OSError, TimeoutError, aiohttp.ClientError) as error:
    return f"{type(error).__name__} {exits.one_line(error)}".strip(), {}, b""


def _result(url: str, work: Coroutine, loop: asyncio.AbstractEventLoop) -> Any:
  """Returns what a coroutine returns in a loop of another thread; an interrupt waits
  for no answer.
  """
  future = asyncio.run_coroutine_threadsafe(work, loop)
  try:
    while not _interrupted.is_set():
      if concurrent.futures.wait([future], timeout=0.2).done:
        return future.result()
  finally:
    future.cancel()  # if it is not done
  raise Unreachable(f"{url}: stopped; run again to go on")


@functools.lru_cache(maxsize=4)
def _files(process: int, emulator: str | None) -> Any:
  """Returns the connection of a process to the service (or to an emulator)."""
  import gcsfs.core

  token = "anon" if emulator else None  # None: whatever this machine has
  return gcsfs.core.GCSFileSystem(
    token=token, skip_instance_cache=True, use_listings_cache=False
  )


def _is_emulated() -> bool:
  return bool(os.environ.get("STORAGE_EMULATOR_HOST"))


def _message(body: bytes) -> str:
  """Returns the text of an error of the service."""
  try:
    error = json.loads(body)["error"]
    return exits.one_line(error["message"] if isinstance(error, dict) else error)
  except (ValueError, KeyError, TypeError):
    return exits.one_line(body[:200].decode("utf-8", "replace"))


def _refused(url: str, status: int, message: str) -> Exception:
  """Returns what a refusal means to a person."""
  if status == 412:
    return Changed(f"{url}: somebody else wrote it meanwhile: run again")
  if status in (404, 410):
    if "bucket does not exist" in message:
      return NoBucket(f"{url}: there is no such bucket: check the name, or create it")
    return NotFound(f"{url} does not exist: check the path")
  if status == 401:
    named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if named and not os.path.exists(named):
      message = f"GOOGLE_APPLICATION_CREDENTIALS={named} does not exist"
    return UserError(f"{url}: no credentials ({message}): {_CREDENTIALS}")
  if status == 403:
    return UserError(
      f"{url}: access refused ({message}): grant this account "
      "roles/storage.objectUser on the bucket, or use another account"
    )
  if status == 400 and ("crc32c" in message.lower() or "md5" in message.lower()):
    return NotAsSent(message)
  return UserError(f"{url}: the bucket refuses ({status}: {message}): check the path")
