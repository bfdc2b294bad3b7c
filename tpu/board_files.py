"""Names -> bytes, in a bucket or in a directory that all machines share."""

import contextlib
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Protocol

from msm_jax.storage import bucket, service


class Unreachable(Exception):
  """The board does not answer (now); what was asked may or may not be done."""


class Files(Protocol):
  """Names -> bytes, in a bucket or a directory. Raises `Unreachable`."""

  url: str

  def read(self, name: str) -> bytes | None:
    """Returns what is there, None if there is nothing."""

  def write(self, name: str, data: bytes) -> None:
    """Replaces what is there, in one go."""

  def delete(self, name: str) -> None:
    """Removes what is there, if anything."""

  def make(self) -> None:
    """Makes the place itself, where that is needed."""


class Directory:
  """Files in a directory that all machines share.

  A root that is gone was unmounted, say, and is never made by a write.
  """

  def __init__(self, root: str | os.PathLike[str]):
    self.root = pathlib.Path(root)
    self.url = str(self.root)

  def make(self) -> None:
    """Makes the directory and the one above; what is above that must be there.

    Else this is a file system that is not mounted (now).
    """
    try:
      self.root.parent.mkdir(exist_ok=True)
      self.root.mkdir(exist_ok=True)
    except OSError as error:
      raise Unreachable(str(error)) from None

  def read(self, name: str) -> bytes | None:
    """Returns the content of a file."""
    for _ in range(2):  # the root may come back between not finding and looking why
      try:
        return (self.root / name).read_bytes()
      except FileNotFoundError:
        self._needed()
      except OSError as error:
        raise Unreachable(str(error)) from error
    return None

  def write(self, name: str, data: bytes) -> None:
    """Writes a sibling and renames it."""
    path = self.root / name
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
      for parent in reversed(path.relative_to(self.root).parents):
        if parent != pathlib.Path("."):
          (self.root / parent).mkdir(exist_ok=True)
      new.write_bytes(data)
      new.replace(path)
    except OSError as error:
      raise Unreachable(str(error)) from error

  def delete(self, name: str) -> None:
    """Removes a file."""
    try:
      (self.root / name).unlink(missing_ok=True)
    except OSError as error:
      raise Unreachable(str(error)) from error
    self._needed()

  def _needed(self) -> None:
    if not self.root.is_dir():
      raise Unreachable(f"{self.root} is not there")


class Bucket:
  """Files below a gs:// URL."""

  def __init__(self, url: str):
    self.url = url.rstrip("/")
    # Whoever looks at a board looks again soon; the command is not hurried by that.
    os.environ.setdefault("MSM_JAX_BUCKET_PATIENCE_S", "20")

  def make(self) -> None:
    """Does nothing: a bucket has no directories."""

  def read(self, name: str) -> bytes | None:
    """Returns what an object holds."""
    with _answered():
      try:
        return bucket.read_bytes(bucket.join(self.url, name))
      except service.NoBucket:
        raise
      except bucket.NotFound:
        return None

  def write(self, name: str, data: bytes) -> None:
    """Writes an object."""
    with _answered():
      bucket.write_bytes(bucket.join(self.url, name), data)

  def delete(self, name: str) -> None:
    """Deletes an object."""
    with _answered():
      bucket.delete(bucket.join(self.url, name))


@contextlib.contextmanager
def _answered() -> Iterator[None]:
  try:
    yield
  except bucket.Unreachable as error:
    raise Unreachable(str(error)) from error
