"""`python -m tpu` against a cloud of directories and processes: `fake_tools/gcloud`.

The bucket is `fake_gcs.py`, for boards; code goes through `gcloud storage`.
"""

import json
import os
import pathlib
import subprocess
import sys

import fake_gcs
import fake_hosts

from tpu import board as board_lib

HERE = pathlib.Path(__file__).parent
TOOLS = HERE / "fake_tools"
PLACES = {  # target -> slices by hosts, zone
  "compute": ({2: "v5p:2x2x2", 4: "v5p:2x2x4"}, "us-east5-a"),
  "queued": ({2: "v4-16", 4: "v4-32"}, "us-central2-b"),
}


class FakeCloud:
  """A cloud with one job; a context manager.

  Args:
    root: where all of it lies.
    target: compute or queued.
    num_hosts: of the job.
    timing: of hosts and supervisor, seconds.
    config: of the job.
    workdir: of the job.
    launch: what runs in place of launch.py, if anything.

  Attributes:
    settings: tpu.toml.
    gcs: the bucket.
    board: of the job.
  """

  def __init__(
    self,
    root: pathlib.Path,
    target: str,
    num_hosts: int,
    timing: dict[str, float],
    config: str,
    workdir: str | pathlib.Path,
    launch: list[str] | None = None,
  ):
    self.root, self.target, self.num_hosts = root, target, num_hosts
    self._config, self._workdir = config, workdir
    self.state = root / "cloud"
    self.gcs = fake_gcs.FakeGcs("lab")
    slices, zone = PLACES[target]
    self._slice = slices[num_hosts]
    root.mkdir(parents=True, exist_ok=True)
    self.settings = root / "tpu.toml"
    self.settings.write_text(
      f'bucket = "gs://lab/msm"\nproject = "my-lab-1"\nzone = "{zone}"\n'
      '[environment]\nJAX_PLATFORMS = "cpu"\n'  # there are no TPUs
    )
    self.environment = os.environ | {
      "FAKE_CLOUD": str(self.state),
      "FAKE_LAUNCH": " ".join(launch or []),
      "MSM_JAX_QUIET": "0",
      "MSM_TPU_TIMING": json.dumps(timing),
      "MSM_JAX_BUCKET_PATIENCE_S": "1",
      "PATH": os.pathsep.join(
        [str(TOOLS), str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
      ),
    }

  def __enter__(self) -> "FakeCloud":
    self.gcs.__enter__()
    self.environment |= self.gcs.variables()
    self._served = self.gcs.environment()
    self._served.__enter__()
    self.board = board_lib.open_("gs://lab/msm/jobs/drive")
    return self

  def __exit__(self, *details) -> None:
    for machine in (self.state / "machines").glob("*"):
      fake_hosts.take_away(machine)
    self._served.__exit__(*details)
    self.gcs.__exit__(*details)

  def start(self, verb: str = "run", *flags: str) -> subprocess.Popen:
    """Starts a verb of the command line; its output goes to ROOT/said."""
    argv = [sys.executable, "-m", "tpu", verb, "--name=drive"]
    argv += [f"--settings={self.settings}"]
    if verb == "run":
      argv += [f"--config={self._config}", f"--workdir={self._workdir}"]
      argv += [f"--target={self.target}", f"--slice={self._slice}", "--spot"]
      argv += ["--skip_fit"]
    with (self.root / "said").open("a") as said:
      return subprocess.Popen(
        [*argv, *flags],
        cwd=HERE.parent,
        env=self.environment,
        stdout=said,
        stderr=subprocess.STDOUT,
      )

  def said(self) -> str:
    """Returns what all verbs printed."""
    path = self.root / "said"
    return path.read_text() if path.exists() else ""

  def calls(self) -> list[str]:
    """Returns the commands that the cloud got, without the lines typed on hosts."""
    path = self.state / "calls"
    return path.read_text().splitlines() if path.exists() else []

  def order(self, pattern: str, says: str, when: str = "before") -> None:
    """Lets the next command that fits fail, before or after it did its work."""
    faults = self.state / "faults"
    faults.mkdir(parents=True, exist_ok=True)
    number = len(list(faults.iterdir()))
    fault = {"pattern": pattern, "says": says, "when": when}
    (faults / f"{number:04d}.json").write_text(json.dumps(fault))

  def machines(self) -> list[pathlib.Path]:
    """Returns the machines that are there."""
    found = (self.state / "machines").glob("*")
    return sorted(path for path in found if fake_hosts.exists(path))

  def preempt(self, grace_s: float = 0.0) -> None:
    """Takes all machines away; what asked for them stays, as in the real cloud."""
    marks = {machine: fake_hosts.mark_of(machine) for machine in self.machines()}
    fake_hosts.take_all_away(marks, grace_s)

  def left(self) -> list[str]:
    """Returns what costs or runs: resources and processes."""
    kinds = ("policies", "templates", "groups", "instances", "requests")
    things = [path for kind in kinds for path in (self.state / kind).glob("*")]
    processes = fake_hosts.processes(self.state / "machines")
    return [*map(str, things), *map(str, processes)]
