"""Whether a job is new, goes on, or contradicts one of its name that is under way."""

import dataclasses
from collections.abc import Callable

from msm_jax.errors import UserError
from tpu.board import Attempt, Board, Submission
from tpu.job import State
from tpu.targets import Target

_MUST_AGREE = ("config", "overrides", "machines", "provisioning", "workdir", "steps")


def submit(
  submission: Submission,
  target: Target,
  board: Board,
  say: Callable[[str], None],
) -> Submission:
  """Writes what is to be done on the board; returns what is looked after from now on.

  Raises:
    UserError: a job of this name is under way that is another one.
  """
  known = board.submission()
  if known is None:
    board.submit(submission)
    return submission
  if _is_under_way(known, target, board):
    _refuse_another(known, submission)
    if known.job.code != submission.job.code:
      say(
        f"note: {known.job.name} goes on with the code that was submitted; `python -m "
        "tpu stop` it and run again to use this one"
      )
    # Prices, settings and patience are those of whoever looks after it now.
    goes_on = dataclasses.replace(submission, job=known.job, time=known.time)
    board.submit(goes_on)
    return goes_on
  _clear(known, target)
  _begin_again(known, submission, board)
  return submission


def _is_under_way(known: Submission, target: Target, board: Board) -> bool:
  records = [board.attempt(step.name) for step in known.job.steps]
  phases = [record.phase for record in records if record is not None]
  if "gave_up" in phases or "stopped" in phases:
    return False
  to_do = len(records) - phases.count("finished")
  if not to_do:
    return False
  stops = board.is_to_stop()  # and host 0 has not said yet that all did
  if (phases and not stops) or known.target != target.name:
    return True
  whole, next_ = known.job, known.job.at(known.job.steps[-to_do])
  found = target.find(whole if target.restarts_itself else next_)
  if stops:
    return bool(found.hosts)
  return found.state not in (State.ABSENT, State.FAILED)  # asked for, perhaps in vain


def _clear(known: Submission, target: Target) -> None:
  """Deletes what failed in an earlier life, and was kept: it fails this one, too."""
  if known.target != target.name:
    return
  each = [known.job.at(step) for step in known.job.steps]
  for machines in [known.job] if target.restarts_itself else dict.fromkeys(each):
    if target.find(machines).state is State.FAILED:
      target.delete(machines)


def _refuse_another(known: Submission, new: Submission) -> None:
  where = f"--name={known.job.name} is a job that is under way"
  way_out = "choose another --name, or stop or delete that one first"
  if known.target != new.target:
    raise UserError(f"{where} on --target={known.target}, not {new.target}: {way_out}")
  for name in _MUST_AGREE:
    before, now = getattr(known.job, name), getattr(new.job, name)
    if before != now:
      raise UserError(
        f"{where} with {name} {_shown(before)}, not {_shown(now)}: {way_out}"
      )


def _begin_again(known: Submission, new: Submission, board: Board) -> None:
  """Lets hosts begin where an earlier life of the job ended."""
  board.forget_stop()
  same = known.job.but_for_code() == new.job.but_for_code()
  for step in new.job.steps:
    record = board.attempt(step.name)
    if record is not None and not (same and record.phase == "finished"):
      again = Attempt(attempt=record.attempt + 1, why="submitted again")
      board.put_attempt(step.name, again)
  board.submit(new)


def _shown(value: object) -> str:
  if isinstance(value, tuple):
    return " ".join(map(_shown, value)) or "nothing"
  return getattr(value, "name", None) or str(value)
