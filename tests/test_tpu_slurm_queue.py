"""What a job with Slurm is told of its queue, and what it does about that."""

import dataclasses
import signal

import fake_slurm
import pytest
import slurm_drive

from tpu.job import State
from tpu.shell import Failed

STEPS = slurm_drive.STEPS


@pytest.fixture
def on_slurm(tmp_path):
  with slurm_drive.clusters(tmp_path) as make:
    yield make


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
  drive = on_slurm(cluster={"nodes": 0})
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
  drive = on_slurm(cluster={"nodes": 0, "accounts_are_kept": False})
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
  drive = on_slurm(cluster={"nodes": 0}, steps=STEPS)
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
  drive = on_slurm(cluster={"nodes": 0}, steps=STEPS)
  drive.submit()
  drive.target.stop(drive.job)
  found = drive.target.find(drive.job)
  assert (found.state, found.says) == (State.ABSENT, "stopped")
  drive.target.create(drive.job)
  found = drive.target.find(drive.job)
  assert found.state is State.WAITING and len(found.resources) == 2


def test_the_ends_of_another_job_of_that_name_do_not_count(on_slurm):
  drive = on_slurm(cluster={"nodes": 0}, steps=STEPS)
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
  drive.wait_for(lambda: (folder / "exit").exists())
  found = drive.target.find(drive.job)
  assert (found.state, found.says) == (State.FAILED, "study left the queue: CANCELLED")
  assert not list(drive.root.glob("1000/node*-tmp"))  # nothing is left on nodes


def test_why_a_script_ended_is_said_in_its_own_words(on_slurm):
  drive = on_slurm(slice_="h100:8")
  (drive.shared / "secrets" / "gemini-key").unlink()
  drive.target.create(drive.job)
  found = drive.wait_until_idle()
  assert found.says.startswith("study left the queue: FAILED: cat: /")
