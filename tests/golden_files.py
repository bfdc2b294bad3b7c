"""Texts that are compared with files under tests/golden, letter by letter.

MSM_JAX_REWRITE_GOLDEN=1 writes them anew: look at `git diff` then.
"""

import os
import pathlib

_FOLDER = pathlib.Path(__file__).parent / "golden"


def check(name: str, text: str) -> None:
  """Raises an AssertionError unless a text is what tests/golden/NAME holds."""
  path = _FOLDER / name
  if os.environ.get("MSM_JAX_REWRITE_GOLDEN") == "1":
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
  assert text == path.read_text("utf-8"), f"{path}: MSM_JAX_REWRITE_GOLDEN=1 rewrites"
