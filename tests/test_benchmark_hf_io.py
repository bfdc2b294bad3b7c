import pathlib
import re
import subprocess
import sys

SCRIPT = pathlib.Path(__file__).parent.parent / "benchmarks" / "hf_io.py"


def test_import_and_export_are_timed_beside_a_copy(tmp_path):
  options = ["--size=small", "--rounds=1", "--alone", f"--dir={tmp_path}"]
  done = subprocess.run(
    [sys.executable, SCRIPT, *options], capture_output=True, text=True, check=True
  )
  lines = done.stdout.splitlines()
  for name in ("copy", "read", "load", "export"):
    assert any(line.startswith(f"| {name} | ") for line in lines), done.stdout
  assert re.fullmatch(r"ratio: \d+\.\d\d", lines[-1])
  assert list(tmp_path.iterdir()) == []
