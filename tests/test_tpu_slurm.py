"""Jobs on a fake cluster with Slurm: submitted, preempted, out of time, deleted."""

import dataclasses
import json
import pathlib
import re
import shutil
import subprocess

import cloud_jobs
import drives
import fake_slurm
import golden_files
import pytest
import slurm_drive

from msm_jax.errors import UserError
from tpu import supervisor
from tpu.archive import Archive
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
STEPS = slurm_drive.STEPS
CASES = {
  "one_host": ({"slice_": "h100:8"}, {}),
  "part_of_a_host": ({"slice_": "a100:4"}, {}),
  "hosts": ({"slice_": "h100:16"}, {}),
  "reserved": ({"slice_": "h200:8", "provisioning": Provisioning.RESERVED}, {}),
  "all_settings": ({"slice_": "h100:16", "overrides": ("--config.a='(0, 1)'",)}, _FULL),
  "cpu_steps": ({"slice_": "h100:8", "steps": STEPS}, {}),
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


@pytest.fixture
def on_slurm(tmp_path):
  with slurm_drive.clusters(tmp_path) as make:
    yield make


def test_a_job_is_preempted_runs_out_of_time_is_stopped_ends_and_is_deleted(on_slurm):
  drive = on_slurm(goal=100_000, steps=STEPS)
  drive.submit()
  assert list(drive.jobs()) == ["msm-cheese-generate", "msm-cheese-study"]
  drive.wait_for_step(5)
  assert (drive.shared / "venv" / "extras").read_text() == "cuda,gcs\n"
  number = drive.jobs()["msm-cheese-study"]["id"]
  assert drive.target.find(drive.job).hosts == ("node0", "node1")

  fake_slurm.preempt(drive.root, number, grace_s=10.0)
  saved = drive.saved()
  drive.wait_for(lambda: len(drive.starts()) == 2)
  assert drive.starts()[1] == saved  # agents got SIGTERM, the command saved

  drive.wait_for_step(saved + 5)
  fake_slurm.near_end(drive.root, number)
  drive.wait_for(lambda: len(drive.starts()) == 3)
  assert drive.starts()[2] > saved
  assert drive.jobs()["msm-cheese-study"]["restarts"] == 2

  drive.wait_for_step(drive.starts()[2] + 5)
  drive.target.stop(drive.job)
  stopped = drive.wait_until_idle()
  assert stopped.says == "stopped"
  assert fake_slurm.processes(drive.root) == []

  drive.aim(drive.saved() + 5)
  drive.target.create(drive.job)
  assert len(drive.jobs()) == 2  # by name: generate was done, and is not done again
  ended = drive.wait_until_idle()
  assert ended.state is State.ABSENT and not ended.says
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
  drive, said = on_slurm(slice_="h100:8", steps=STEPS, own=late), []
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
  steps = (*STEPS[1:], Step(name="report", mode="report", place="cpu"))
  drive = on_slurm(slice_="h100:8", goal=100, steps=steps)
  (drive.out / "run").mkdir()
  order = {"host": 0, "step": 3, "code": 2, "times": 9, "says": "error: no key"}
  (drive.out / "run" / "orders").write_text(json.dumps([order]))
  drive.submit()
  found = drive.wait_until_idle()
  assert "study ended with 2" in found.says and "study-0.log" in found.says
  assert drive.jobs()["msm-cheese-study"]["restarts"] == 0
  assert drive.jobs()["msm-cheese-report"]["state"] == "CANCELLED"  # never can run


def test_a_script_that_fails_otherwise_is_tried_a_few_times(on_slurm, monkeypatch):
  monkeypatch.setattr(slurm, "MAX_RESTARTS", 2)
  drive = on_slurm(slice_="h100:8")
  drive.target.push(drive.job, ())
  (drive.shared / "slurm/cheese/code" / drive.job.code / "tpu/host.py").unlink()
  drive.submit()
  found = drive.wait_until_idle()
  assert "study ended with 1: " in found.says and "No module named" in found.says
  assert drive.jobs()["msm-cheese-study"]["restarts"] == 2


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
