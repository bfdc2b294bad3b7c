"""Verbs one by one: what is left on the board, what is found with a name alone."""

import functools
import os
import shutil

import pytest
import scripted_gcloud
import tpu_cases

pytest.importorskip("gcsfs")
if shutil.which("git") is None:
  pytest.skip("git is not installed", allow_module_level=True)

import fake_gcs

from tpu import archive, asked
from tpu import board as board_lib

JOB = ["--config=configs/cheese_tiny.py", "--target=compute", "--slice=v5p-8"]
JOB += ["--spot", "--skip_fit", "--name=study"]
UP = {
  "instance": "zones/z/instances/study-0-abcd",
  "instanceStatus": "RUNNING",
  "currentAction": "NONE",
}
ABSENT = {
  "err": "ERROR: (x) - The resource 'projects/p/x/y' was not found",
  "always": 1,
}
ME = ("config get-value account", {"out": "me@lab.org", "always": 1})

# The code does not change meanwhile: it is packed once for all of them.
_pack = functools.cache(archive.pack)


@pytest.fixture
def cloud(tmp_path, monkeypatch):
  """Returns a function that runs a verb: cloud(*words) -> (code, out, err)."""
  fake = scripted_gcloud.ScriptedGcloud(tmp_path)
  monkeypatch.chdir(tpu_cases.ROOT)
  monkeypatch.setenv("PATH", f"{fake.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
  monkeypatch.setenv("MSM_JAX_BUCKET_PATIENCE_S", "1")
  monkeypatch.setattr(asked, "pack", _pack)

  def run(*words):
    return tpu_cases.told(tmp_path, tpu_cases.SETTINGS, words)

  run.fake = fake
  with fake_gcs.FakeGcs("lab") as gcs, gcs.environment():
    fake.answer(ME)
    yield run


def answer(cloud, *script):
  cloud.fake.answer(ME, *script)


def test_a_job_is_made_asked_about_stopped_and_deleted_with_no_more_than_its_name(
  cloud,
):
  code, out, err = cloud("create", *JOB)
  assert code == 0, err
  assert "study: asked for" in out
  board = board_lib.open_("gs://lab/msm/jobs/study")
  kept = board.submission()
  assert kept.job.name == "study" and kept.dollars_per_hour == 4 * 1.68
  assert kept.settings["project"] == "my-lab-1" and "where" not in kept.settings

  up = ("list-instances", {"out": [UP], "always": 1})
  answer(cloud, up)
  code, out, err = cloud("push", *JOB)
  assert code == 0 and f"pushed {kept.job.code}" in out, err
  assert any("ssh study-0-abcd" in line for line in cloud.fake.told())

  code, out, err = cloud("status", "--name=study")
  assert code == 0, err
  assert "study: not begun" in out and "in the cloud: ready" in out
  assert "instance-group study-0" in out

  board.put_log("study", 0, b"step 7\n")
  answer(cloud, up, ("on_host.sh log", {"out": "step 8"}))
  assert cloud("logs", "--name=study", "--host=0")[:2] == (0, "step 7\n")
  code, out, _ = cloud("logs", "--name=study", "--follow")
  assert code == 0 and out.startswith("step 8")

  answer(cloud, up)
  code, out, err = cloud("stop", "--name=study")
  assert code == 0 and board.is_to_stop(), err
  assert any("on_host.sh stop study" in line for line in cloud.fake.told())

  answer(cloud, ("describe|list-instances", ABSENT))
  code, out, err = cloud("delete", "--name=study")
  assert code == 0 and "everything that was made is gone" in out, err
  assert any("managed delete study-0" in line for line in cloud.fake.told())


def test_what_cannot_be_deleted_is_named(cloud):
  assert cloud("create", *JOB)[0] == 0
  answer(cloud, ("list-instances", {"out": [UP]}), ("describe", ABSENT))
  code, _, err = cloud("delete", "--name=study")
  assert code == 2 and "still there: instance-group study-0: run again" in err


def test_status_is_told_without_the_cloud_and_asks_for_the_step_that_runs(cloud):
  assert cloud("create", *JOB, "--cpu_steps=generate")[0] == 0
  cloud.fake.answer((".", {"err": "ERROR: Network is unreachable", "always": 1}))
  code, out, _ = cloud("status", "--name=study")
  assert code == 0 and "the cloud was not asked" in out and "generate: not begun" in out
  ours = "msm-jax gs://lab/msm/studies/study on cpu on_demand"
  up = {"status": "RUNNING", "description": ours}
  answer(cloud, ("instances describe study-cpu", {"out": up}))
  assert "in the cloud: ready: RUNNING" in cloud("status", "--name=study")[1]
  board = board_lib.open_("gs://lab/msm/jobs/study")
  board.put_attempt("generate", board_lib.Attempt(phase="finished"))
  answer(cloud, ("list-instances|describe", ABSENT))
  assert "in the cloud: absent: no instance group" in cloud("status", "--name=study")[1]


def test_a_name_that_was_never_submitted_is_told_with_the_place(cloud):
  for verb in ("status", "logs", "stop", "delete"):
    code, _, err = cloud(verb, "--name=nobody")
    assert code == 2 and "nothing of that name was submitted at gs://lab/msm" in err


def test_machines_that_are_not_up_get_no_code(cloud):
  answer(cloud, ("list-instances|describe", ABSENT))
  code, _, err = cloud("push", *JOB)
  assert code == 2 and "machines are not up (absent): `python -m tpu create`" in err


def test_nobody_logged_in_is_told_before_anything_is_made(cloud):
  cloud.fake.answer(("config get-value account", {"out": "(unset)", "always": 1}))
  code, _, err = cloud("run", *JOB)
  assert code == 2 and "gcloud auth login" in err
  assert board_lib.open_("gs://lab/msm/jobs/study").submission() is None


def test_a_cloud_that_fails_now_ends_a_verb_with_a_line(cloud):
  answer(cloud, ("instance-templates create", {"err": "ERROR: HTTPError 503: x"}))
  code, _, err = cloud("create", *JOB)
  assert code == 2 and err.count("\n") == 1
  assert "503" in err and "that may pass: run the same again" in err


def test_a_host_that_is_not_there_has_no_log(cloud):
  assert cloud("create", *JOB)[0] == 0
  code, _, err = cloud("logs", "--name=study", "--host=3")
  assert code == 2 and err == "error: --host=3: study has host 0 alone\n"
  code, _, err = cloud("logs", "--name=study", "--host=-1")
  assert code == 2 and "--host=-1" in err and err.count("\n") == 1
  answer(cloud, ("list-instances|describe", ABSENT))
  code, _, err = cloud("logs", "--name=study", "--follow")
  assert code == 2 and "--host=0: machines are not up (absent)" in err


def test_a_log_that_cannot_be_read_is_no_success(cloud):
  assert cloud("create", *JOB)[0] == 0
  answer(cloud, ("list-instances", {"out": [UP]}), ("ssh", {"out": "", "code": 255}))
  code, _, err = cloud("logs", "--name=study", "--follow")
  assert code == 2 and "exit 255" in err and err.count("\n") == 1


def test_what_is_finished_needs_no_stop(cloud):
  assert cloud("create", *JOB)[0] == 0
  board = board_lib.open_("gs://lab/msm/jobs/study")
  board.put_attempt("study", board_lib.Attempt(phase="finished"))
  code, out, _ = cloud("stop", "--name=study")
  assert code == 0 and "nothing to stop" in out
  assert not board.is_to_stop() and not any("ssh" in line for line in cloud.fake.told())
