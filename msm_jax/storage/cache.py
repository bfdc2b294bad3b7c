"""Where files of a bucket are kept on this machine, one directory per version.

    CACHE/gs/<key of the URL>/url.txt                 for people
    CACHE/gs/<key of the URL>/<version>/<name>        a file, or a tree of files
    CACHE/gs/<key of the URL>/<version>/index.json    what was downloaded
    CACHE/gs/<key of the URL>/<version>.part/         not finished; goes on

A version is what a listing said: names, sizes and generations. It appears when it is
whole, and stays as it is while any process uses it; files that did not change are
linked from the version before, which then goes.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import IO

from msm_jax import progress
from msm_jax.errors import UserError
from msm_jax.storage import bucket

_INDEX = "index.json"
_SAID_BYTES = 64 * 10**6  # larger downloads show how far they are


def directory() -> pathlib.Path:
  """Returns `MSM_JAX_CACHE`, by default ~/.cache/msm-jax."""
  given = os.environ.get("MSM_JAX_CACHE")
  return pathlib.Path(given or "~/.cache/msm-jax").expanduser().absolute()


def fetch(
  url: str, name: str, entries: Mapping[str, bucket.Entry], variant: str
) -> tuple[pathlib.Path, IO[str]]:
  """Returns (where the files lie, what holds them there until it is closed).

  Args:
    url: of what they are below, or of the only one.
    name: of the file or the tree, on this machine as in the bucket.
    entries: by their name below `url`; "" for the only one.
    variant: what of it is wanted, if not all of it.

  Raises:
    NotFound: the bucket changed meanwhile.
    UserError: no room here.
  """
  endpoint = os.environ.get("STORAGE_EMULATOR_HOST", "")
  home = directory() / "gs" / _digest([endpoint, url, variant])
  home.mkdir(parents=True, exist_ok=True)
  (home / "url.txt").write_text(f"{url}\n", "utf-8")
  version = home / _digest([[k, *_told(e)] for k, e in sorted(entries.items())])
  with contextlib.ExitStack() as stack, _locked(home / "lock", url):
    held = stack.enter_context(open(version.with_suffix(".held"), "w"))
    _lock(held, fcntl.LOCK_SH)
    if not _is_sound(version, name, entries):
      _fill(version, url, name, entries)
    _forget_others(version)
    stack.pop_all()  # from now on it is the caller's to close
  return version / name, held


def _fill(
  version: pathlib.Path, url: str, name: str, entries: Mapping[str, bucket.Entry]
) -> None:
  part = version.with_suffix(".part")
  if version.exists():  # something in it is missing or cut short
    shutil.rmtree(part, ignore_errors=True)
    os.replace(version, part)
  (part / name if "" not in entries else part).mkdir(parents=True, exist_ok=True)
  _link_unchanged(version, name, entries)
  wanted = {
    key: entry
    for key, entry in entries.items()
    if not _is_whole(_place(part, name, key), entry)
  }
  total = sum(entry.size for entry in wanted.values())
  free = shutil.disk_usage(part).free
  if total > free:
    raise UserError(
      f"{url} is {total / 1e9:.1f} GB more than lies at {directory()}, which has "
      f"{free / 1e9:.1f} GB free: make room, or set MSM_JAX_CACHE to another disk"
    )
  urls = {key: bucket.join(url, key) if key else url for key in wanted}
  with contextlib.ExitStack() as stack:
    shown = None
    if total > _SAID_BYTES:
      shown = stack.enter_context(progress.Megabytes(f"download {url}", total))
    bucket.download_all(
      {urls[key]: entry for key, entry in wanted.items()},
      {urls[key]: _place(part, name, key) for key in wanted},
      shown,
    )
  index = {key: _told(entry) for key, entry in entries.items()}
  (part / _INDEX).write_text(json.dumps(index), "utf-8")
  os.replace(part, version)


def _link_unchanged(
  version: pathlib.Path, name: str, entries: Mapping[str, bucket.Entry]
) -> None:
  """Links files of the same generation from versions before."""
  part = version.with_suffix(".part")
  for path in version.parent.glob(f"*/{_INDEX}"):
    index = json.loads(path.read_text("utf-8"))
    for key, entry in entries.items():
      new, old = _place(part, name, key), _place(path.parent, name, key)
      same = index.get(key) == _told(entry) and _is_whole(old, entry)
      if same and not new.exists():
        new.parent.mkdir(parents=True, exist_ok=True)
        os.link(old, new)


def _forget_others(version: pathlib.Path) -> None:
  """Deletes the other versions that no process holds."""
  for path in version.parent.iterdir():
    if not path.is_dir() or path.stem == version.stem:
      continue
    with open(path.with_suffix(".held"), "w") as held:
      if _lock(held, fcntl.LOCK_EX | fcntl.LOCK_NB) is not True:
        continue
      shutil.rmtree(path, ignore_errors=True)
      path.with_suffix(".held").unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: pathlib.Path, url: str) -> Iterator[None]:
  with open(path, "w") as lock:
    if _lock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB) is False:
      progress.say(f"{url}: another process downloads it; waiting")
      _lock(lock, fcntl.LOCK_EX)
    yield


def _lock(file: IO[str], how: int) -> bool | None:
  """Returns whether a lock was given; None on a file system that has none."""
  try:
    fcntl.flock(file, how)
  except BlockingIOError:
    return False
  except OSError as error:
    if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
      raise
    return None
  return True


def _is_sound(
  version: pathlib.Path, name: str, entries: Mapping[str, bucket.Entry]
) -> bool:
  return (version / _INDEX).is_file() and all(
    _is_whole(_place(version, name, key), entry) for key, entry in entries.items()
  )


def _is_whole(path: pathlib.Path, entry: bucket.Entry) -> bool:
  try:
    return path.stat().st_size == entry.size
  except OSError:
    return False


def _place(version: pathlib.Path, name: str, key: str) -> pathlib.Path:
  return version / name / key if key else version / name


def _told(entry: bucket.Entry) -> list[str | int]:
  return [entry.generation, entry.size, entry.crc32c]


def _digest(found: object) -> str:
  return hashlib.sha256(json.dumps(found).encode()).hexdigest()[:20]
