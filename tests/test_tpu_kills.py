"""Twenty kills at random while a job runs: it ends, and nothing is left."""

import hashlib
import json

import kill_drive
import pytest
from fake_cloud import FakeCloud


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_job_that_is_hurt_twenty_times_finishes_and_leaves_nothing(tmp_path, seed):
  pytest.importorskip("gcsfs")
  out, steps = tmp_path / "w", 500
  command = kill_drive.counting(out, steps)
  config = "tests/pod_study.py:4"
  with FakeCloud(
    tmp_path / "c", "compute", 4, kill_drive.TIMING, config, out, command
  ) as cloud:
    outcome = kill_drive.Drive(cloud, seed).run(20, limit_s=1500)
    assert outcome.code == 0 and not outcome.left, (outcome, cloud.said())
  chain = ""
  for step in range(1, steps + 1):
    chain = hashlib.sha256(f"{chain}{step}".encode()).hexdigest()
  assert json.loads((out / "count").read_text()) == [steps, chain]
