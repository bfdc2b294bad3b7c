"""Jobs that count, and a fake cluster of Kubernetes for each."""

import contextlib
import pathlib
import time

import cloud_jobs
import drives
import fake_cluster
from counted import LAUNCH, Counted
from fake_tools import tools

from tpu import board as board_lib
from tpu.archive import Archive
from tpu.board import Submission
from tpu.shell import Shell
from tpu.targets.gke import Gke

ROOT = pathlib.Path(__file__).parent.parent
CONTEXT = "gke_my-project_us-east5-b_my-cluster"
REPOSITORY = "us-docker.pkg.dev/my-project/msm/msm-jax"


class OnGke(Counted):
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
    (image / "launch.py").write_text(LAUNCH)
    self.out = tmp_path / "out"
    self.out.mkdir()
    self.counts = self.out / "run"
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
    self.wait_for(lambda: self.has_counted(number))

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

  def jobset(self):
    with fake_cluster.opened(self.root) as cluster:
      return cluster["jobsets"][self.job.name]


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
