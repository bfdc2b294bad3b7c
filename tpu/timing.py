"""How long hosts and supervisor wait for what."""

import dataclasses
import json
import os
import random
from collections.abc import Mapping

from msm_jax.errors import UserError

VARIABLE = "MSM_TPU_TIMING"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Timing:
  """Intervals, in seconds. A job carries them in job.json, so that all agree.

  Attributes:
    poll_s: between two looks of an agent at the board, and at its command.
    beat_s: between two beats of a host.
    gather_s: between two uploads of a host's log and progress.
    lost_s: a host whose beat did not change for so long is lost.
    barrier_s: agents wait so long for one another, then end (75) and name who missed.
    settle_s: after the first host failed, the others may take so long to end by
      themselves.
    grace_s: between SIGTERM and SIGKILL of a command; a checkpoint is saved in it.
    notice_s: machines that the cloud takes away may live so long still, and save.
    backoff_s: before the second try of what failed; doubles each time.
    max_backoff_s: no wait between two tries is longer.
    look_s: between two looks of the supervisor.
    first_beat_s: from the start of an agent to its first beat.
  """

  poll_s: float = 3.0
  beat_s: float = 10.0
  gather_s: float = 10.0
  lost_s: float = 60.0
  barrier_s: float = 900.0
  settle_s: float = 45.0
  grace_s: float = 90.0
  notice_s: float = 30.0  # of Compute Engine for spot machines
  backoff_s: float = 10.0
  max_backoff_s: float = 300.0
  look_s: float = 15.0
  first_beat_s: float = 120.0

  def backoff(self, failures: int) -> float:
    """Returns how long to wait after so many failures in a row, with jitter."""
    doubled = self.backoff_s * 2.0 ** min(max(failures, 1) - 1, 30)
    return min(doubled, self.max_backoff_s) * random.uniform(0.75, 1.0)


def of_environment(environment: Mapping[str, str] = os.environ) -> Timing:
  """Returns the defaults, changed by the JSON object in MSM_TPU_TIMING.

  Raises:
    UserError: it is no such object.
  """
  text = environment.get(VARIABLE, "{}")
  try:
    return Timing(**{name: float(value) for name, value in json.loads(text).items()})
  except (ValueError, TypeError, AttributeError):
    known = ", ".join(field.name for field in dataclasses.fields(Timing))
    raise UserError(
      f"{VARIABLE}={text} is no JSON object of seconds; its fields are {known}"
    ) from None
