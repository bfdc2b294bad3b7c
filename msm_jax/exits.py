"""How a command ends: one line for the user, and the exit code.

0 done, 2 the user can fix it, 75 stopped on purpose (run again to go on). Anything else
is a bug and keeps its traceback.
"""

import errno
import os
import sys
from collections.abc import Callable

from msm_jax.errors import Stopped, UserError

USER, STOPPED = 2, 75
ERROR = "error: "  # how the one line of a `UserError` begins
_DISK = {
  errno.ENOSPC: "free some space or choose another --workdir",
  errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
  errno.EDQUOT: "free some space or choose another --workdir",
  errno.EACCES: "mend its permissions or choose another place",
  errno.EROFS: "choose another place",
}


def code_of(work: Callable[[], object], place: Callable[[], str]) -> int:
  """Does `work` and returns the exit code; says on stderr what a person should know.

  Args:
    work: what the command does.
    place: returns where it writes, for refusals of the disk that name no file.
  """
  try:
    work()
  except UserError as error:
    return _tell(USER, ERROR + one_line(error))
  except Stopped as error:
    return _tell(STOPPED, one_line(error))
  except KeyboardInterrupt:
    return _tell(STOPPED, "stopped; run again to go on")
  except Exception as error:
    reason = _reason_of_disk(error, place)
    if reason is None:
      raise
    return _tell(USER, ERROR + reason)
  return 0


def one_line(error: BaseException) -> str:
  """Returns the text of an error without its line breaks."""
  return " ".join(str(error).split())


def _tell(code: int, line: str) -> int:
  print(line, file=sys.stderr)
  return code


def _reason_of_disk(
  error: BaseException | None, place: Callable[[], str]
) -> str | None:
  """Returns what the disk refused, if that is at the bottom of `error`.

  Libraries wrap it in errors of their own, so the chain is walked and texts are read.
  """
  while error is not None:
    for number, way_out in _DISK.items():
      if getattr(error, "errno", None) == number or os.strerror(number) in str(error):
        where = getattr(error, "filename", None) or place()
        return f"{where}: {os.strerror(number)}; {way_out}, then run again to go on"
    error = error.__cause__ or error.__context__
  return None
