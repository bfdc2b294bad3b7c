"""Runs of several processes, and runs that end before they are done."""

import json
import pathlib
import time

import many_processes
import numpy as np
import pytest
from test_train import pieces

from msm_jax import train

STEPS = 12


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
  return many_processes.write_rows(tmp_path_factory.mktemp("rows") / "r", pieces(80))


def job(rows, run_dir, mesh, **changes):
  base = {"rows": rows, "run_dir": str(run_dir), "mesh": mesh}
  return {**base, "num_train_steps": STEPS, **changes}


@pytest.fixture(scope="module")
def straight(rows, tmp_path_factory):
  """A run of one process that nothing disturbed."""
  out = tmp_path_factory.mktemp("straight")
  done = many_processes.run(out, job(rows, out / "run", {"data": 1}))
  assert done[0][0] == 0, done[0][1]
  return out


def losses(run_dir: pathlib.Path) -> list[float]:
  lines = many_processes.figures(run_dir)
  assert [line["step"] for line in lines] == list(range(1, len(lines) + 1))
  return [line["train/loss"] for line in lines]


@pytest.mark.slow
@pytest.mark.parametrize(
  ("count", "num_microbatches"),
  [(2, 1), (4, 2)],
)
def test_processes_read_their_own_rows_and_make_the_same_losses(
  rows, straight, tmp_path, count, num_microbatches
):
  many = job(rows, tmp_path / "run", {"data": count}, num_microbatches=num_microbatches)
  done = many_processes.run(tmp_path, many, count=count)
  assert [code for code, _ in done] == [0] * count, done
  read = [many_processes.seen(tmp_path, i)["read"] for i in range(count)]
  assert {len(own) for own in read} == {STEPS * 8 // count}
  assert sorted(row for own in read for row in own) == list(range(STEPS * 8))
  ours, reference = losses(tmp_path / "run"), losses(straight / "run")
  np.testing.assert_allclose(ours, reference, rtol=1e-5)


@pytest.mark.parametrize(
  ("num_steps", "num_kills"), [(STEPS, 1), pytest.param(20, 3, marks=pytest.mark.slow)]
)
def test_a_run_that_was_killed_at_any_step_ends_as_the_one_that_was_not(
  rows, straight, tmp_path, num_steps, num_kills
):
  settings = {"num_train_steps": num_steps, "checkpoint_every_steps": 3}
  torn, whole = job(rows, tmp_path / "run", {"data": 1}, **settings), straight
  if num_steps != STEPS:
    whole = tmp_path / "whole"
    many_processes.run(whole, job(rows, whole / "run", {"data": 1}, **settings))
  drawn = np.random.default_rng(0).choice(
    np.arange(4, num_steps), num_kills, replace=False
  )
  for at_step in sorted(drawn.tolist()):
    hurt = {"victim": 0, "at_step": at_step, "signal": "SIGKILL"}
    code, _ = many_processes.run(tmp_path, torn | hurt)[0]
    assert code == many_processes.KILLED
  done = many_processes.run(tmp_path, torn)
  assert done[0][0] == 0, done
  ours, theirs = (many_processes.seen(out)["digests"] for out in (tmp_path, whole))
  assert ours == theirs
  assert many_processes.figures(tmp_path / "run") == many_processes.figures(
    whole / "run"
  )


@pytest.mark.slow
def test_a_signal_to_one_of_four_stops_all_on_one_step_and_loses_none(
  rows, straight, tmp_path
):
  run_dir = tmp_path / "run"
  hurt = {"victim": 2, "at_step": 5, "signal": "SIGTERM"}
  done = many_processes.run(tmp_path, job(rows, run_dir, {"data": 4}, **hurt), count=4)
  assert [code for code, _ in done] == [75] * 4, done
  said = {error.strip().splitlines()[-1] for _, error in done}
  assert len(said) == 1 and "stopped at step" in said.pop()
  (saved,) = (run_dir / "checkpoints").iterdir()
  assert int(saved.name) == len(losses(run_dir)) < STEPS
  # On one process and another mesh it goes on where they stopped.
  again = job(rows, run_dir, {"data": 1, "fsdp": 2})
  done = many_processes.run(tmp_path, again, num_devices=2)
  assert done[0][0] == 0, done
  reference = losses(straight / "run")
  np.testing.assert_allclose(losses(run_dir), reference, rtol=1e-5)
  first_read = min(many_processes.seen(tmp_path)["read"])
  assert first_read == int(saved.name) * 8


@pytest.mark.slow
@pytest.mark.parametrize(
  ("victim", "number"), [(2, "SIGKILL"), (0, "SIGKILL"), (1, "SIGSTOP")]
)
def test_the_others_do_not_wait_for_a_process_that_is_lost(
  rows, straight, tmp_path, victim, number
):
  hurt = {"victim": victim, "at_step": 6, "signal": number}
  lost = job(
    rows,
    tmp_path / "run",
    {"data": 4},
    checkpoint_every_steps=2,
    settings={"process_deadline_s": 8.0},
    **hurt,
  )
  done = many_processes.run(tmp_path, lost, count=4)
  for i, (code, error) in enumerate(done):
    if i != victim:
      assert code == 75, (i, code, error)
      assert "run again to go on from the last checkpoint" in error.splitlines()[-1]
  stacks = list((tmp_path / "run").glob("stacks-process-*.txt"))
  assert victim == 0 or (stacks and "Thread" in stacks[0].read_text())
  if number == "SIGSTOP":
    assert any("process 1 was not heard of for 8 s" in error for _, error in done)
  if (victim, number) != (2, "SIGKILL"):
    return
  # Started again, it goes on to the same end.
  sound = {name: lost[name] for name in lost if name not in hurt}
  done = many_processes.run(tmp_path, sound, count=4)
  assert [code for code, _ in done] == [0] * 4, done
  reference = losses(straight / "run")
  np.testing.assert_allclose(losses(tmp_path / "run"), reference, rtol=1e-5)


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_is_passed_over_by_all_processes(
  rows, straight, tmp_path
):
  mesh = {"data": 1, "fsdp": 2}
  many = job(rows, tmp_path / "run", mesh, checkpoint_every_steps=4)
  done = many_processes.run(tmp_path, many, count=2)
  assert [code for code, _ in done] == [0, 0], done
  # Of one process: the other reads all that it needs.
  found = (tmp_path / "run" / "checkpoints" / "12" / "params").rglob("*")
  min(p for p in found if p.is_file() and p.stat().st_size > 5000).unlink()
  done = many_processes.run(tmp_path, many, count=2)
  assert [code for code, _ in done] == [0, 0], done
  assert "checkpoints/12 is damaged" in done[0][1]
  for number in range(2):  # both went on from step 8
    assert min(many_processes.seen(tmp_path, number)["read"]) // 8 == 8
  reference = losses(straight / "run")
  np.testing.assert_allclose(losses(tmp_path / "run"), reference, rtol=1e-5)


@pytest.mark.slow
def test_a_disk_without_room_ends_the_run_and_leaves_the_checkpoint_before(
  rows, tmp_path
):
  settings = {"checkpoint_every_steps": 4, "num_train_steps": 20}
  whole, short = tmp_path / "whole", tmp_path / "short"
  many_processes.run(whole, job(rows, whole / "run", {"data": 1}, **settings))
  kill = {"victim": 0, "at_step": 10, "signal": "SIGKILL"}
  sound = job(rows, short / "run", {"data": 1}, **settings)
  many_processes.run(short, sound | kill)
  kept = {int(path.name) for path in (short / "run" / "checkpoints").iterdir()}
  ((code, error),) = many_processes.run(short, sound | {"max_file_bytes": 20_000})
  assert code == 2, error
  last = error.strip().splitlines()[-1]
  assert "could not be written (File too large), the last good checkpoint" in last
  assert kept <= {int(path.name) for path in (short / "run" / "checkpoints").iterdir()}
  ((code, error),) = many_processes.run(short, sound)
  assert code == 0, error
  assert many_processes.seen(whole)["digests"] == many_processes.seen(short)["digests"]
  assert many_processes.figures(whole / "run") == many_processes.figures(short / "run")


@pytest.mark.slow
def test_an_update_that_never_ends_ends_the_process_with_its_stacks(rows, tmp_path):
  hurt = {"victim": 0, "at_step": 6, "signal": "hang"}
  settings = {"step_deadline_s": 30.0}
  stuck = job(rows, tmp_path / "run", {"data": 1}, settings=settings, **hurt)
  ((code, error),) = many_processes.run(tmp_path, stuck)
  assert code == 75 and "config.run.step_deadline_s is 30" in error
  stacks = (tmp_path / "run" / "stacks-process-0.txt").read_text()
  assert "write_then_hurt" in stacks


def test_calls_end_where_a_checkpoint_is_wanted_whatever_was_done_before():
  config = train.TrainConfig(
    num_train_steps=23,
    batch_size=8,
    seq_len=32,
    optimizer=None,
    steps_per_call=10,
    checkpoint_at=(1, 2, 4, 23),
  )
  assert train.call_ends(config, 0) == [1, 2, 4, 10, 20, 23]
  assert train.call_ends(config, 4) == [10, 20, 23]
  assert train.call_ends(config, 23) == []


def test_the_book_of_time_counts_restarts_and_updates_made_in_vain(tmp_path):
  from msm_jax.training.goodput import Goodput

  first = Goodput(tmp_path)
  first.begin(0)
  with first.lost("data"):
    pass
  first.advance(10)
  first.saved(6)
  first.advance(12)
  first.write()
  second = Goodput(tmp_path)
  assert second.saved_step == 6
  second.begin(6)
  with second.lost("data"):
    time.sleep(0.3)
  second.write()
  found = json.loads((tmp_path / "goodput.json").read_text())
  assert found["starts"] == 2 and found["step"] == 6 and found["redone_s"] >= 0
  names = ("restore_s", "compile_s", "data_s", "save_s", "redone_s")
  share = 1 - sum(found[name] for name in names) / found["wall_s"]
  assert found["goodput"] == pytest.approx(share, abs=0.01) and share < 0.9
