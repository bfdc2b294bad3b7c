"""A command called gcloud that answers what a test wrote down, and keeps its orders.

The first line of the script whose pattern is found in the words is the answer, and used
up unless it says 'always'. What has no answer succeeds and prints nothing.
"""

import json
import os
import pathlib
import stat
import sys
from collections.abc import Mapping

from tpu.shell import Shell

_PROGRAM = """#!{python} -IS
import re, shlex, sys
here = {here!r}
words = shlex.join(sys.argv[1:])
with open(here + "/told", "a") as told:
  told.write(words + "\\n")
with open(here + "/script") as file:
  script = eval(file.read())  # quicker than a parser that is imported first
for number, (pattern, answer) in enumerate(script):
  if re.search(pattern, words):
    if not answer.get("always"):
      del script[number]
      with open(here + "/script", "w") as file:
        file.write(repr(script))
    print(answer.get("out", ""))
    print(answer.get("err", ""), file=sys.stderr)
    sys.exit(answer.get("code", 1 if answer.get("err") else 0))
"""


class ScriptedGcloud:
  """The command, in a folder of its own."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder / "gcloud"
    self.folder.mkdir()
    (self.folder / "told").write_text("")
    self.answer()
    program = self.folder / "bin" / "gcloud"
    program.parent.mkdir()
    program.write_text(_PROGRAM.format(python=sys.executable, here=str(self.folder)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)

  def answer(self, *script: tuple[str, Mapping]) -> None:
    """Writes down what is to be answered: (pattern, {out, err, code, always})."""
    lines = [
      (pattern, dict(said) | {"out": _text(said.get("out", ""))})
      for pattern, said in script
    ]
    (self.folder / "script").write_text(repr(lines))

  def told(self) -> list[str]:
    """Returns the commands since the last call."""
    path = self.folder / "told"
    lines = path.read_text().splitlines()
    path.write_text("")
    return lines

  def shell(self) -> Shell:
    """Returns a shell that finds this command."""
    path = f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return Shell(environment={**os.environ, "PATH": path})


def _text(out: object) -> str:
  return out if isinstance(out, str) else json.dumps(out)
