"""Where hosts and supervisor leave word for each other: JSON objects on the bucket.

    job.json            what was submitted
    machines.jsonl      when machines came and went, by the supervisor
    STEP/attempt.json   which attempt this is and how it stands, by host 0
    STEP/names.json     of the machines in the order of their numbers (supervisor)
    STEP/hosts/K.json   a sign of life of host K and how its command ended
    STEP/progress.json  how far the command is, by the host where process 0 is
    STEP/logs/host-K.log
    stop                when it is there, hosts save and end

Every object has one writer, and is written whole. Nobody compares clocks of two
machines: a sign of life is one that changes (`pulse.py`).
"""

import dataclasses
import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import topology
from msm_jax.errors import UserError
from msm_jax.storage.urls import is_remote
from tpu.board_files import Bucket, Directory, Files
from tpu.board_files import Unreachable as Unreachable
from tpu.job import Cpu, Gpus, Job, Provisioning, Step
from tpu.timing import Timing


def open_(url: str) -> "Board":
  """Returns the board at gs://BUCKET/PREFIX or in a directory; asks nothing yet."""
  return Board(Bucket(url) if is_remote(url) else Directory(url))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submission:
  """What was submitted (job.json).

  Attributes:
    job: as it was then; a supervisor on another laptop goes on with this one.
    target: name of the target.
    settings: of the target, as JSON: enough to find the machines again.
    dollars_per_hour: of all machines of a pod together; None: no price is known.
    cpu_dollars_per_hour: of the machine of steps without accelerators.
    timing: of hosts and supervisor.
    time: of submission, seconds since 1970.
  """

  job: Job
  target: str
  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  dollars_per_hour: float | None = None
  cpu_dollars_per_hour: float | None = None
  timing: Timing = dataclasses.field(default_factory=Timing)
  time: float = dataclasses.field(default_factory=time.time)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Beat:
  """A sign of life of a host's agent.

  Attributes:
    agent: differs from agent to agent.
    count: of its beats.
    attempt: that it takes part in.
    phase: stopping (the command of another attempt), waiting (for the others),
      running, ended (the command did), late (the attempt began without it), leaving
      (the machine is taken away), left (the agent ended).
    code: exit code of the command, if it ended.
    said: its last line, then.
    name: of the machine.
    time: of the beat, seconds since 1970 on that machine; for people.
  """

  agent: str
  count: int
  attempt: int
  phase: str
  code: int | None = None
  said: str = ""
  name: str = ""
  time: float = 0.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
  """Why an attempt ended before the step was done.

  Attributes:
    attempt: which one.
    host: whose command or machine it was.
    code: exit code of the command; None where the host itself was lost.
    at: what was done then ('train a+b seed 0'), '' before anything was.
    step: how far that was.
    said: last words of the command, or what is known.
    counts: whether it brings the step nearer to being given up.
  """

  attempt: int
  host: int
  code: int | None = None
  at: str = ""
  step: int = 0
  said: str = ""
  counts: bool = True


ENDS = ("finished", "gave_up", "stopped")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attempt:
  """How a step stands (attempt.json).

  Attributes:
    attempt: from 1.
    phase: waiting (for all hosts), running, restarting (after a failure), finished,
      gave_up, stopped.
    why: for people.
    failures: the last 50.
    furthest: how far each part of the work ever came.
    same: failures that count since any part came further.
  """

  attempt: int = 1
  phase: str = "waiting"
  why: str = ""
  failures: tuple[Failure, ...] = ()
  furthest: Mapping[str, int] = dataclasses.field(default_factory=dict)
  same: int = 0

  @property
  def is_over(self) -> bool:
    """Returns whether no host is to do anything more."""
    return self.phase in ENDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
  """Machines came or went (a line of machines.jsonl).

  Attributes:
    what: asked, came, went.
    place: of their steps: pod or cpu.
    time: when the supervisor saw it, seconds since 1970.
    why: for people.
  """

  what: str
  place: str
  time: float
  why: str = ""


class Board:
  """The objects, typed."""

  def __init__(self, files: Files):
    self.files = files

  @property
  def url(self) -> str:
    """Returns where it is."""
    return self.files.url

  def submission(self) -> Submission | None:
    """Returns what was submitted, if anything."""
    found = self._read("job.json")
    if found is None:
      return None
    return Submission(
      **found
      | {
        "job": job_of_json(found["job"]),
        "timing": Timing(**found["timing"]),
      }
    )

  def submit(self, submission: Submission) -> None:
    """Writes what is to be done."""
    found = _shallow(submission)
    found |= {
      "job": job_to_json(submission.job),
      "timing": dataclasses.asdict(submission.timing),
    }
    self._write("job.json", found)

  def names(self, step: str) -> list[str]:
    """Returns the names of the machines in the order of their numbers, once known."""
    return (self._read(f"{step}/names.json") or {"names": []})["names"]

  def put_names(self, step: str, names: Sequence[str]) -> None:
    """Writes the names of the machines."""
    self._write(f"{step}/names.json", {"names": list(names)})

  def attempt(self, step: str) -> Attempt | None:
    """Returns how a step stands; None before a host looked at it."""
    found = self._read(f"{step}/attempt.json")
    if found is None:
      return None
    failures = tuple(Failure(**each) for each in found["failures"])
    return Attempt(**found | {"failures": failures})

  def put_attempt(self, step: str, attempt: Attempt) -> None:
    """Writes how a step stands."""
    self._write(f"{step}/attempt.json", dataclasses.asdict(attempt))

  def beat(self, step: str, host: int) -> Beat | None:
    """Returns the last beat of a host."""
    found = self._read(f"{step}/hosts/{host}.json")
    return None if found is None else Beat(**found)

  def put_beat(self, step: str, host: int, beat: Beat) -> None:
    """Writes a beat."""
    self._write(f"{step}/hosts/{host}.json", dataclasses.asdict(beat))

  def progress(self, step: str) -> dict[str, Any] | None:
    """Returns how far a step is: see `tpu/gathering.py`."""
    return self._read(f"{step}/progress.json")

  def put_progress(self, step: str, progress: Mapping[str, Any]) -> None:
    """Writes how far a step is."""
    self._write(f"{step}/progress.json", dict(progress))

  def log(self, step: str, host: int) -> bytes | None:
    """Returns the log of a host."""
    return self.files.read(f"{step}/logs/host-{host}.log")

  def put_log(self, step: str, host: int, log: bytes) -> None:
    """Writes the log of a host."""
    self.files.write(f"{step}/logs/host-{host}.log", log)

  def events(self) -> list[Event]:
    """Returns when machines came and went."""
    lines = (self.files.read("machines.jsonl") or b"").splitlines()
    return [Event(**json.loads(line)) for line in lines]

  def add_event(self, event: Event) -> None:
    """Notes that machines came or went."""
    lines = self.files.read("machines.jsonl") or b""
    line = json.dumps(dataclasses.asdict(event)) + "\n"
    self.files.write("machines.jsonl", lines + line.encode())

  def is_to_stop(self) -> bool:
    """Returns whether a person asked to stop."""
    return self.files.read("stop") is not None

  def ask_to_stop(self) -> None:
    """Lets all hosts save and end."""
    self.files.write("stop", b"")

  def forget_stop(self) -> None:
    """Lets hosts start again."""
    self.files.delete("stop")

  def _read(self, name: str) -> dict[str, Any] | None:
    data = self.files.read(name)
    if data is None:
      return None
    try:
      return json.loads(data)
    except ValueError:
      raise UserError(f"{self.url}/{name} is no JSON: delete it, run again") from None

  def _write(self, name: str, value: Mapping[str, Any]) -> None:
    self.files.write(name, json.dumps(value).encode())


def _shallow(value: Any) -> dict[str, Any]:
  return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}


def job_to_json(job: Job) -> dict[str, Any]:
  """Returns a job as JSON holds it."""
  machines = job.machines
  if isinstance(machines, Gpus):
    described = {"gpus": dataclasses.asdict(machines)}
  elif isinstance(machines, Cpu):
    described = {"cpu": dataclasses.asdict(machines)}
  else:
    described = {"slice": machines.slice_name, "num_slices": machines.num_slices}
  steps = [dataclasses.asdict(step) for step in job.steps]
  return _shallow(job) | {"machines": described, "steps": steps}


def job_of_json(found: Mapping[str, Any]) -> Job:
  """Returns the job that `job_to_json` described."""
  described = found["machines"]
  if "gpus" in described:
    machines = Gpus(**described["gpus"])
  elif "cpu" in described:
    machines = Cpu(**described["cpu"])
  else:
    (machines,) = topology.parse(described["slice"], described["num_slices"])
  return Job(
    **{
      **found,
      "machines": machines,
      "overrides": tuple(found["overrides"]),
      "provisioning": Provisioning(found["provisioning"]),
      "steps": tuple(Step(**step) for step in found["steps"]),
    }
  )
