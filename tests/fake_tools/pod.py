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
(folder / "pid").write_text(str(process.pid))
code = process.wait()
(folder / "exit.new").write_text(str(code if code >= 0 else 128 - code))
(folder / "exit.new").rename(folder / "exit")
