"""Jobs that count, and a fake cluster with Slurm for each."""

import contextlib
import functools
import io
import pathlib
import sys
import tarfile
import time

import cloud_jobs
import drives
import fake_slurm
from counted import LAUNCH, Counted
from fake_tools import tools

from tpu import board as board_lib
from tpu.archive import Archive
from tpu.board import Submission
from tpu.job import Step
from tpu.shell import Shell
from tpu.targets.slurm import Slurm

ROOT = pathlib.Path(__file__).parent.parent
STEPS = (
  Step(name="generate", mode="generate", place="cpu"),
  Step(name="study", mode="run"),
)


class OnSlurm(Counted):
  """A job, its target and a cluster for it.

  Args:
    tmp_path: where all of it is.
    goal: how far the job counts.
    own: [slurm] of tpu.toml.
    cluster: see `fake_slurm.make`.
    fields: of the job.
  """

  def __init__(self, tmp_path, *, goal=3, own=None, cluster=None, **fields):
    self.root, self.shared = tmp_path / "cluster", tmp_path / "shared"
    self.shared.mkdir()
    (tmp_path / "bucket").mkdir()
    fake_slurm.make(self.root, **(cluster or {}))
    (self.shared / "secrets").mkdir()
    (self.shared / "secrets" / "gemini-key").write_text("a key\n")
    self.out = tmp_path / "out"
    self.out.mkdir()
    self.counts = self.out / "run"
    self.aim(goal)
    fields = {"slice_": "h100:16"} | fields
    self.job = cloud_jobs.a_job(**fields, workdir=str(self.out))
    own = {"directory": str(self.shared), "partition": "gpu"} | (own or {})
    bucket = "gs://my-bucket/msm" if "login" in own else str(tmp_path / "bucket")
    settings = cloud_jobs.some_settings(bucket=bucket, slurm=own, labels={})
    names = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sacct", "ssh", "scp")
    self.environment = tools.put(
      tmp_path / "bin",
      dict.fromkeys(names, "slurm_tools"),
      {"FAKE_SLURM": str(self.root), "USER": "me", "TMPDIR": str(tmp_path)},
    )
    archive = Archive(sha=self.job.code, data=packed())
    self.target = Slurm(settings, Shell(environment=self.environment), archive)
    self.board = board_lib.open_(f"{tmp_path}/bucket/jobs/{self.job.name}")

  def aim(self, goal):
    (self.out / "goal").write_text(str(goal))

  def submit(self):
    self.target.check(self.job)
    self.board.files.make()
    submission = Submission(job=self.job, target="slurm", timing=drives.QUICK)
    self.board.submit(submission)
    self.target.create(self.job)

  def wait_for(self, what, seconds=60.0):
    """Lets the cluster go on until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
      assert time.monotonic() < deadline, (self.jobs(), self.logs())
      time.sleep(0.05)
      self.jobs()

  def wait_for_step(self, number):
    self.wait_for(lambda: self.has_counted(number))

  def wait_until_idle(self):
    """Waits until nothing is in the queue; returns what the target says of that."""
    self.wait_for(lambda: not any(map(is_active, self.jobs().values())))
    return self.target.find(self.job)

  def jobs(self):
    with fake_slurm.opened(self.root) as cluster:
      return {job["name"]: job for job in cluster["jobs"].values()}

  def logs(self):
    paths = self.shared.glob("slurm/*/*.*")
    return {path.name: path.read_text() for path in paths if path.is_file()}


@functools.cache
def packed():
  """Returns the code of a job: what a host needs of ours, and a command that counts."""
  set_up = f"""
mkdir -p "$VENV/bin"
printf '#!/bin/sh\\nexec {sys.executable} "$@"\\n' >"$VENV/bin/python"
chmod +x "$VENV/bin/python"
echo "$EXTRAS" >"$VENV/extras"
"""
  files = {path.name: path.read_text() for path in (ROOT / "tpu").glob("*.py")}
  files = {f"tpu/{name}": text for name, text in files.items()}
  files |= {"launch.py": LAUNCH}
  files |= {"tpu/setup.sh": set_up}
  data = io.BytesIO()
  with tarfile.open(fileobj=data, mode="w:gz") as tar:
    for name, text in files.items():
      info = tarfile.TarInfo(name)
      info.size = len(text.encode())
      tar.addfile(info, io.BytesIO(text.encode()))
    link = tarfile.TarInfo("msm_jax")
    link.type, link.linkname = tarfile.SYMTYPE, str(ROOT / "msm_jax")
    tar.addfile(link)
  return data.getvalue()


def is_active(job):
  """Returns whether a job of the cluster is in the queue."""
  return job["state"] in fake_slurm.ACTIVE


@contextlib.contextmanager
def clusters(tmp_path):
  """Gives what makes an `OnSlurm`; nothing of them runs on in the end."""
  made = []

  def make(**how):
    made.append(OnSlurm(tmp_path, **how))
    return made[-1]

  yield make
  for each in made:
    with fake_slurm.opened(each.root) as cluster:
      for number in cluster["jobs"]:
        fake_slurm.end(cluster, number, "CANCELLED")
    assert fake_slurm.processes(each.root) == []
