"""Puts fakes of command-line tools on a PATH, as scripts of their names."""

import os
import pathlib
import sys
from collections.abc import Mapping

_HERE = pathlib.Path(__file__).parent
_BASICS = ("sh", "bash", "env", "cat", "cp", "mkdir", "mv", "rm", "tar", "sleep", "tr")
_BASICS += ("hostname", "head", "date", "chmod", "ls", "sed", "grep", "test", "touch")
_BASICS += ("gzip", "tail", "wc")


def put(
  folder: pathlib.Path, tools: Mapping[str, str], environment: Mapping[str, str]
) -> dict[str, str]:
  """Returns an environment with these tools and a few of the system's alone on PATH.

  Args:
    folder: where the scripts go.
    tools: name -> the module here that plays it.
    environment: more variables.
  """
  folder.mkdir(parents=True, exist_ok=True)
  for name, player in tools.items():
    script = folder / name
    # Imported, not run: then it is compiled once.
    code = f"import sys; sys.path.insert(0, '{_HERE}'); import {player}"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -S -c "{code}" {name} "$@"\n')
    script.chmod(0o755)
  for name in ("python", "python3"):
    script = folder / name
    script.write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    script.chmod(0o755)
  for name in _BASICS:
    for place in ("/usr/bin", "/bin"):
      if os.path.exists(f"{place}/{name}") and not (folder / name).exists():
        (folder / name).symlink_to(f"{place}/{name}")
  kept = {name: os.environ[name] for name in ("HOME", "USER") if name in os.environ}
  return kept | {"PATH": str(folder), "JAX_PLATFORMS": "cpu"} | dict(environment)
