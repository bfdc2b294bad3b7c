"""A directory that appears complete or not at all, and may take several attempts.

`NAME` is written as `.NAME.partial/new` beside its place and renamed at the end. Who
says what exactly is being written (an identity) finds the files that an attempt before
has finished there; what another attempt left behind is thrown away.

With several processes only the first one writes there; the others get a directory of
their own that nobody looks at.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from msm_jax import distributed, progress, records
from msm_jax.errors import UserError
from msm_jax.hf.stream import Seal

_STAMP, _LOCK, _NEW = "stamp.json", "lock", "new"


class Journal:
  """Which files of a partial directory are finished, by name and seal."""

  def __init__(self, partial: pathlib.Path, identity: Mapping[str, Any]):
    self.partial = partial
    self.stamp: dict[str, Any] = {
      "identity": json.loads(json.dumps(identity)),
      "files": {},
    }

  def is_finished(self, path: pathlib.Path) -> bool:
    """Returns whether a file was finished before and is as it was then."""
    seal = self.stamp["files"].get(path.name)
    return seal is not None and path.is_file() and Seal(**seal).fits(path)

  def add(self, path: pathlib.Path, seal: Seal) -> None:
    """Notes that a file is finished."""
    self.stamp["files"][path.name] = dataclasses.asdict(seal)
    self.write()

  def write(self) -> None:
    """Writes the journal itself."""
    records.write_json(self.partial / _STAMP, self.stamp)


@contextlib.contextmanager
def written_whole(
  directory: str | os.PathLike[str],
) -> Iterator[pathlib.Path]:
  """Yields a temporary directory that becomes `directory` if nothing fails.

  Raises:
    UserError: `directory` holds something already, or cannot be written.
  """
  with resumed(directory, None) as (new, _):
    yield new


@contextlib.contextmanager
def resumed(
  directory: str | os.PathLike[str], identity: Mapping[str, Any] | None
) -> Iterator[tuple[pathlib.Path, Journal | None]]:
  """Like `written_whole`, for what may go on where it was interrupted.

  Args:
    directory: a new directory.
    identity: JSON values that tell what is written from everything else; None starts
      anew each time.

  Yields:
    (where to write, journal of what is finished): the journal is None without an
    identity and on processes other than 0.
  """
  directory = pathlib.Path(directory).absolute()
  with _named_errors(directory):
    if distributed.is_first():
      with _attempt(directory, identity) as found:
        yield found
    else:
      with tempfile.TemporaryDirectory(prefix="msm-jax-unseen-") as name:
        with distributed.together():
          pass
        with distributed.together():
          yield pathlib.Path(name), None
          distributed.agree()


@contextlib.contextmanager
def _attempt(
  directory: pathlib.Path, identity: Mapping[str, Any] | None
) -> Iterator[tuple[pathlib.Path, Journal | None]]:
  partial = directory.with_name(f".{directory.name}.partial")
  with contextlib.ExitStack() as stack:
    with distributed.together():
      _check_new(directory)
      directory.parent.mkdir(parents=True, exist_ok=True)
      stack.enter_context(_locked(partial))
      journal = _begin(partial, identity)
    try:
      with distributed.together():
        yield partial / _NEW, journal
        distributed.agree()  # no process has an error: it may have its name
        os.replace(partial / _NEW, directory)
        _sync(directory.parent)
    except BaseException as error:
      _give_up(partial, journal, error)
      raise
    shutil.rmtree(partial, ignore_errors=True)


def _begin(partial: pathlib.Path, identity: Mapping[str, Any] | None) -> Journal | None:
  """Returns the journal of a partial directory after throwing out what is not in it."""
  new = partial / _NEW
  journal = None if identity is None else Journal(partial, identity)
  before = _stamp(partial)
  if journal is not None and before.get("identity") == journal.stamp["identity"]:
    journal.stamp["files"] = before["files"]
    kept = [name for name in before["files"] if (new / name).is_file()]
    if kept:
      progress.say(f"{partial}: going on, {len(kept)} files are finished")
    _keep_only(new, kept)
  elif new.exists():
    progress.say(f"{partial}: left behind by another attempt, thrown away")
    _keep_only(new, [])
  new.mkdir(exist_ok=True)
  if journal is not None:
    journal.write()
  return journal


def _stamp(partial: pathlib.Path) -> Mapping[str, Any]:
  """Returns what an attempt before has noted, or nothing."""
  try:
    found = records.read_json(partial / _STAMP)
  except (OSError, UserError):
    return {}
  files = found.get("files") if isinstance(found, dict) else None
  fields = {field.name for field in dataclasses.fields(Seal)}
  valid = isinstance(files, dict) and all(
    set(seal) == fields for seal in files.values()
  )
  return found if valid else {}


def _keep_only(new: pathlib.Path, kept: list[str]) -> None:
  if not new.exists():
    return
  for path in new.iterdir():
    if path.name not in kept:
      shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def _give_up(
  partial: pathlib.Path, journal: Journal | None, error: BaseException
) -> None:
  """Removes a failed attempt, but for the files with which the next one can go on."""
  finished = [] if journal is None else list(journal.stamp["files"])
  if finished and not isinstance(error, UserError):
    with contextlib.suppress(OSError):
      _keep_only(partial / _NEW, finished)
    progress.say(
      f"{partial}: {len(finished)} finished files are kept; the same export goes on "
      "with them"
    )
  else:
    shutil.rmtree(partial, ignore_errors=True)


def _check_new(directory: pathlib.Path) -> None:
  if os.path.lexists(directory) and (
    not directory.is_dir() or any(directory.iterdir())
  ):
    raise UserError(f"{directory} exists already: name a new directory, or remove it")


@contextlib.contextmanager
def _locked(partial: pathlib.Path) -> Iterator[None]:
  """Holds a partial directory, which it makes; refuses one that is in use."""
  partial.mkdir(exist_ok=True)
  with open(partial / _LOCK, "w") as lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise UserError(
        f"{partial} is in use: another process writes the same directory; wait for it"
      ) from None
    except OSError:
      pass  # a file system without locks: two writers are the user's to avoid
    if not (partial / _LOCK).exists():
      raise UserError(f"{partial} was just removed by another process: run again")
    yield


@contextlib.contextmanager
def _named_errors(directory: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    if error.errno is None:  # not from the file system
      raise
    raise UserError(
      f"{directory} cannot be written ({error.strerror or error}): name another place, "
      "or make room"
    ) from None


def _sync(directory: pathlib.Path) -> None:
  handle = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(handle)
  finally:
    os.close(handle)
