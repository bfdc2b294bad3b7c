"""Locks of files: processes of one machine that need the same."""

import contextlib
import errno
import fcntl
import pathlib
from collections.abc import Iterator
from typing import IO

from msm_jax import progress


def take(file: IO[str], how: int) -> bool | None:
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


@contextlib.contextmanager
def alone(path: pathlib.Path, said: str) -> Iterator[None]:
  """Waits until no other process is in such a block, and says so with `said`."""
  with path.open("a") as file:
    if take(file, fcntl.LOCK_EX | fcntl.LOCK_NB) is False:
      progress.say(said)
      take(file, fcntl.LOCK_EX)
    yield
