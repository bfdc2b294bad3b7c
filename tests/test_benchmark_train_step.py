"""The benchmark of a training step: what it needs to give a ratio."""

import argparse
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import train_step  # noqa: E402


def test_a_side_that_a_limit_names_and_that_dies_leaves_no_ratio():
  assert train_step.named_by_limits("llama8b", {"hf_lora"}) == ["hf_lora"]
  assert train_step.named_by_limits("llama8b", ()) == []
  # A side that cannot start: this environment has no MaxText.
  command = [sys.executable, "benchmarks/train_step.py", "--malloc=none"]
  done = subprocess.run(
    [*command, "--steps=1", "--sides=maxtext_f32", f"--maxtext={sys.prefix}"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 1, done.stdout + done.stderr
  assert "no ratio: maxtext_f32 ended" in done.stderr
  assert "ratio:" not in done.stdout


def test_sides_on_one_accelerator_take_memory_as_they_need_it():
  args = argparse.Namespace(workload="llama8b", malloc="none")
  assert train_step.environment(args)["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false"


def test_memory_is_the_devices_where_there_is_one():
  side = train_step.Side.__new__(train_step.Side)
  side.answers = [{"rss_mb": 10.0, "device_mb": 20.0}]
  assert side.peak_mb() == 20.0
  side.answers = [{"rss_mb": 10.0, "device_mb": None}]
  assert side.peak_mb() == 10.0


def test_benchmarks_find_the_package_without_installing_it(tmp_path):
  done = subprocess.run(
    [sys.executable, str(ROOT / "benchmarks" / "population.py"), "--help"],
    cwd=tmp_path,
    env={"PATH": "", "JAX_PLATFORMS": "cpu"},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.returncode == 0, done.stderr
