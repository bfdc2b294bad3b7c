"""The set-up of bare machines, with stand-ins for pip and uv; the image beside it."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
SETUP = ROOT / "tpu" / "setup.sh"


_TOOLS = ("bash", "cat", "chmod", "cut", "dirname", "flock", "grep", "mkdir", "rm")
_TOOLS += ("sh", "sha256sum", "sleep", "tail")


def makes_venv(folder):
  """Returns shell that makes an environment whose Python is this one, less JAX."""
  python = f'"{folder}/bin/python"'
  lines = '[ "$2" = "import jax" ] || exec "%s" -IS "$@"'
  script = f"""printf '#!/bin/sh\n{lines}\n' "$REAL" """
  return f'mkdir -p "{folder}/bin" && {script} >{python} && chmod +x {python}'


class Machine:
  """A bare machine: a PATH with Python 3.11 and uv that note what they are asked."""

  def __init__(self, tmp_path):
    self.bin, self.venv = tmp_path / "bin", tmp_path / "home" / "venv"
    self.asked = tmp_path / "asked"
    self.bin.mkdir()
    for place in ("/usr/bin", "/bin"):
      for tool in _TOOLS:
        if os.path.exists(f"{place}/{tool}") and not (self.bin / tool).exists():
          (self.bin / tool).symlink_to(f"{place}/{tool}")
    self.has("python3", "")  # has pip, which is not asked for more
    self.has("python3.11", f'if [ "$2" = venv ]; then {makes_venv("$3")}; fi')
    self.has("uv", "")

  def has(self, tool, does):
    script = f'#!/bin/sh\necho "{tool} $*" >>"{self.asked}"\n{does}\n'
    (self.bin / tool).unlink(missing_ok=True)  # or what the link leads to is written
    (self.bin / tool).write_text(script)
    (self.bin / tool).chmod(0o755)

  def set_up(self, script=SETUP, **environment):
    given = self.environment | {"TRIES": "1"} | environment
    self.asked.write_text("")
    return subprocess.run(
      ["bash", str(script)], env=given, capture_output=True, text=True
    )

  @property
  def environment(self):
    given = {"PATH": str(self.bin), "HOME": str(self.venv.parent), "EXTRAS": "data"}
    return given | {"VENV": str(self.venv), "REAL": sys.executable}

  def lines(self):
    asked = self.asked.read_text().splitlines()
    return [line for line in asked if not line.startswith("python3 -m pip --version")]


@pytest.fixture
def machine(tmp_path):
  return Machine(tmp_path)


def test_the_first_time_installs_and_the_second_does_nothing(machine):
  done = machine.set_up()
  assert done.returncode == 0, done.stderr
  assert done.stdout.splitlines()[-1].startswith("setup: done in")
  assert [line.split()[0] for line in machine.lines()] == [
    *("python3.11", "python3.11", "uv")  # asked whether it is whole; the venv
  ]
  install = machine.lines()[-1]
  assert f"--constraint {ROOT}/constraints.txt" in install
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  wanted = (machine.venv / "requirements.txt").read_text().splitlines()
  extra = project["optional-dependencies"]["data"]
  assert wanted == [*project["dependencies"], *extra]
  again = machine.set_up()
  assert again.returncode == 0 and again.stdout == "" and machine.lines() == []
  other = machine.set_up(EXTRAS="data,quant")
  assert other.returncode == 0 and "uv pip install" in machine.lines()[-1]


def test_what_failed_is_tried_again_and_told_in_one_line(machine):
  machine.has("uv", "echo 'error: Failed to fetch: connection reset' >&2; exit 1")
  machine.has("sleep", "")
  done = machine.set_up(TRIES="3")
  assert done.returncode == 2
  said = "packages cannot be installed: error: Failed to fetch: connection reset"
  assert done.stderr == f"error: setup.sh: {said}\n"
  assert sum(line.startswith("uv pip") for line in machine.lines()) == 3
  assert machine.set_up().returncode == 2  # not taken for done


def test_where_python_is_too_old_uv_gets_one(machine):
  machine.has("python3.11", "exit 127")
  machine.has("uv", f'if [ "$1" = venv ]; then {makes_venv("$5")}; fi')
  done = machine.set_up()
  assert done.returncode == 0, done.stderr
  assert machine.lines()[-2] == f"uv venv --no-project --python 3.11 {machine.venv}"


def test_two_at_once_install_once(machine):
  machine.has("uv", "sleep 1")
  commands = f"bash {SETUP} & bash {SETUP}; wait"
  machine.asked.write_text("")
  subprocess.run(
    ["bash", "-c", commands], env=machine.environment, check=True, capture_output=True
  )
  assert sum(line.startswith("uv pip") for line in machine.lines()) == 1


def test_an_extra_that_there_is_not_is_refused_first(machine):
  done = machine.set_up(EXTRAS="data,tpus")
  assert done.returncode == 2 and machine.lines() == []
  assert done.stderr.startswith("error: setup.sh: EXTRAS=tpus: pyproject.toml has no")


def test_half_a_push_is_noticed(machine, tmp_path):
  (tmp_path / "code" / "tpu").mkdir(parents=True)
  script = shutil.copy(SETUP, tmp_path / "code" / "tpu")
  done = machine.set_up(script)
  assert done.returncode == 2 and "push the whole repository" in done.stderr


def test_the_script_is_sound():
  if shutil.which("shellcheck") is None:
    pytest.skip("shellcheck is not installed")
  subprocess.run(["shellcheck", SETUP], check=True)


def test_the_image_is_set_up_before_the_code_comes():
  lines = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
  words = [line.split(maxsplit=1)[0] for line in lines if re.match("[A-Z]+ ", line)]
  assert words[-3:] == ["COPY", "USER", "ENTRYPOINT"] and lines[-1].endswith(
    '["python"]'
  )
  first = next(line for line in lines if line.startswith("COPY"))
  for name in first.split()[1:-1]:
    assert (ROOT / name).is_file()
  set_up = next(line for line in lines if line.startswith("RUN"))
  assert "bash tpu/setup.sh" in set_up and "EXTRAS=${EXTRAS}" in set_up


def test_the_image_has_nothing_that_git_ignores():
  kept_out = (ROOT / ".dockerignore").read_text().splitlines()
  for line in (ROOT / ".gitignore").read_text().splitlines():
    name = line.strip("/")
    assert name in kept_out or f"**/{name}" in kept_out, line
  needed = [
    "pyproject.toml",
    "constraints.txt",
    "launch.py",
    "tpu",
    "msm_jax",
    "configs",
  ]
  assert not set(needed) & set(kept_out)
