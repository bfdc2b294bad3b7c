"""What flags refuse, and what a config file raised: told to whoever wrote them.

The library (ml_collections.config_flags) wraps some of what a file raises in errors of
its own: in a ValueError that holds a traceback as text, in an OSError that comes when
the config is first looked at. What they wrap still has the traceback.
"""

import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from typing import Any

from absl import flags

from msm_jax.errors import UserError

_LIBRARY = os.path.join("ml_collections", "config_flags", "config_flags.py")
_WRAPPED = "Error whilst parsing config file:"
_INSTALLED = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "purelib"))
_REFUSALS = (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError)


def told(error: BaseException) -> str | None:
  """Returns on one line what is wrong with flags or a config file.

  Of what a config file (or a file of ours that it imports) raised: FILE, line N: KIND:
  words; but of a ValueError that it raises on purpose the words alone, for that is how
  a config speaks to its user.

  Args:
    error: of the parsing of flags, or of a first look at their values.

  Returns:
    None where neither is to blame.
  """
  errors = list(_chain(error))
  for each in errors:
    if isinstance(each, SyntaxError):
      return _placed(each, each.filename, each.lineno, each.msg)
    if frame := _last_frame(each):
      if isinstance(each, ValueError) and (frame.line or "").startswith("raise "):
        return _words(each)
      return _placed(each, frame.filename, frame.lineno, _words(each))
  if any(_WRAPPED in str(each) for each in errors):  # get_config takes no argument
    return _words(errors[-1])
  return _refused(error) if isinstance(error, _REFUSALS) else None


def plain(config: Any) -> dict[str, Any]:
  """Returns what a config file gave as a plain dict.

  Raises:
    UserError: it gave something else than a ConfigDict.
  """
  if not hasattr(config, "to_dict"):
    given = type(config).__name__
    raise UserError(
      f"--config: get_config() returns a {given}: return an ml_collections.ConfigDict"
    )
  return config.to_dict()


def _refused(error: BaseException) -> str:
  said = re.sub(r"^.*\[Errno \d+\] ", "", _words(error))
  if isinstance(error, AttributeError | KeyError):
    said = re.sub(r"""^["']+(\w+)["']+$""", r"the config has no field '\1'", said)
  return said


def _words(error: BaseException) -> str:
  return " ".join(str(error).split())


def _chain(error: BaseException | None) -> Iterator[BaseException]:
  """Yields an error, then what it was raised from or while handling."""
  while error is not None:
    yield error
    error = error.__cause__ or error.__context__


def _last_frame(error: BaseException) -> traceback.FrameSummary | None:
  """Returns where code that the library called raised, as far as it is not a library's
  itself."""
  frames = traceback.extract_tb(error.__traceback__)
  called = [n for n, frame in enumerate(frames) if frame.filename.endswith(_LIBRARY)]
  own = frames[called[-1] + 1 :] if called else []
  return next((frame for frame in reversed(own) if _is_own(frame.filename)), None)


def _is_own(file: str) -> bool:
  return not file.startswith(("<", *_INSTALLED))


def _placed(error: BaseException, file: str | None, line: int | None, said: str) -> str:
  return f"{file}, line {line}: {type(error).__name__}: {said}"
