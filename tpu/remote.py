"""What is typed on the machines themselves: one line of shell each.

Code lies in ~/.msm-jax/code/SHA, Python beside it; `setup.sh` and `on_host.sh` come
with the code.
"""

import dataclasses
import shlex
from collections.abc import Mapping

from tpu.job import Job, Step
from tpu.settings import Settings

_CODE = ".msm-jax/code"
# Where no TPU is found or started JAX then says so and ends; it would go on with the
# CPU if nobody had said anything (`backends` in jax/_src/xla_bridge.py).
ON_TPU = {"JAX_PLATFORMS": "tpu,cpu"}
ON_CPU = {"JAX_PLATFORMS": "cpu"}
# Silent hangs between slices end the program, which is then started again.
ABORT_ON_HANGS = "--megascale_abort_on_hangs=true"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remote:
  """Lines for the machines of one job.

  Attributes:
    settings: environment and secrets of commands.
    job: as it was submitted.
    code: where the archive lies, gs://...
    board: its URL.
  """

  settings: Settings
  job: Job
  code: str
  board: str

  def push(self, extras: str) -> str:
    """Returns what brings code and Python to a machine; again: does what is missing.

    Args:
      extras: of pyproject.toml, separated by commas.
    """
    folder = f"{_CODE}/{self.job.code}"
    # What was typed for a supervisor that is no more may still be at work beside this:
    # each has a directory of its own ($$: of its shell), and the first one wins.
    half = f"{folder}.$$"
    return " && ".join(
      (
        f"if [ ! -d {folder} ]; then mkdir -p {half}",
        f"gcloud storage cp {shlex.quote(self.code)} {half}.tar.gz",
        f"tar -xzf {half}.tar.gz -C {half}",
        f"{{ mv -T {half} {folder} || [ -d {folder} ]; }}",
        f"rm -rf {half} {half}.tar.gz; fi",
        f"EXTRAS={extras} bash {folder}/tpu/setup.sh",
      )
    )

  def start(
    self,
    step: Step,
    host: int | None,
    num_hosts: int,
    environment: Mapping[str, str],
    first: int = 0,
  ) -> str:
    """Returns what starts the agent of a step, unless it runs.

    Args:
      step: what is to be done.
      host: its number; None: `first` and the number in its slice, found out there.
      num_hosts: how many work together.
      environment: beside that of the settings.
      first: number of the first host of its slice.
    """
    env = merged(self.settings.environment, environment)
    secrets = self.settings.secrets
    words = [
      *self._script("start"),
      step.name,
      *(f"--env={name}={value}" for name, value in env.items()),
      *(f"--secret={name}={secret}" for name, secret in secrets.items()),
      *([f"--project={self.settings.project}"] if secrets else []),
      *([f"--first={first}"] if host is None and first else []),
      "--",
      f"--board={self.board}",
      f"--step={step.name}",
      f"--host={'worker' if host is None else host}",
      f"--num_hosts={num_hosts}",
      "--",
      *self.job.command(step),
    ]
    return shlex.join(words)

  def stop(self) -> str:
    """Returns what sends SIGTERM to whatever runs there."""
    return shlex.join(self._script("stop"))

  def log(self, follow: bool) -> str:
    """Returns what prints the newest log of a machine."""
    return shlex.join([*self._script("log"), *(["--follow"] if follow else [])])

  def _script(self, verb: str) -> list[str]:
    return ["bash", f"{_CODE}/{self.job.code}/tpu/on_host.sh", verb, self.job.name]


def merged(theirs: Mapping[str, str], ours: Mapping[str, str]) -> dict[str, str]:
  """Returns both; flags of libtpu are joined, else theirs win."""
  name = "LIBTPU_INIT_ARGS"
  joined = " ".join(part[name] for part in (ours, theirs) if name in part)
  return {**ours, **theirs, **({name: joined} if joined else {})}


def code_of(settings: Settings, job: Job) -> str:
  """Returns where the archive of a job's code lies."""
  return f"{jobs_of(settings)}/{job.name}/code/{job.code}.tar.gz"


def board_of(settings: Settings, name: str) -> str:
  """Returns the URL of a job's board."""
  return f"{jobs_of(settings)}/{name}"


def workdir_of(settings: Settings, name: str) -> str:
  """Returns the workdir of a study that names none."""
  return f"{settings.bucket.rstrip('/')}/studies/{name}"


def jobs_of(settings: Settings) -> str:
  """Returns where the boards of all jobs are."""
  return f"{settings.bucket.rstrip('/')}/jobs"
