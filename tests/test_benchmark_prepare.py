import pathlib
import re
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parent.parent / "benchmarks" / "prepare.py"


def test_a_plan_is_timed_and_the_peer_is_skipped_where_it_is_not():
  done = subprocess.run(
    [sys.executable, SCRIPT, "--plan=20000"], capture_output=True, text=True, check=True
  )
  planned, skipped, last = done.stdout.splitlines()
  assert planned.startswith("plan: 20000 documents") and skipped.startswith("prepare: ")
  assert re.fullmatch(r"ratio: \d+\.\d\d", last)
