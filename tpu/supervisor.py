"""Looks after a job: creates, starts, recreates, gives up."""

from collections.abc import Callable, Mapping
from typing import Any

from tpu.board import Board
from tpu.job import Job
from tpu.targets import Target
from tpu.timing import Timing


def look_after(
  job: Job,
  target: Target,
  board: Board,
  *,
  settings: Mapping[str, Any] | None = None,
  dollars_per_hour: float | None = None,
  keep: bool = False,
  detach: bool = False,
  timing: Timing | None = None,
  say: Callable[[str], None] = print,
) -> None:
  """Does what is not done yet of a job, and returns when it is finished.

  Whatever was begun before, here or elsewhere, is taken up. Machines are deleted at
  the end, whichever it is.

  Args:
    job: what is asked. One of its name that is under way must agree with it; its code
      is then the one that was submitted.
    target: where.
    board: where hosts leave word.
    settings: of the target, for job.json.
    dollars_per_hour: of all machines together, for job.json.
    keep: leave the machines at the end.
    detach: return as soon as all hosts work.
    timing: None: what job.json or MSM_TPU_TIMING says.
    say: gets lines for people.

  Raises:
    UserError: the job was given up, or a person must do something; says what is left.
    Stopped: a person asked for that, or this process is to end (the job goes on).
  """
  raise NotImplementedError
