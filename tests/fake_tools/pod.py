"""Runs a command as a kubelet or a slurmd would: python pod.py FOLDER COMMAND...

FOLDER gets `pid` at its start and `exit` at its end: 128 + N where signal N ended it.
"""

import pathlib
import signal
import subprocess
import sys

signal.signal(signal.SIGTERM, lambda *_: None)  # of the command alone
folder = pathlib.Path(sys.argv[1])
process = subprocess.Popen(sys.argv[2:])


def put(name: str, number: int) -> None:
  """Writes a file that is whole as soon as it is there."""
  new = folder / f"{name}.new"
  new.write_text(str(number))
  new.rename(folder / name)


put("pid", process.pid)
code = process.wait()
put("exit", code if code >= 0 else 128 - code)
