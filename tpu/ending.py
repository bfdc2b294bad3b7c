"""Waiting for what ends by itself when its work is over."""

import time

from msm_jax.errors import UserError
from tpu.job import Job
from tpu.shell import Failed
from tpu.targets import Target

PATIENCE_S = 60.0


def wait(target: Target, job: Job, look_s: float) -> None:
  """Waits until no host of a job runs, where the cloud itself ends them; not long.

  The board says that the work is over before the agents have ended, and Slurm would
  note a job as cancelled that is deleted then.

  Args:
    target: where.
    job: which.
    look_s: between two looks, seconds.
  """
  deadline = time.monotonic() + PATIENCE_S
  while target.restarts_itself and time.monotonic() < deadline:
    try:
      if not target.find(job).hosts:
        return
    except (Failed, OSError, UserError):
      return  # whoever deletes it next is told, and tries again
    time.sleep(look_s)
