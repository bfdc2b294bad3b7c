"""A file that is handed to the disk while it is written, and sealed when it is there.

A seal is the size of a file and samples of it. It shows cheaply, right after writing or
in another attempt, that the disk gives back what was written.
"""

import concurrent.futures
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import BinaryIO

_SYNC_BYTES = 64 << 20  # so much may wait in memory for the disk
_SAMPLE = 4096  # bytes at either end of what is written at once


@dataclasses.dataclass(frozen=True)
class Seal:
  """What a file is when it is finished: its size and samples of it."""

  size: int
  places: Sequence[tuple[int, int]]  # offset and length of each sample
  sha256: str  # of the samples

  def fits(self, path: str | os.PathLike[str]) -> bool:
    """Returns whether the file on the disk is as it was when it was sealed."""
    with open(path, "rb", buffering=0) as file:
      handle = file.fileno()
      if hasattr(os, "posix_fadvise"):  # what is still in memory proves nothing
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
      same = os.fstat(handle).st_size == self.size
      samples = (os.pread(handle, size, offset) for offset, size in self.places)
      return same and _digest(samples) == self.sha256


def _digest(samples: Iterable[bytes]) -> str:
  return hashlib.sha256(b"".join(samples)).hexdigest()


class Stream:
  """A file that is handed to the disk while it is written."""

  def __init__(self, file: BinaryIO):
    self.file = file
    self._samples: dict[int, bytes] = {}
    self._size = self._unsynced = 0
    self._syncer = concurrent.futures.ThreadPoolExecutor(1)
    self._syncing: concurrent.futures.Future | None = None

  def write(self, data: memoryview | bytes) -> None:
    """Writes bytes; waits when too many are not on the disk yet."""
    for start in (0, max(0, len(data) - _SAMPLE)):
      self._samples[self._size + start] = bytes(data[start : start + _SAMPLE])
    self.file.write(data)
    self._size += len(data)
    self._unsynced += len(data)
    if self._unsynced >= _SYNC_BYTES:
      self._unsynced = 0
      self._wait()
      self._syncing = self._syncer.submit(os.fdatasync, self.file.fileno())

  def finish(self) -> Seal:
    """Waits until all is on the disk."""
    self._wait()
    self.file.flush()
    os.fsync(self.file.fileno())
    places = tuple((offset, len(data)) for offset, data in self._samples.items())
    return Seal(self._size, places, _digest(self._samples.values()))

  def close(self) -> None:
    """Ends the thread; raises nothing, for what failed has been raised."""
    self._syncer.shutdown(wait=True)

  def _wait(self) -> None:
    if self._syncing is not None:
      syncing, self._syncing = self._syncing, None
      syncing.result()
