"""What is asked of a target: which study, on which machines, in which steps."""

import dataclasses
import enum

from msm_jax.topology import Topology


class Provisioning(enum.StrEnum):
  """How machines are paid for."""

  ON_DEMAND = "on_demand"
  SPOT = "spot"  # cheap, taken away at 30 s notice
  RESERVED = "reserved"  # from `settings.reservation`
  FLEX = "flex"  # waits until there are some, at most 7 days of them


class State(enum.Enum):
  """What a target's machines are doing."""

  ABSENT = "absent"  # nothing of that name is there
  WAITING = "waiting"  # asked for; in a queue or on their way
  READY = "ready"  # all hosts are up
  PREEMPTED = "preempted"  # taken away, or broken: delete and create again
  DELETING = "deleting"
  FAILED = "failed"  # will not come: quota, no such machines


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gpus:
  """GPUs in place of TPUs: of `kind` (h100, h200, ...), on hosts with so many each."""

  kind: str
  num_hosts: int
  per_host: int

  @property
  def name(self) -> str:
    """Returns what people call them."""
    return f"{self.kind}:{self.num_hosts * self.per_host}"


@dataclasses.dataclass(frozen=True)
class Cpu:
  """One machine without accelerators, for steps that need none."""

  name: str = "cpu"
  num_hosts: int = 1


Machines = Topology | Gpus | Cpu


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
  """One command of a job.

  Attributes:
    name: of the step in logs and resources.
    mode: of launch.py.
    place: 'pod', or 'cpu': a machine of its own without accelerators.
  """

  name: str
  mode: str
  place: str = "pod"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """One study to be run.

  Attributes:
    name: of every resource: lower-case letters, digits and dashes, at most 40.
    config: for `--config`, relative to the root of the repository.
    overrides: what else launch.py is told: `--config.field=value`, `--arm`, `--seed`.
    machines: a TPU slice (or several), or GPUs; of the steps with place 'pod'.
    provisioning: how they are paid for.
    workdir: gs://... or a directory that all hosts share.
    code: what identifies the code that is pushed: hash of the archive, or an image.
    steps: what is done, in order; one after the other succeeded.
    max_same_failures: the job is given up when a step failed so often without getting
      on in between.
  """

  name: str
  config: str
  overrides: tuple[str, ...] = ()
  machines: Machines
  provisioning: Provisioning = Provisioning.ON_DEMAND
  workdir: str
  code: str
  steps: tuple[Step, ...] = (Step(name="study", mode="run"),)
  max_same_failures: int = 3

  def at(self, step: Step) -> "Job":
    """Returns the job as the machines of one step see it: what to create and find.

    Steps without accelerators have one machine of their own, which goes when they are
    done.
    """
    if step.place == "pod":
      return self
    return dataclasses.replace(
      self,
      name=f"{self.name}-cpu",
      machines=Cpu(),
      provisioning=Provisioning.ON_DEMAND,
    )

  def but_for_code(self) -> "Job":
    """Returns what is asked for: what of it is done is not done again by other code."""
    return dataclasses.replace(self, code="", max_same_failures=1)

  def command(self, step: Step) -> list[str]:
    """Returns what runs on every host, in the root of the repository."""
    return [
      "python",
      "launch.py",
      step.mode,
      f"--config={self.config}",
      f"--workdir={self.workdir}",
      *self.overrides,
    ]
