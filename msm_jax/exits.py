"""How a command ends: one line for the user, and the exit code.

0 done, 2 the user can fix it, 75 stopped on purpose (run again to go on), 141 whoever
read the output went away (`show PATH | head`; so a shell says of tools that SIGPIPE
ends). Anything else is a bug and keeps its traceback.
"""

import contextlib
import os
import select
import sys
from collections.abc import Callable
from typing import TextIO

from msm_jax import faults
from msm_jax.errors import Stopped, UserError

USER, STOPPED, UNREAD = 2, 75, 128 + 13
ERROR = "error: "  # how the one line of a `UserError` begins


def code_of(work: Callable[[], object], place: Callable[[], str]) -> int:
  """Does `work` and returns the exit code; says on stderr what a person should know.

  Args:
    work: what the command does.
    place: returns where it writes, for refusals of the disk that name no file.
  """
  try:
    work()
    if sys.stdout is not None:
      sys.stdout.flush()  # here, where it can be told that nobody reads what is left
  except UserError as error:
    return _tell(USER, ERROR + one_line(error))
  except Stopped as error:
    return _tell(STOPPED, one_line(error))
  except KeyboardInterrupt:
    return _tell(STOPPED, "stopped; run again to go on")
  except BrokenPipeError:
    if not (_is_unread(sys.stdout) or _is_unread(sys.stderr)):
      raise  # a pipe of ours
    return UNREAD
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
  with contextlib.suppress(BrokenPipeError):
    print(line, file=sys.stderr)
  return code


def _is_unread(stream: TextIO | None) -> bool:
  """Returns whether a stream is a pipe whose other end is closed."""
  asked = select.poll()
  try:
    asked.register(stream.fileno(), 0)  # errors are told whatever is asked for
  except (AttributeError, OSError, ValueError):  # none, closed, or not of the system
    return False
  return any(told & select.POLLERR for _, told in asked.poll(0))


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
