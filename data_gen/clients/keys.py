"""Keys from the environment: never in a config, a log or a message."""

import os

from msm_jax import errors


def whole(variable: str) -> str:
  """Returns the key in an environment variable that is set.

  Raises:
    UserError: it has a character that no key has and no header can carry.
  """
  key = os.environ[variable].strip()
  if not (key.isascii() and key.isprintable()):
    raise errors.UserError(
      f"the key in {variable} has a quote of a word processor or another character "
      "that no header can carry: copy it again"
    )
  return key
