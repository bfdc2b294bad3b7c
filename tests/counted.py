"""What a process that counts (counting_process.py) did, and is told to do."""

import json
import pathlib

_TESTS = pathlib.Path(__file__).parent
# In place of launch.py: counts, instead of training, as far as WORKDIR/goal says.
LAUNCH = f"""
import os, pathlib, runpy, sys
out = pathlib.Path(next(a[10:] for a in sys.argv if a.startswith("--workdir=")))
goal = (out / "goal").read_text() if sys.argv[1] == "run" else "2"
out = out / sys.argv[1]
out.mkdir(exist_ok=True)
os.environ.setdefault("JAX_PROCESS_ID", "0")
assert os.environ["GEMINI_API_KEY"] == "a key"
sys.path[0] = {str(_TESTS)!r}
sys.argv = ["counting_process.py", str(out), goal, "0.02"]
runpy.run_path({str(_TESTS / "counting_process.py")!r}, run_name="__main__")
"""


class Counted:
  """What stands in the directory of a process that counts.

  Attributes:
    counts: that directory, OUT of counting_process.py.
  """

  counts: pathlib.Path

  @classmethod
  def at(cls, counts: pathlib.Path) -> "Counted":
    """Returns what stands in a directory, of whoever counts there."""
    counted = cls()
    counted.counts = counts
    return counted

  def trace(self) -> list[str]:
    """Returns what the processes did, over all their lives."""
    path = self.counts / "trace"
    return path.read_text().splitlines() if path.exists() else []

  def has_counted(self, step: int) -> bool:
    """Returns whether process 0 came to a step."""
    return f"0 step {step}" in self.trace()

  def starts(self, of: int = 0) -> list[int]:
    """Returns from where a process began, each time."""
    lines = [line.split() for line in self.trace()]
    return [int(n) for host, word, n in lines if (host, word) == (str(of), "start")]

  def saved(self) -> int:
    """Returns how far process 0 counted and saved."""
    return json.loads((self.counts / "count").read_text())[0]

  def order(self, *orders: dict) -> None:
    """Has processes fail as counting_process.py says."""
    self.counts.mkdir(exist_ok=True)
    (self.counts / "orders").write_text(json.dumps(orders))

  def hold_at(self, step: int) -> None:
    """Has process 0 stay at a step until `go_on`, or until it is told to stop."""
    self.counts.mkdir(exist_ok=True)
    (self.counts / "hold").write_text(str(step))

  def go_on(self) -> None:
    """Lets process 0 go on."""
    (self.counts / "hold").unlink()
