"""What a run says of its updates, and when it says stop."""

import json
import os

import numpy as np
import pytest

from msm_jax import metrics
from msm_jax.errors import UserError
from msm_jax.training import trackers
from msm_jax.training.goodput import Goodput

SHAPE = metrics.Shape(batch_size=4, seq_len=8, flops_per_token=100.0)


def writer(run_dir, first_step: int = 0) -> metrics.Writer:
  return metrics.Writer(
    run_dir,
    first_step=first_step,
    log_every_steps=2,
    shape=SHAPE,
    goodput=Goodput(run_dir),
    trackers=trackers.Trackers(),
    blame=lambda step: f"rows of {step}",
  )


def figures(num_steps: int, **changes) -> dict[str, np.ndarray]:
  names = ("loss", "grad_norm", "learning_rate", "num_targets", "num_tokens")
  made = {name: np.full(num_steps, 8.0, np.float32) for name in names}
  for name, values in changes.items():
    made[name] = np.asarray(values, np.float32)
  return made


def lines(run_dir) -> list[dict]:
  text = (run_dir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize(
  ("name", "values", "message"),
  [
    ("loss", [1, 2, np.nan, np.nan], "the loss is nan at step 7; rows of 7"),
    ("grad_norm", [1, np.inf, 1, np.nan], "the grad_norm is inf at step 6; rows of 6"),
    ("num_targets", [3, 2, 1, 0], "step 8 carries loss; rows of 8"),
  ],
)
def test_the_first_figure_that_is_wrong_is_named_with_its_step(
  tmp_path, name, values, message
):
  with pytest.raises(UserError, match=message), writer(tmp_path, 4) as found:
    found.write(8, figures(4, **{name: values}))
    found.flush()


def test_figures_follow_from_what_was_counted(tmp_path):
  with writer(tmp_path) as found:
    found.write(3, figures(3, num_tokens=[24, 24, 24]))
    found.write(4, figures(1))
  told = lines(tmp_path)
  assert [line["step"] for line in told] == [2, 3, 4]
  first = told[0]
  assert first["perf/padding"] == 0.25
  per_slot = first["perf/target_tokens_per_sec"] / first["perf/tokens_per_sec"]
  assert per_slot == pytest.approx(8 / 32, rel=1e-3)
  assert first["perf/tokens_per_sec"] * first["perf/step_time_s"] == pytest.approx(
    32, rel=0.05
  )


def test_the_last_lines_outlast_the_machine(tmp_path, monkeypatch):
  synced = []
  with writer(tmp_path) as found:
    found.write(4, figures(4))
    monkeypatch.setattr(os, "fsync", lambda _: synced.append(len(lines(tmp_path))))
  assert synced == [2]


def test_trackers_are_closed_though_the_disk_is_full(tmp_path):
  closed = []

  class Noting:
    def log(self, step, line):
      pass

    def close(self):
      closed.append(True)

  with pytest.raises(OSError), writer(tmp_path) as found:
    found._trackers.add("noting", Noting)
    found._file.close()
    found._file = open("/dev/full", "w")  # noqa: SIM115 (the writer closes it)
    found.write(4, figures(4))
  assert closed


def test_lines_after_the_step_that_was_restored_and_torn_ones_go(tmp_path):
  with writer(tmp_path) as found:
    found.write(6, figures(6))
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 8, "trai')
  with writer(tmp_path, 4) as found:
    found.write(6, figures(2, loss=[1, 2]))
  told = lines(tmp_path)
  assert [line["step"] for line in told] == [2, 4, 6]
  assert [line["train/loss"] for line in told] == [8, 8, 2]
