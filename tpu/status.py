"""What people ask of a job: how far, how fast, for how much, what is there.

Nothing here asks the cloud: what it said is handed in.
"""

import time
from collections.abc import Iterator, Sequence

from msm_jax import progress
from tpu import attempts
from tpu.board import Attempt, Beat, Board, Event, Submission
from tpu.job import Step
from tpu.targets import Found


def dollars(
  events: Sequence[Event], submission: Submission, now: float
) -> float | None:
  """Returns what machines cost so far; None where a price is not known.

  From when the supervisor first saw them ready to when it saw them gone. Clouds charge
  by the second; disks, network and the bucket are not in it.
  """
  prices = {
    "pod": submission.dollars_per_hour,
    "cpu": submission.cpu_dollars_per_hour,
  }
  spent = 0.0
  for place in {event.place for event in events if event.what == "came"}:
    if prices[place] is None:
      return None
    spent += machine_seconds(events, place, now) / 3600 * prices[place]
  return spent


def machine_seconds(events: Sequence[Event], place: str, now: float) -> float:
  """Returns how long machines of a place were there."""
  total, since = 0.0, None
  for event in [event for event in events if event.place == place]:
    if event.what == "came" and since is None:
      since = event.time
    elif event.what == "went" and since is not None:
      total, since = total + event.time - since, None
  return total + (now - since if since is not None else 0.0)


def lines(board: Board, found: Found | None = None) -> list[str]:
  """Returns all that is known of a job, for people.

  Args:
    board: of the job.
    found: what the cloud says; None: it was not asked.
  """
  submission = board.submission()
  if submission is None:
    return [f"{board.url}: nothing was submitted here", *_of_cloud(found)]
  return [
    *_of_job(submission),
    *(line for step in submission.job.steps for line in _of_step(board, step)),
    f"machines: {machines(board, submission)}",
    *_of_cloud(found),
  ]


def machines(board: Board, submission: Submission) -> str:
  """Returns how long machines were there, and for how much."""
  events, now = board.events(), time.time()
  seconds = machine_seconds(events, "pod", now)
  spent = dollars(events, submission, now)
  times = sum(event.what == "came" for event in events)
  price = "no price is known" if spent is None else f"${spent:.2f} so far"
  return f"came {times} times, there for {progress.duration(seconds)}, {price}"


def how_far(board: Board, step: str) -> str:
  """Returns how far a step is, on one line; '' before anything is known."""
  found = board.progress(step)
  if found is None:
    return ""
  said = [f"{found['at']}: {found['step']}/{found['of']} {found['unit']}"]
  if found["loss"] is not None:
    said.append(f"loss {found['loss']}")
  if found["tokens_per_sec"] is not None:
    said.append(f"{found['tokens_per_sec']:,.0f} tokens/s")
  if found["eta_s"] is not None and found["step"] < found["of"]:
    said.append(f"eta {progress.duration(found['eta_s'])}")
  return ", ".join(said)


def _of_job(submission: Submission) -> Iterator[str]:
  job = submission.job
  when = time.strftime("%Y-%m-%d %H:%M", time.localtime(submission.time))
  yield f"{job.name}: {' '.join([job.config, *job.overrides])}"
  yield f"  on {job.machines.name} ({submission.target}, {job.provisioning})"
  yield f"  workdir {job.workdir}, submitted {when}"


def _of_step(board: Board, of: Step) -> Iterator[str]:
  step, record = of.name, board.attempt(of.name)
  if record is None:
    yield f"{step}: not begun"
    return
  why = f": {record.why}" if record.why else ""
  yield f"{step}: {record.phase.replace('_', ' ')}, attempt {record.attempt}{why}"
  if far := how_far(board, step):
    yield f"  {far}"
  yield from _of_hosts(board, of, record)
  names = board.names(step)
  for failure in record.failures:
    counts = "" if failure.counts else " (does not count)"
    said = attempts.described(failure, names)
    yield f"  attempt {failure.attempt} ended: {said}{counts}"


def _of_hosts(board: Board, step: Step, record: Attempt) -> Iterator[str]:
  submission = board.submission()
  if record.is_over or submission is None:
    return
  names, now = board.names(step.name), time.time()
  hosts = range(submission.job.at(step).machines.num_hosts)
  beats = [board.beat(step.name, host) for host in hosts]
  lost_s = submission.timing.lost_s
  alive = [b is not None and now - b.time <= lost_s for b in beats]
  yield f"  {sum(alive)} of {len(beats)} hosts alive (by their own clocks)"
  for host, (beat, lives) in enumerate(zip(beats, alive, strict=True)):
    if not lives:
      yield f"  {attempts.called(host, names)}: {_last_heard(beat, now)}"


def _last_heard(beat: Beat | None, now: float) -> str:
  if beat is None:
    return "never heard of"
  return f"last heard of {progress.duration(now - beat.time)} ago, {beat.phase}"


def _of_cloud(found: Found | None) -> Iterator[str]:
  if found is None:
    return
  said = f": {found.says}" if found.says else ""
  yield f"in the cloud: {found.state.value}{said}"
  for resource in found.resources:
    yield f"  {resource}"
