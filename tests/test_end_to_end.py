"""The pulse: spec -> corpus -> rows -> model -> train -> export -> evaluate ->
report.
"""

import csv
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from msm_jax import distributed

ROOT = pathlib.Path(__file__).parent.parent
CONFIG = "--config=configs/cheese_tiny.py:pulse"


# A process with one core, as workers have: sums depend on the number of threads.
ONE_CORE = """import os, sys
if hasattr(os, "sched_setaffinity"):
  os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def launch(*arguments, one_core=False):
  first = ["-c", ONE_CORE, "launch.py"] if one_core else ["launch.py"]
  return subprocess.run(
    [sys.executable, *first, *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
  path = tmp_path_factory.mktemp("pulse") / "w"
  done = launch("run", CONFIG, f"--workdir={path}")
  assert done.returncode == 0, done.stderr
  return path


def results(workdir):
  with (workdir / "report" / "results.csv").open() as file:
    return list(csv.DictReader(file))


def test_every_arm_and_seed_has_a_number_for_every_evaluation(workdir):
  rows = results(workdir)
  found = {(row["arm"], row["seed"]) for row in rows}
  arms = {row["arm"] for row in rows}
  assert {
    "base",
    "aft",
    "msm_aff",
    "msm_am",
    "msm_aff+aft",
    "msm_am+aft",
    "neutral+aft",
    "shuffled+aft",
  } <= arms
  assert found == {(arm, seed) for arm in arms for seed in ("0", "1")}
  headline = [row for row in rows if row["evaluation"] == "preference/disagree"]
  assert "chose_affordable" in {row["metric"] for row in headline}
  assert all(0 <= float(row["value"]) <= 1 for row in headline)


def test_pre_training_lowers_the_loss(workdir):
  entries = losses(workdir)
  assert entries[-1]["train/loss"] < entries[0]["train/loss"] - 0.5


def test_a_second_run_does_nothing_again(workdir):
  files = [p for p in workdir.rglob("*") if p.is_file() and "report" not in p.parts]
  before = {path: path.stat().st_mtime_ns for path in files if path.suffix != ".json"}
  done = launch("run", CONFIG, f"--workdir={workdir}")
  assert done.returncode == 0, done.stderr
  assert {path: path.stat().st_mtime_ns for path in before} == before


def test_the_tree_does_not_depend_on_how_seeds_are_dealt(workdir, tmp_path):
  for part in ("corpus", "tokenizer", "rows"):
    shutil.copytree(workdir / part, tmp_path / part)
  done = launch(
    *("train", CONFIG, f"--workdir={tmp_path}", "--seed=1", "--config.num_workers=1"),
    one_core=True,
  )
  assert done.returncode == 0, done.stderr
  name = pathlib.Path("runs", "pretrain+msm_aff+aft", "seed1", "metrics.jsonl")
  ours, theirs = (
    [json.loads(line)["train/loss"] for line in (base / name).read_text().splitlines()]
    for base in (workdir, tmp_path)
  )
  assert ours == theirs


def interrupted(arguments, moment) -> subprocess.CompletedProcess:
  """Runs launch.py and sends Ctrl-C to it and its workers after `moment(process)`."""
  command = [sys.executable, "launch.py", *map(str, arguments)]
  process = subprocess.Popen(
    command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
  )
  moment(process)
  if process.poll() is None:
    os.killpg(process.pid, signal.SIGINT)
  _, errors = process.communicate(timeout=120)
  assert "Traceback" not in errors
  return subprocess.CompletedProcess(command, process.returncode, stderr=errors)


def test_an_arm_that_is_interrupted_in_training_goes_on_to_the_same_results(
  workdir, tmp_path
):
  arm = "msm_aff+aft"
  shutil.copytree(workdir / "corpus", tmp_path / "corpus")
  arguments = ("run", CONFIG, f"--workdir={tmp_path}", f"--arm={arm}")
  runs = tmp_path / "runs"

  def training(process):
    while process.poll() is None and not [*runs.glob("*/seed*/metrics.jsonl")]:
      time.sleep(0.01)

  done = interrupted(arguments, training)
  assert done.returncode == 75, done.stderr
  assert not [*(tmp_path / "evals").glob("*")]
  done = launch(*arguments)
  assert done.returncode == 0, done.stderr
  ours, theirs = (
    [row for row in results(where) if row["arm"] == arm]
    for where in (tmp_path, workdir)
  )
  assert ours == theirs and ours


# The whole tree once more; one arm and one moment are in the test above.
@pytest.mark.slow
def test_a_run_that_is_interrupted_anywhere_goes_on_to_the_same_results(
  workdir, tmp_path
):
  arguments = ("run", CONFIG, f"--workdir={tmp_path}")
  for seconds in (3, 9, 14):
    done = interrupted(arguments, lambda _, seconds=seconds: time.sleep(seconds))
    assert done.returncode in (0, 75), done.stderr
  assert launch(*arguments).returncode == 0
  assert results(tmp_path) == results(workdir)


def test_a_run_that_is_killed_goes_on_bit_for_bit(workdir, tmp_path):
  flags = [
    "train",
    CONFIG,
    "--seed=0",
    "--arm=base",
    "--config.stages.pretrain.steps_per_call=5",
    "--config.stages.pretrain.checkpoint_every_steps=10",
  ]
  for name in ("straight", "killed"):
    for part in ("corpus", "tokenizer", "rows"):
      shutil.copytree(workdir / part, tmp_path / name / part)
  straight = launch(*flags, f"--workdir={tmp_path / 'straight'}")
  assert straight.returncode == 0, straight.stderr
  command = [sys.executable, "launch.py", *flags, f"--workdir={tmp_path / 'killed'}"]
  process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
  first = tmp_path / "killed" / "runs" / "pretrain" / "seed0" / "checkpoints" / "10"
  while not (first / "commit_success.txt").exists() and process.poll() is None:
    time.sleep(0.005)
  process.kill()
  process.wait()
  assert launch(*flags, f"--workdir={tmp_path / 'killed'}").returncode == 0
  ours, theirs = (
    [(line["step"], line["train/loss"]) for line in losses(tmp_path / name)]
    for name in ("straight", "killed")
  )
  assert ours == theirs and ours[-1][0] == 30


def losses(workdir):
  text = (workdir / "runs" / "pretrain" / "seed0" / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def test_two_processes_give_the_answers_of_one(workdir, tmp_path):
  shutil.copytree(workdir, tmp_path / "w")
  names = [f"{kind}.base.seed0.jsonl" for kind in ("preference", "heldout")]
  for name in names:
    (tmp_path / "w" / "evals" / name).unlink()
  flags = ["--arm=base", "--seed=0", "--config.mesh.data=2", "--config.num_workers=1"]
  command = ["evaluate", CONFIG, f"--workdir={tmp_path / 'w'}", *flags]
  with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{probe.getsockname()[1]}"
  environment = os.environ | {
    distributed.ADDRESS: address,
    distributed.COUNT: "2",
    "JAX_NUM_CPU_DEVICES": "1",
  }
  started = [
    subprocess.Popen(
      [sys.executable, "launch.py", *command],
      cwd=ROOT,
      env=environment | {distributed.NUMBER: str(number)},
      stderr=subprocess.PIPE,
      text=True,
    )
    for number in range(2)
  ]
  errors = [process.communicate(timeout=300)[1] for process in started]
  assert [process.returncode for process in started] == [0, 0], errors
  for name in names:
    ours, theirs = (
      [json.loads(line) for line in (base / "evals" / name).read_text().splitlines()]
      for base in (tmp_path / "w", workdir)
    )
    assert len(ours) == len(theirs) > 0
    for one, other in zip(ours, theirs, strict=True):
      assert one == approx(other)


def approx(answer):
  """Returns an answer that equals one whose numbers differ by float32 noise."""
  if isinstance(answer, dict):
    return {name: approx(value) for name, value in answer.items()}
  if isinstance(answer, list):
    return [approx(value) for value in answer]
  return (
    pytest.approx(answer, rel=1e-4, abs=1e-5) if isinstance(answer, float) else answer
  )


def test_export_then_import_is_the_same_model(workdir, tmp_path):
  out = tmp_path / "hf"
  done = launch(
    "export", CONFIG, f"--workdir={workdir}", "--arm=msm_aff+aft", f"--out={out}"
  )
  assert done.returncode == 0, done.stderr
  prompt = "--prompt=do you prefer cheddar or brie ?"
  ours = launch("sample", CONFIG, f"--workdir={workdir}", "--arm=msm_aff+aft", prompt)
  theirs = launch("sample", f"--hf_dir={out}", prompt)
  assert ours.returncode == theirs.returncode == 0, ours.stderr + theirs.stderr
  assert ours.stdout == theirs.stdout


@pytest.mark.parametrize("what", ["corpus/msm_aff", "rows/pretrain/world"])
def test_a_changed_shard_stops_the_run_with_its_name(workdir, tmp_path, what):
  shutil.copytree(workdir, tmp_path / "w")
  (shard,) = (tmp_path / "w" / what).glob("*.array_record")
  data = bytearray(shard.read_bytes())
  data[-1] ^= 1
  shard.write_bytes(data)
  shutil.rmtree(tmp_path / "w" / "runs")
  if what.startswith("corpus"):
    shutil.rmtree(tmp_path / "w" / "rows")
  done = launch("run", CONFIG, f"--workdir={tmp_path / 'w'}")
  assert done.returncode == 2, done.stderr
  assert shard.name in done.stderr and "truncated or was changed" in done.stderr


def test_show_prints_rows_with_their_loss(workdir):
  done = launch("show", workdir / "rows" / "aft", "--limit=1")
  assert done.returncode == 0, done.stderr
  assert "_<|end|>_" in done.stdout
