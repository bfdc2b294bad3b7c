"""The files of a workdir that go to a bucket, and in which order.

Left out are temporary names (they begin with a dot), `.pieces` (made again from the
corpora) and checkpoints, which are written to the bucket by all hosts themselves. The
compilation cache goes with the rest: a host that was made anew compiles nothing twice.
"""

import os
import pathlib
from collections.abc import Iterable

from msm_jax.storage import bucket

CHECKPOINTS = ("checkpoints", "damaged")  # directories of a run
CACHE = ".xla_cache"
_DOTTED = (CACHE, ".tokenizer.json", ".padding")  # names with a dot that count
_LAST = ("manifest.json", "done.json", "summary.json")  # each says: complete
# What only the host that writes it ever reads.
_OF_FIRST = ("ledger.jsonl", "rejects.jsonl", "metrics.jsonl", "goodput.json")
_OF_FIRST_FOLDERS = ("report", "grader", "tensorboard", "profile")
_APPENDED = (".jsonl", ".in_flight")

Stat = tuple[int, int]  # mtime in ns, size in bytes


def scan(root: pathlib.Path) -> dict[str, Stat]:
  """Returns the files of a mirror that count, by their path below `root`."""
  found: dict[str, Stat] = {}
  pending = [""]
  while pending:
    folder = pending.pop()
    try:
      entries = list(os.scandir(root / folder))
    except (FileNotFoundError, NotADirectoryError):  # renamed meanwhile
      continue
    for entry in entries:
      if not counts(entry.name):
        continue
      path = f"{folder}{entry.name}"
      try:
        if entry.is_dir(follow_symlinks=False):
          pending.append(f"{path}/")
        elif entry.is_file():
          stat = entry.stat()
          found[path] = stat.st_mtime_ns, stat.st_size
      except FileNotFoundError:
        continue
  return found


def counts(name: str) -> bool:
  """Returns whether a file or directory of this name is part of the workdir."""
  return (not name.startswith(".") or name in _DOTTED) and name not in CHECKPOINTS


def is_last(path: str) -> bool:
  """Returns whether a file says that others are complete."""
  return path.rpartition("/")[2] in _LAST


def is_of_first(path: str) -> bool:
  """Returns whether only process 0 ever reads a file."""
  *folders, name = path.split("/")
  return (
    name in _OF_FIRST
    or name.endswith(".in_flight")
    or any(folder in _OF_FIRST_FOLDERS for folder in folders)
  )


def is_appended(path: str) -> bool:
  """Returns whether a file may grow while it is read."""
  return path.endswith(_APPENDED)


def is_note(path: str) -> bool:
  """Returns whether a file is written anew whenever something is read: only whether it
  is there counts. (When JAX last used a compiled program.)
  """
  return path.startswith(f"{CACHE}/") and path.endswith("-atime")


def is_same(path: pathlib.Path, entry: bucket.Entry) -> bool:
  """Returns whether a file holds what an object does."""
  return path.stat().st_size == entry.size and bucket.crc32c_of(path) == entry.crc32c


def has_grown(path: pathlib.Path, entry: bucket.Entry) -> bool:
  """Returns whether a file that is appended to begins with what an object holds."""
  return (
    is_appended(path.name)
    and path.stat().st_size > entry.size
    and bucket.crc32c_of(path, entry.size) == entry.crc32c
  )


def remove_empty(root: pathlib.Path, paths: Iterable[str]) -> None:
  """Removes the directories that `paths` left empty."""
  for path in paths:
    for folder in pathlib.PurePosixPath(path).parents:
      try:
        (root / folder).rmdir() if folder.name else None
      except OSError:  # not empty, or gone
        break
