"""What an error of a library means: disk, bucket, memory, another process lost."""

import contextlib
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
NO_ANSWER = "no answer from the bucket"
_TO_TRY_AGAIN = {408, 429, *range(500, 600)}
_REFUSED = {401, 403}
# The bases, by name, of what the libraries raise that speak to a bucket: aiohttp,
# requests, google-auth, google-api-core.
_UNREACHED = {"ClientError", "RequestException", "TransportError", "RetryError"}
_UNREACHED_TEXTS = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "CURL error")  # TensorStore
_REFUSED_TEXTS = ("Forbidden: ", "PERMISSION_DENIED", "UNAUTHENTICATED")


def no_answer(error: BaseException | None) -> str:
  """Returns a phrase that begins with NO_ANSWER if a bucket cannot be reached or is not
  itself for now, else "".
  """
  for each in _chain(error):
    kinds = {kind.__name__ for kind in type(each).__mro__}
    if (
      isinstance(each, ConnectionError | TimeoutError)
      or _status(each) in _TO_TRY_AGAIN
      or (kinds & _UNREACHED and _status(each) is None)
      or any(text in str(each) for text in _UNREACHED_TEXTS)
    ):
      said = " ".join(str(each).split())[:100]
      return f"{NO_ANSWER} ({said or type(each).__name__})"
  return ""


def no_leave(error: BaseException | None) -> str | None:
  """Returns what a bucket said when it did not let us, None if it did."""
  for each in _chain(error):
    if _status(each) in _REFUSED or str(each).startswith(_REFUSED_TEXTS):
      return " ".join(str(each).split())[:120]
  return None


def _status(error: BaseException) -> int | None:
  """Returns the HTTP status that an error stands for, if any."""
  for name in ("code", "status"):
    with contextlib.suppress(TypeError, ValueError):
      return int(getattr(error, name, None))
  return None


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
