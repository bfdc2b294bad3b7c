"""Jobs on a fake cluster with Slurm: submitted, preempted, out of time, deleted."""

import dataclasses
import io
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time

import cloud_jobs
import drives
import fake_slurm
import golden_files
import pytest
from fake_tools import tools

from msm_jax.errors import UserError
from tpu import board as board_lib
from tpu import supervisor
from tpu.archive import Archive
from tpu.board import Submission
from tpu.job import Provisioning, State, Step
from tpu.shell import Failed, Shell
from tpu.targets import slurm, slurm_queue
from tpu.targets.slurm import Slurm

ROOT = pathlib.Path(__file__).parent.parent
NOTHING = Archive(sha="0123456789ab", data=b"")
_FULL = {
  "login": "me@login",
  "directory": "/shared/me/msm",
  "partition": "gpu",
  "cpu_partition": "cpu",
  "account": "lab",
  "qos": "high",
  "constraint": "h100",
  "time_limit": "12:00:00",
  "setup": "module load cuda/12\nulimit -n 65536\n",
  "options": "--mail-type=FAIL",
}
_STEPS = (
  Step(name="generate", mode="generate", place="cpu"),
  Step(name="study", mode="run"),
)
CASES = {
  "one_host": ({"slice_": "h100:8"}, {}),
  "part_of_a_host": ({"slice_": "a100:4"}, {}),
  "hosts": ({"slice_": "h100:16"}, {}),
  "reserved": ({"slice_": "h200:8", "provisioning": Provisioning.RESERVED}, {}),
  "all_settings": ({"slice_": "h100:16", "overrides": ("--config.a='(0, 1)'",)}, _FULL),
  "cpu_steps": ({"slice_": "h100:8", "steps": _STEPS}, {}),
}


def said_by(fields, own, dry=True):
  said = []
  settings = cloud_jobs.some_settings(**({"slurm": own} if own else {}))
  shell = Shell(dry_run=dry, say=said.append, environment={"PATH": ""})
  return Slurm(settings, shell, NOTHING), cloud_jobs.a_job(**fields), said


@pytest.mark.parametrize("case", CASES)
def test_the_batch_script_is_what_it_was(case):
  target, job, _ = said_by(*CASES[case])
  for step in job.steps:
    name = f"{case}_{step.name}" if len(job.steps) > 1 else case
    golden_files.check(f"tpu/slurm_{name}.sh", target.script(job, step))


@pytest.mark.parametrize("case", CASES)
def test_a_dry_run_prints_what_it_did(case):
  target, job, said = said_by(*CASES[case])
  target.check(job)
  target.create(job)
  target.stop(job)
  target.delete(job)
  assert target.find(job).state is State.ABSENT
  golden_files.check(f"tpu/slurm_{case}.txt", "\n".join([*said, ""]))


def test_scripts_are_sound():
  shellcheck = shutil.which("shellcheck")
  if shellcheck is None:
    pytest.skip("shellcheck is not installed")
  scripts = sorted((ROOT / "tests/golden/tpu").glob("slurm_*.sh"))
  assert len(scripts) == len(CASES) + 1
  subprocess.run([shellcheck, *scripts], check=True)


class OnSlurm:
  """A job, its target and a cluster for it."""

  def __init__(self, tmp_path, *, goal=3, own=None, cluster=None, **fields):
    self.root, self.shared = tmp_path / "cluster", tmp_path / "shared"
    self.shared.mkdir()
    (tmp_path / "bucket").mkdir()
    fake_slurm.make(self.root, **(cluster or {}))
    (self.shared / "secrets").mkdir()
    (self.shared / "secrets" / "gemini-key").write_text("a key\n")
    self.out = tmp_path / "out"
    self.out.mkdir()
    self.aim(goal)
    fields = {"slice_": "h100:16"} | fields
    self.job = cloud_jobs.a_job(**fields, workdir=str(self.out))
    own = {"directory": str(self.shared), "partition": "gpu"} | (own or {})
    bucket = "gs://my-bucket/msm" if "login" in own else str(tmp_path / "bucket")
    settings = cloud_jobs.some_settings(bucket=bucket, slurm=own, labels={})
    names = ("sbatch", "squeue", "scancel", "scontrol", "srun", "sacct", "ssh", "scp")
    self.environment = tools.put(
      tmp_path / "bin",
      dict.fromkeys(names, "slurm_tools.py"),
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
    deadline = time.monotonic() + seconds
    while not what(found := self.target.find(self.job)):
      assert time.monotonic() < deadline, (found, self.logs())
      time.sleep(0.2)
    return found

  def wait_for_step(self, number):
    trace = self.out / "run" / "trace"

    def is_there(_):
      return trace.exists() and f"0 step {number}\n" in trace.read_text()

    return self.wait_for(is_there)

  def saved(self):
    return json.loads((self.out / "run" / "count").read_text())[0]

  def starts(self):
    lines = (self.out / "run" / "trace").read_text().splitlines()
    words = [line.split() for line in lines]
    return [int(n) for host, word, n in words if (host, word) == ("0", "start")]

  def jobs(self):
    with fake_slurm.opened(self.root) as cluster:
      return {job["name"]: job for job in cluster["jobs"].values()}

  def logs(self):
    paths = self.shared.glob("slurm/*/*.*")
    return {path.name: path.read_text() for path in paths if path.is_file()}


def packed():
  """Returns the code of a job: what a host needs of ours, and a command that counts."""
  launch = """
import os, pathlib, runpy, sys
out = pathlib.Path(next(a[10:] for a in sys.argv if a.startswith("--workdir=")))
goal = (out / "goal").read_text() if sys.argv[1] == "run" else "2"
out = out / sys.argv[1]
out.mkdir(exist_ok=True)
os.environ.setdefault("JAX_PROCESS_ID", "0")
assert os.environ["GEMINI_API_KEY"] == "a key"
sys.path[0] = TESTS
sys.argv = ["counting_process.py", str(out), goal, "0.02"]
runpy.run_path(TESTS + "/counting_process.py", run_name="__main__")
"""
  set_up = f"""
mkdir -p "$VENV/bin"
printf '#!/bin/sh\\nexec {sys.executable} "$@"\\n' >"$VENV/bin/python"
chmod +x "$VENV/bin/python"
echo "$EXTRAS" >"$VENV/extras"
"""
  files = {path.name: path.read_text() for path in (ROOT / "tpu").glob("*.py")}
  files = {f"tpu/{name}": text for name, text in files.items()}
  files |= {"launch.py": launch.replace("TESTS", repr(str(ROOT / "tests")))}
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


@pytest.fixture
def on_slurm(tmp_path):
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


def test_a_job_is_preempted_runs_out_of_time_is_stopped_ends_and_is_deleted(on_slurm):
  drive = on_slurm(goal=100_000, steps=_STEPS)
  drive.submit()
  assert list(drive.jobs()) == ["msm-cheese-generate", "msm-cheese-study"]
  drive.wait_for_step(5)
  assert (drive.shared / "venv" / "extras").read_text() == "cuda,gcs\n"
  number = drive.jobs()["msm-cheese-study"]["id"]
  assert drive.target.find(drive.job).hosts == ("node0", "node1")

  fake_slurm.preempt(drive.root, number, grace_s=10.0)
  saved = drive.saved()
  drive.wait_for(lambda _: len(drive.starts()) == 2)
  assert drive.starts()[1] == saved  # agents got SIGTERM, the command saved

  drive.wait_for_step(saved + 5)
  fake_slurm.near_end(drive.root, number)
  drive.wait_for(lambda _: len(drive.starts()) == 3)
  assert drive.starts()[2] > saved
  assert drive.jobs()["msm-cheese-study"]["restarts"] == 2

  drive.wait_for_step(drive.starts()[2] + 5)
  drive.target.stop(drive.job)
  stopped = drive.wait_for(lambda found: found.state is State.ABSENT)
  assert stopped.says == "stopped"
  assert fake_slurm.processes(drive.root) == []

  drive.aim(drive.saved() + 5)
  drive.target.create(drive.job)
  assert len(drive.jobs()) == 2  # by name: generate was done, and is not done again
  drive.wait_for(lambda found: found.state is State.ABSENT and not found.says)
  for step in ("generate", "study"):
    assert drive.board.attempt(step).phase == "finished"
  for host in (0, 1):
    assert "the agent ends" in "\n".join(drive.target.logs(drive.job, host, False))
  with pytest.raises(UserError, match="--host=5 printed nothing"):
    drive.target.logs(drive.job, 5, False)
  drive.target.delete(drive.job)
  assert not (drive.shared / "slurm" / "cheese").exists()
  drive.target.delete(drive.job)  # again: nothing to do, no error


def test_a_job_is_looked_after_until_it_is_done_and_gone(on_slurm):
  # Batch scripts end a while after the board says that their work is done.
  late = {"setup": '[ -z "${SLURM_JOB_ID:-}" ] || trap "sleep 0.5" EXIT'}
  drive, said = on_slurm(slice_="h100:8", steps=_STEPS, own=late), []
  look_after = supervisor.look_after
  look_after(drive.job, drive.target, drive.board, timing=drives.QUICK, say=said.append)
  assert drive.board.attempt("study").phase == "finished"
  assert "cheese: finished" in said
  assert not (drive.shared / "slurm" / "cheese").exists()
  assert {job["state"] for job in drive.jobs().values()} == {"COMPLETED"}


def test_code_that_is_gone_is_not_replaced_by_other_code(on_slurm):
  drive = on_slurm()
  with pytest.raises(UserError, match=r"its code other is not in .* any more"):
    drive.target.push(dataclasses.replace(drive.job, code="other"), ())


def test_a_job_that_a_person_must_mend_is_not_tried_again(on_slurm):
  steps = (*_STEPS[1:], Step(name="report", mode="report", place="cpu"))
  drive = on_slurm(slice_="h100:8", goal=100, steps=steps)
  (drive.out / "run").mkdir()
  order = {"host": 0, "step": 3, "code": 2, "times": 9, "says": "error: no key"}
  (drive.out / "run" / "orders").write_text(json.dumps([order]))
  drive.submit()
  found = drive.wait_for(lambda found: found.state is State.FAILED)
  assert "study ended with 2" in found.says and "study-0.log" in found.says
  assert drive.jobs()["msm-cheese-study"]["restarts"] == 0
  assert drive.jobs()["msm-cheese-report"]["state"] == "CANCELLED"  # never can run


def test_a_script_that_fails_otherwise_is_tried_a_few_times(on_slurm, monkeypatch):
  monkeypatch.setattr(slurm, "MAX_RESTARTS", 2)
  drive = on_slurm(slice_="h100:8")
  drive.target.push(drive.job, ())
  (drive.shared / "slurm/cheese/code" / drive.job.code / "tpu/host.py").unlink()
  drive.submit()
  found = drive.wait_for(lambda found: found.state is State.FAILED)
  assert "study ended with 1: " in found.says and "No module named" in found.says
  assert drive.jobs()["msm-cheese-study"]["restarts"] == 2


def test_a_job_that_waits_says_for_what(on_slurm):
  drive = on_slurm(cluster={"nodes": 1})
  drive.submit()
  found = drive.target.find(drive.job)
  assert found.state is State.WAITING and found.resources == ("job 1000",)
  assert found.says == "msm-cheese-study PENDING: Resources"
  with fake_slurm.opened(drive.root) as cluster:
    cluster["reason"] = "BadConstraints"
  found = drive.target.find(drive.job)
  assert found.state is State.FAILED and "mend [slurm] in tpu.toml" in found.says


def test_what_left_the_queue_without_a_word_is_asked_after(on_slurm):
  drive = on_slurm(goal=100_000)
  drive.submit()
  for state, means in (
    ("NODE_FAIL", State.ABSENT),  # which is submitted again, with the code it had
    ("CANCELLED", State.FAILED),
    ("RUNNING", State.WAITING),  # accounts lag behind the queue
  ):
    with fake_slurm.opened(drive.root) as cluster:
      fake_slurm.end(cluster, "1000", state)
      cluster["jobs"]["1000"]["name"] = "not in the queue"
    found = drive.target.find(drive.job)
    assert found.state is means and state in found.says


def test_where_no_accounts_are_kept_the_controller_is_asked(on_slurm):
  drive = on_slurm(goal=100_000, cluster={"accounts_are_kept": False})
  drive.submit()
  with fake_slurm.opened(drive.root) as cluster:
    fake_slurm.end(cluster, "1000", "TIMEOUT")
  found = drive.target.find(drive.job)
  assert (found.state, found.says) == (State.ABSENT, "study: TIMEOUT")


def test_a_queue_that_does_not_answer_is_not_an_empty_one(on_slurm):
  drive = on_slurm(cluster={"nodes": 0})
  drive.submit()
  said = "slurm_load_jobs error: Unable to contact slurm controller"
  drive.environment["FAKE_SQUEUE_SAYS"] = said
  for ask in (drive.target.find, drive.target.create):
    with pytest.raises(Failed, match=said):
      ask(drive.job)
  assert list(drive.jobs()) == ["msm-cheese-study"]


def test_what_is_in_the_queue_is_not_submitted_twice(on_slurm):
  drive = on_slurm(cluster={"nodes": 0}, steps=_STEPS)
  drive.submit()
  drive.target.create(drive.job)
  with fake_slurm.opened(drive.root) as cluster:
    assert len(cluster["jobs"]) == 2
    fake_slurm.end(cluster, "1001", "CANCELLED")
  drive.target.create(drive.job)
  with fake_slurm.opened(drive.root) as cluster:
    assert list(cluster["jobs"]) == ["1000", "1001", "1002"]
    assert cluster["jobs"]["1002"]["options"]["dependency"] == "afterok:1000"


def test_what_was_stopped_while_it_waited_goes_on_when_asked_again(on_slurm):
  drive = on_slurm(cluster={"nodes": 0}, steps=_STEPS)
  drive.submit()
  drive.target.stop(drive.job)
  found = drive.target.find(drive.job)
  assert (found.state, found.says) == (State.ABSENT, "stopped")
  drive.target.create(drive.job)
  found = drive.target.find(drive.job)
  assert found.state is State.WAITING and len(found.resources) == 2


def test_the_ends_of_another_job_of_that_name_do_not_count(on_slurm):
  drive = on_slurm(cluster={"nodes": 0}, steps=_STEPS)
  drive.target.create(drive.job)
  end = drive.shared / "slurm" / "cheese" / "generate.exit"
  other = dataclasses.replace(drive.job, overrides=("--config.seeds=(5,)",))
  for job, steps_to_do in ((drive.job, 1), (other, 2)):
    with fake_slurm.opened(drive.root) as cluster:
      for number in cluster["jobs"]:
        fake_slurm.end(cluster, number, "CANCELLED")
    end.write_text("0\n")  # left by a life before this
    drive.target.create(job)
    assert len(drive.target.find(job).resources) == steps_to_do


def test_what_somebody_cancelled_is_not_begun_again(on_slurm):
  drive = on_slurm(slice_="h100:8", goal=100_000)
  drive.submit()
  drive.wait_for_step(2)
  with fake_slurm.opened(drive.root) as cluster:
    cluster["jobs"]["1000"]["state"] = "CANCELLED"  # and then it is told to end
    fake_slurm.signal_tasks(cluster, "1000", signal.SIGTERM)
  folder = drive.root / "1000"
  drive.wait_for(lambda _: (folder / "exit").exists())
  found = drive.target.find(drive.job)
  assert (found.state, found.says) == (State.FAILED, "study left the queue: CANCELLED")
  assert not list(drive.root.glob("1000/node*-tmp"))  # nothing is left on nodes


def test_why_a_script_ended_is_said_in_its_own_words(on_slurm):
  drive = on_slurm(slice_="h100:8")
  (drive.shared / "secrets" / "gemini-key").unlink()
  drive.target.create(drive.job)
  found = drive.wait_for(lambda found: found.state is State.FAILED)
  assert found.says.startswith("study left the queue: FAILED: cat: /")


def test_everything_goes_through_ssh_where_there_is_a_login_node(on_slurm):
  drive = on_slurm(own={"login": "me@login"}, cluster={"nodes": 0})
  drive.target.check(drive.job)
  drive.target.create(drive.job)
  assert drive.target.find(drive.job).state is State.WAITING
  drive.target.delete(drive.job)
  assert drive.target.find(drive.job).state is State.ABSENT


@pytest.mark.parametrize(
  ("fields", "own", "words"),
  [
    ({"slice_": "v6e-16"}, {}, "--target=slurm has GPUs"),
    ({"provisioning": Provisioning.SPOT}, {}, "--spot: Slurm has partitions for that"),
    ({}, {"login": "me@nowhere"}, r"ssh to slurm.login does not work"),
    ({}, {"directory": "/nowhere"}, "put the key into /nowhere/secrets/gemini-key"),
  ],
)
def test_what_cannot_be_is_refused_with_the_way_out(on_slurm, fields, own, words):
  drive = on_slurm(own=own, **fields)
  with pytest.raises(UserError, match=words) as caught:
    drive.target.check(drive.job)
  assert "\n" not in str(caught.value)


def test_a_directory_as_bucket_cannot_be_seen_from_afar(on_slurm):
  drive = on_slurm(own={"login": "me@login"})
  settings = dataclasses.replace(drive.target.settings, bucket="/shared/msm")
  with pytest.raises(UserError, match=r"bucket must be gs://.*on me@login without"):
    dataclasses.replace(drive.target, settings=settings).check(drive.job)


def test_what_sbatch_refuses_is_one_line_with_the_way_out(on_slurm):
  drive = on_slurm(own={"account": "nobody"})
  drive.target.check(drive.job)
  with pytest.raises(UserError, match=r"set slurm.account and slurm.partition"):
    drive.target.create(drive.job)


def test_without_slurm_it_says_where_to_run(on_slurm, tmp_path):
  drive = on_slurm()
  (tmp_path / "bin" / "sbatch").unlink()
  with pytest.raises(UserError, match="sbatch is not on PATH: run this on a login"):
    drive.target.check(drive.job)


@pytest.mark.parametrize(
  ("said", "words"),
  [
    ("sbatch: error: invalid partition specified: gpus", "slurm.partition"),
    ("error: Batch job submission failed: Invalid qos specification", "slurm.qos"),
    ("Requested node configuration is not available", "slurm.gres"),
    ("Job violates accounting/QOS policy (job submit limit)", "fewer GPUs"),
    ("me@login: Permission denied (publickey,password).", "ssh-copy-id"),
    ("tar: code: Cannot write: No space left on device", "slurm.directory is full"),
  ],
)
def test_errors_of_slurm_are_explained(said, words):
  settings = cloud_jobs.some_settings()
  found = slurm_queue.explained(Failed(["sbatch"], 1, f"line\n{said}"), settings, None)
  assert isinstance(found, UserError) and re.search(words, str(found))
  assert str(found).startswith("tpu.toml: [slurm]: ") and "\n" not in str(found)


def test_a_login_node_that_does_not_answer_is_asked_again_later():
  settings = cloud_jobs.some_settings()
  error = Failed(["ssh"], 255, "ssh: connect to host login port 22: timed out")
  assert slurm_queue.explained(error, settings, "no file") is error
