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
from msm_jax.storage import bucket, locks, transfers

_INDEX = "index.json"
_NEW = ".new"  # what is not whole yet
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
  said = f"{url}: another process downloads it; waiting"
  with contextlib.ExitStack() as stack, locks.alone(home / "lock", said):
    held = stack.enter_context(open(version.with_suffix(".held"), "w"))
    locks.take(held, fcntl.LOCK_SH)
    if not _is_sound(version, name, entries):
      _fill(version, url, name, entries)
    _forget_others(version)
    stack.pop_all()  # from now on it is the caller's to close
  return version / name, held


def check_room(url: str, size: int, place: pathlib.Path, variable: str) -> None:
  """Raises a UserError if `size` bytes more of `url` are too many for a disk.

  Args:
    place: a directory there.
    variable: of the environment, that names another.
  """
  free = shutil.disk_usage(place).free
  if size > free:
    raise UserError(
      f"{url} is {size / 1e9:.1f} GB more than lies at {place}, which has "
      f"{free / 1e9:.1f} GB free: make room, or set {variable} to another disk"
    )


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
  check_room(url, total, part, "MSM_JAX_CACHE")
  urls = {key: bucket.join(url, key) if key else url for key in wanted}
  with contextlib.ExitStack() as stack:
    new = stack.enter_context(scratch(part / _NEW))
    shown = None
    if total > _SAID_BYTES:
      shown = stack.enter_context(progress.Megabytes(f"download {url}", total))
    transfers.download_all(
      {urls[key]: entry for key, entry in wanted.items()},
      {urls[key]: _place(part, name, key) for key in wanted},
      new,
      shown,
    )
  index = {key: _told(entry) for key, entry in entries.items()}
  (part / _INDEX).write_text(json.dumps(index), "utf-8")
  os.replace(part, version)


@contextlib.contextmanager
def scratch(directory: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields an empty directory, and removes it: also what a killed process left."""
  shutil.rmtree(directory, ignore_errors=True)
  directory.mkdir(parents=True)
  try:
    yield directory
  finally:
    shutil.rmtree(directory, ignore_errors=True)


def _link_unchanged(
  version: pathlib.Path, name: str, entries: Mapping[str, bucket.Entry]
) -> None:
  """Links files of the same generation from versions before."""
  part = version.with_suffix(".part")
  for path in version.parent.glob(f"*/{_INDEX}"):
    try:
      index = json.loads(path.read_text("utf-8"))
    except ValueError:  # the machine stopped before it was on the disk
      continue
    for key, entry in entries.items():
      new, old = _place(part, name, key), _place(path.parent, name, key)
      same = index.get(key) == _told(entry) and _is_whole(old, entry)
      if same and not new.exists():
        new.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # no links there: downloaded again
          os.link(old, new)


def _forget_others(version: pathlib.Path) -> None:
  """Deletes the other versions that no process holds."""
  for path in version.parent.iterdir():
    if not path.is_dir() or path.stem == version.stem:
      continue
    with open(path.with_suffix(".held"), "w") as held:
      if locks.take(held, fcntl.LOCK_EX | fcntl.LOCK_NB) is not True:
        continue
      shutil.rmtree(path, ignore_errors=True)
      path.with_suffix(".held").unlink(missing_ok=True)


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
