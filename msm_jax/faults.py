"""What an error of a library means: the disk, no memory left, another process lost."""

import errno
import os
from collections.abc import Iterator

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
_OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "Out of memory", "CompileTimeHbmOom")
_PEER_LOST = (
  "Connection closed by peer",
  "Connection reset by peer",
  "remote process exited",
  "Socket closed",
)


def of_disk(error: BaseException | None) -> str | None:
  """Returns what the disk refused, if that is at the bottom of `error`.

  Libraries wrap it in errors of their own, so the chain is walked and texts are read.
  """
  for each in _chain(error):
    for number in _DISK:
      if getattr(each, "errno", None) == number or os.strerror(number) in str(each):
        return os.strerror(number)
  return None


def is_lost_peer(error: BaseException | None) -> bool:
  """Returns whether an error of a collective means that another process went away."""
  return any(text in str(each) for each in _chain(error) for text in _PEER_LOST)


def is_out_of_memory(error: BaseException | None) -> bool:
  """Returns whether a device (or the host) had no memory left."""
  if of_disk(error) is not None:  # files have no room left under the same name
    return False
  return any(text in str(each) for each in _chain(error) for text in _OUT_OF_MEMORY)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  seen = set()
  while error is not None and id(error) not in seen:
    seen.add(id(error))
    yield error
    error = error.__cause__ or error.__context__
