"""How a command ends: one line for the user, and the exit code.

0 done, 2 the user can fix it, 75 stopped on purpose (run again to go on). Anything else
is a bug and keeps its traceback.
"""

import os
import sys
from collections.abc import Callable

from msm_jax import faults
from msm_jax.errors import Stopped, UserError

USER, STOPPED = 2, 75
ERROR = "error: "  # how the one line of a `UserError` begins


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
  """Returns what the disk refused, where, and the way out; None if it did not."""
  ways_out = faults.DISK | faults.ACCESS
  found = faults.refused(error, ways_out)
  if found is None:
    return None
  refusal, number = found
  where = getattr(refusal, "filename", None) or place()
  way_out = ways_out[number]
  return f"{where}: {os.strerror(number)}; {way_out}, then run again to go on"
