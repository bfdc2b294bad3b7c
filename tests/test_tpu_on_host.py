"""on_host.sh, on this machine: starts once, hands over secrets, stops, shows logs."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
import scripted_gcloud

ROOT = pathlib.Path(__file__).parent.parent
if not all(shutil.which(tool) for tool in ("flock", "setsid", "bash")):
  pytest.skip("util-linux is not installed", allow_module_level=True)

# Stands where the virtual environment's Python would: says what it was given, waits.
_AGENT = """#!{python} -IS
import json, os, signal, sys, time
def stop(*_):
  print("saved", flush=True)
  sys.exit(75)
signal.signal(signal.SIGTERM, stop)
kept = {{name: os.environ.get(name) for name in ("KEY", "FLAG", "PATH")}}
print(json.dumps([sys.argv[1:], kept, os.getcwd()]), flush=True)
time.sleep(60)
"""


@pytest.fixture
def host(tmp_path):
  """Returns a function that runs the script there: on_host(*words) -> (code, said)."""
  fake = scripted_gcloud.ScriptedGcloud(tmp_path)
  fake.answer(("secrets versions access latest --secret=gemini", {"out": "s3cret"}))
  python = tmp_path / "home" / "venv" / "bin" / "python"
  python.parent.mkdir(parents=True)
  python.write_text(_AGENT.format(python=sys.executable))
  python.chmod(0o755)
  environment = fake.shell().environment | {"MSM_JAX_HOME": str(tmp_path / "home")}

  def run(*words, **more):
    done = subprocess.run(
      ["bash", ROOT / "tpu" / "on_host.sh", *words],
      capture_output=True,
      text=True,
      env=environment | more,
      cwd=tmp_path,
      timeout=50,
    )
    return done.returncode, done.stdout + done.stderr

  run.home, run.told, run.answer = tmp_path / "home", fake.told, fake.answer
  yield run
  for path in (tmp_path / "home" / "run").glob("*.pid"):
    pid = int(path.read_text())
    with contextlib.suppress(ProcessLookupError):
      os.kill(pid, signal.SIGKILL)


def log_of(host, job="study"):
  deadline = time.monotonic() + 40
  while time.monotonic() < deadline:
    code, said = host("log", job)
    if code == 0 and said.strip():
      return said
    time.sleep(0.1)
  raise AssertionError(said)


START = ["start", "study", "train", "--env=FLAG=a b", "--secret=KEY=gemini"]
AGENT = ["--", "--board=gs://b", "--host=3", "--", "python", "launch.py", "x y"]


def test_an_agent_gets_arguments_environment_and_secrets_and_is_started_once(host):
  code, said = host(*START, "--project=p", *AGENT)
  assert code == 0 and "study.train started" in said
  line = log_of(host)
  argv, kept, folder = json.loads(line.splitlines()[0])
  assert argv == ["-m", "tpu.host", *AGENT[1:]]
  assert kept["KEY"] == "s3cret" and kept["FLAG"] == "a b"
  assert kept["PATH"].startswith(str(host.home / "venv" / "bin"))
  assert folder == str(ROOT)
  assert "--project=p" in host.told()[0] and "s3cret" not in said
  code, said = host(*START, *AGENT)
  assert code == 0 and "runs already" in said
  code, said = host("stop", "study")
  assert code == 0 and "stopping study.train" in said
  while "saved" not in (text := log_of(host)):
    time.sleep(0.1)
  assert text.count("tpu.host") == 1


def test_another_step_starts_while_a_job_of_another_name_runs(host):
  assert host("start", "study", "train", *AGENT)[0] == 0
  assert "started" in host("start", "study2", "train", *AGENT)[1]
  assert "stopping study2.train" in host("stop", "study2")[1]
  assert "runs already" in host("start", "study", "train", *AGENT)[1]


def test_a_secret_that_cannot_be_read_starts_nothing(host):
  host.answer(("secrets", {"err": "ERROR: (gcloud.secrets.versions.access) NOT_FOUND"}))
  code, said = host("start", "study", "eval", "--secret=KEY=other", *AGENT)
  assert code == 2 and "error: on_host.sh: secret other cannot be read" in said
  assert not list((host.home / "run").glob("*.pid"))


def test_a_worker_adds_its_number_to_the_first_of_its_slice(host, tmp_path):
  curl = tmp_path / "gcloud" / "bin" / "curl"
  curl.write_text("#!/bin/sh\necho 2\n")
  curl.chmod(0o755)
  words = ["start", "study", "train", "--first=4", "--", "--host=worker"]
  assert host(*words)[0] == 0
  assert '"--host=6"' in log_of(host)


@pytest.mark.parametrize(
  "words, says",
  [
    ([], "start, stop or log?"),
    (["log", "other"], "other has not run here yet"),
    (["start", "a", "b", "--flag=x", "--"], "unknown argument: --flag=x"),
  ],
)
def test_what_is_not_understood_is_told(host, words, says):
  code, said = host(*words)
  assert code == 2 and says in said


def test_nothing_is_stopped_where_nothing_runs(host):
  assert host("stop", "study") == (0, "")
