"""The command line: one line of error that names the way out, the right exit code."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = "--config=configs/cheese_tiny.py:pulse"


def launch(*arguments, **environment):
  return subprocess.run(
    [sys.executable, "launch.py", *map(str, arguments)],
    cwd=ROOT,
    env=os.environ | environment,
    capture_output=True,
    text=True,
    timeout=300,
  )


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ([], "MODE is one of run, plan"),
    (["fly"], "given: fly"),
    (["run"], "--config=configs/NAME.py is needed"),
    (["run", CONFIG], "--workdir=... is needed"),
    (["run", "--config=configs/none.py", "--workdir=w"], "configs/none.py"),
    (["run", "--config=configs/cheese_tiny.py:x", "--workdir=w"], "'pulse' or none"),
    (["run", "--wrkdir=w"], "wrkdir"),
    (["run", "stray", CONFIG], "'stray' is not understood"),
    (["plan", CONFIG, "--config.sedes=(1,)", "--workdir=w"], "sedes"),
    (["plan", CONFIG, "--config.num_workers=two", "--workdir=w"], "num_workers"),
    (["show", "/nowhere"], "/nowhere is no corpus"),
    (["show"], "show needs one PATH"),
    (["verify", "--hf_dir=/nowhere"], "/nowhere"),
    (["verify"], "--hf_dir=... is needed"),
    (["sample", "--hf_dir=/nowhere"], "at least one --prompt"),
  ],
)
def test_what_the_user_can_fix_is_one_line_and_exit_2(arguments, message):
  done = launch(*arguments)
  assert done.returncode == 2, done.stderr
  assert done.stderr.startswith("error: ") and len(done.stderr.splitlines()) == 1
  assert message in done.stderr and "Traceback" not in done.stderr


def test_seeds_and_arms_that_do_not_exist_are_named(tmp_path):
  done = launch("train", CONFIG, f"--workdir={tmp_path}", "--seed=9")
  assert done.returncode == 2 and "--seed=9 is not one of config.seeds" in done.stderr
  done = launch("train", CONFIG, f"--workdir={tmp_path}", "--arm=msm")
  assert done.returncode == 2 and "--arm=msm is not one of aft, base" in done.stderr


def test_a_workdir_of_another_config_is_refused(tmp_path):
  assert launch("generate", CONFIG, f"--workdir={tmp_path}").returncode == 0
  other = "--config.corpora.msm_am.max_documents=61"
  done = launch("generate", CONFIG, f"--workdir={tmp_path}", other)
  assert done.returncode == 2
  assert "corpora.msm_am.max_documents = 60, now it is 61" in done.stderr


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda path: None, "does not exist"),
    (lambda path: path.write_text("  \n"), "empty"),
    (lambda path: path.write_bytes(b"\xff\xfe caf\xe9"), "UTF-8"),
  ],
)
def test_a_spec_that_cannot_be_used_is_named(tmp_path, make, message):
  spec = tmp_path / "spec.md"
  make(spec)
  field = f"--config.specs.america.path={spec}"
  done = launch("generate", CONFIG, f"--workdir={tmp_path / 'w'}", field)
  assert done.returncode == 2, done.stderr
  assert str(spec) in done.stderr and message in done.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_workdir_that_is_not_writable_is_named(tmp_path):
  tmp_path.chmod(0o500)
  done = launch("generate", CONFIG, f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 2 and "--workdir=" in done.stderr


def test_doctor_names_versions_and_what_is_missing():
  done = launch("doctor")
  assert done.returncode == 0
  assert "jax 0." in done.stdout and "GOOGLE_API_KEY: not set" in done.stdout


def test_plan_writes_nothing(tmp_path):
  done = launch("plan", CONFIG, f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 0, done.stderr
  assert "30 steps" in done.stdout and "$0.00" in done.stdout
  assert not (tmp_path / "w").exists()


def test_a_study_is_planned_before_its_model_is_there(tmp_path):
  config = "--config=configs/msm_cheese.py:short"
  done = launch("plan", config, f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 0, done.stderr
  assert "'models/llama-3.1-8b' is not there yet" in done.stdout
  assert "still to pay" in done.stdout and "runs per seed" in done.stdout
  assert not (tmp_path / "w").exists()
  done = launch("train", config, f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 2 and "run `prepare` first" in done.stderr
