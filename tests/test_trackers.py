"""Trackers: each gets what the JSON lines get, and none can end a run."""

import shutil
import time

import pytest

from msm_jax.errors import UserError
from msm_jax.training import trackers


def about(run_dir, first_step: int = 0) -> trackers.About:
  return trackers.About(
    run_dir, name="msm seed 0", project="test", config={"a": 1}, first_step=first_step
  )


def test_a_tracker_that_is_not_known_or_not_installed_is_named(monkeypatch):
  trackers.check(())
  with pytest.raises(UserError, match=r"names 'tensorbord': it is not one of tensorb"):
    trackers.check(("tensorbord",))
  monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'msm-jax\[wandb\]'"):
    trackers.check(("wandb",))


def test_a_run_has_one_identity_wherever_it_goes_on(tmp_path):
  assert about(tmp_path).identity == about(tmp_path, 7).identity
  assert about(tmp_path).identity != about(tmp_path / "other").identity


def test_a_run_that_begins_again_has_another_identity(tmp_path):
  before = about(tmp_path / "run").identity
  shutil.rmtree(tmp_path / "run")
  assert about(tmp_path / "run").identity != before


class Noting:
  """Takes metrics until it has had enough."""

  def __init__(self, most: int):
    self.taken, self.most, self.closed = [], most, False

  def log(self, step, metrics):
    if len(self.taken) == self.most:
      raise ConnectionError("no answer\nfrom the service")
    self.taken.append((step, dict(metrics)))

  def close(self):
    self.closed = True


def test_one_that_fails_is_dropped_loudly_and_the_others_go_on(monkeypatch, capfd):
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  sound, weak, found = Noting(99), Noting(2), trackers.Trackers()
  for name, tracker in (("sound", sound), ("weak", weak)):
    found.add(name, lambda tracker=tracker: tracker)
  found.add("absent", lambda: 1 // 0)
  for step in range(1, 6):
    found.log(step, {"train/loss": 1.0})
  found.close()
  assert [step for step, _ in sound.taken] == [1, 2, 3, 4, 5] and sound.closed
  assert len(weak.taken) == 2 and not weak.closed
  said = capfd.readouterr().err.splitlines()
  assert len(said) == 2  # one line each, however many steps follow
  assert "tracker absent failed (ZeroDivisionError" in said[0]
  assert "tracker weak failed (ConnectionError: no answer from" in said[1]


def test_event_files_say_what_was_logged_and_hide_what_was_made_again(tmp_path):
  pytest.importorskip("tensorboardX")
  reading = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator"
  )
  for first, last in ((0, 6), (4, 8)):  # killed after step 6, saved at step 4
    found = trackers.start(("tensorboard",), about(tmp_path, first))
    for step in range(first + 1, last + 1):
      found.log(step, {"train/loss": 10.0 * step + first})
    found.close()
    time.sleep(1.1)  # files are named by the second
  events = reading.EventAccumulator(str(tmp_path / "tensorboard"))
  events.Reload()
  expected = [10.0, 20.0, 30.0, 40.0, 54.0, 64.0, 74.0, 84.0]
  assert [event.value for event in events.Scalars("train/loss")] == expected
