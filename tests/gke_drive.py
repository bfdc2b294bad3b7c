"""Jobs that count, and a fake cluster of Kubernetes for each."""

import contextlib
import json
import pathlib
import time

import cloud_jobs
import drives
import fake_cluster
from fake_tools import tools

from tpu import board as board_lib
from tpu.archive import Archive
from tpu.board import Submission
from tpu.shell import Shell
from tpu.targets.gke import Gke

ROOT = pathlib.Path(__file__).parent.parent
CONTEXT = "gke_my-project_us-east5-b_my-cluster"
REPOSITORY = "us-docker.pkg.dev/my-project/msm/msm-jax"
# Counts, in place of training, as far as OUT/goal says when it starts.
_LAUNCH = """
import os, pathlib, runpy, sys
out = pathlib.Path(next(a[10:] for a in sys.argv if a.startswith("--workdir=")))
goal = (out / "goal").read_text() if sys.argv[1] == "run" else "2"
out = out / sys.argv[1]
out.mkdir(exist_ok=True)
os.environ.setdefault("JAX_PROCESS_ID", "0")
assert os.environ["GEMINI_API_KEY"] == "a key"
sys.path[0] = "{tests}"
sys.argv = ["counting_process.py", str(out), goal, "0.02"]
runpy.run_path("{tests}/counting_process.py", run_name="__main__")
"""


class OnGke:
  """A job, its target and a cluster for it, which kubectl knows and has the image.

  Args:
    tmp_path: where all of it is.
    goal: how far the job counts.
    settings: of tpu.toml.
    cluster: see `fake_cluster.make`.
    fields: of the job.
  """

  def __init__(self, tmp_path, *, goal=3, settings=None, cluster=None, **fields):
    self.image = image = tmp_path / "image"
    image.mkdir()
    for name in ("tpu", "msm_jax"):
      (image / name).symlink_to(ROOT / name)
    launch = _LAUNCH.format(tests=ROOT / "tests")
    (image / "launch.py").write_text(launch)
    self.out = tmp_path / "out"
    self.out.mkdir()
    self.aim(goal)
    self.root = tmp_path / "cluster"
    self.job = cloud_jobs.a_job(**fields, workdir=str(self.out))
    given = {"secrets": {"gemini-key": {"GEMINI_API_KEY": "a key"}}}
    given["contexts"] = [CONTEXT]
    given["images"] = [f"{REPOSITORY}:{self.job.code}-tpu"]
    fake_cluster.make(self.root, image, **given | (cluster or {}))
    self.settings = cloud_jobs.some_settings(
      bucket=str(tmp_path), labels={}, **(settings or {})
    )
    players = dict.fromkeys(("kubectl", "docker", "gcloud"), "cluster_tools")
    self.environment = tools.put(
      tmp_path / "bin", players, {"FAKE_CLUSTER": str(self.root)}
    )
    archive = Archive(sha=self.job.code, data=b"")
    self.target = Gke(self.settings, Shell(environment=self.environment), archive)
    self.board = board_lib.open_(f"{tmp_path}/jobs/{self.job.name}")

  def submit(self):
    self.target.check(self.job)
    self.board.files.make()
    submission = Submission(job=self.job, target="gke", timing=drives.QUICK)
    self.board.submit(submission)
    self.target.create(self.job)

  def aim(self, goal):
    (self.out / "goal").write_text(str(goal))

  def wait_for(self, what, seconds=60.0):
    """Lets the cluster go on until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
      assert time.monotonic() < deadline, (self.pods(), self.logs())
      time.sleep(0.05)
      self.pods()  # which lets it go on

  def wait_for_step(self, number):
    self.wait_for(lambda: f"0 step {number}" in self.trace())

  def wait_until_ended(self):
    """Waits until the JobSet has; returns what the target says of that."""
    self.wait_for(lambda: self.jobset()["status"]["conditions"])
    return self.target.find(self.job)

  def pods(self):
    """Returns name -> phase of all pods."""
    with fake_cluster.opened(self.root) as cluster:
      pods = cluster["pods"].items()
      return {name: pod["status"]["phase"] for name, pod in pods}

  def logs(self):
    return [path.read_text() for path in sorted(self.root.glob("pods/*/log"))]

  def trace(self):
    path = self.out / "run" / "trace"
    return path.read_text().splitlines() if path.exists() else []

  def saved(self):
    return json.loads((self.out / "run" / "count").read_text())[0]

  def starts(self, of=0):
    lines = [line.split() for line in self.trace()]
    return [int(n) for host, word, n in lines if (host, word) == (str(of), "start")]

  def jobset(self):
    with fake_cluster.opened(self.root) as cluster:
      return cluster["jobsets"][self.job.name]

  def order(self, *orders):
    (self.out / "run").mkdir()
    (self.out / "run" / "orders").write_text(json.dumps(orders))


@contextlib.contextmanager
def clusters(tmp_path):
  """Gives what makes an `OnGke`; nothing of them runs on in the end."""
  made = []

  def make(**how):
    made.append(OnGke(tmp_path, **how))
    return made[-1]

  yield make
  for each in made:
    with fake_cluster.opened(each.root) as cluster:
      for name in list(cluster["jobsets"]):
        fake_cluster.remove(cluster, name)
    assert fake_cluster.left(each.root) == []
