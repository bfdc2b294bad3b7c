"""What an error of a library means: the disk, no memory left, another process lost."""

import errno
import os
from collections.abc import Iterable, Iterator

# What a disk refuses, and the way out.
DISK = {
  errno.ENOSPC: "free some space or choose another --workdir",
  errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
  errno.EDQUOT: "free some space or choose another --workdir",
  errno.EROFS: "choose another place",
  errno.EIO: "look after the disk or choose another place",
}
ACCESS = {errno.EACCES: "mend its permissions or choose another place"}
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "CompileTimeHbmOom")
_PEER_LOST = (
  "Connection closed by peer",
  "Connection reset by peer",
  "remote process exited",
  "Socket closed",
)


def of_disk(error: BaseException | None) -> str | None:
  """Returns what the disk refused, if that is at the bottom of `error`."""
  found = refused(error, DISK)
  return None if found is None else os.strerror(found[1])


def refused(
  error: BaseException | None, numbers: Iterable[int]
) -> tuple[BaseException, int] | None:
  """Returns the error at the bottom of `error` that is one of `numbers`, and which.

  Libraries wrap it in errors of their own, so the chain is walked and texts are read.
  """
  for each in _chain(error):
    for number in numbers:
      if getattr(each, "errno", None) == number or os.strerror(number) in str(each):
        return each, number
  return None


def is_lost_peer(error: BaseException | None) -> bool:
  """Returns whether an error of a collective means that another process went away."""
  return any(text in str(each) for each in _chain(error) for text in _PEER_LOST)


def is_out_of_memory(error: BaseException | None) -> bool:
  """Returns whether a device (or the host) had no memory left."""
  if of_disk(error) is not None:  # files have no room left under the same name
    return False
  return any(
    isinstance(each, MemoryError) or text in str(each)
    for each in _chain(error)
    for text in _OUT_OF_MEMORY
  )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  seen = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    yield error
    error = error.__cause__ or error.__context__
