"""The two ways in which a run ends early without being a bug."""


class UserError(ValueError):
  """Something a person can fix.

  The message names the file, the field, the value and the way out, on one line;
  `launch.py` prints it as `error: ...` and exits with 2.
  """


class Stopped(Exception):
  """The work was stopped on purpose and goes on when run again (exit code 75)."""
