"""What Slurm says: of jobs in its queue, of those that left it, and in its errors."""

import dataclasses
import re

from msm_jax.errors import UserError
from tpu.job import Job, State, Step
from tpu.settings import Settings
from tpu.shell import Failed

# Reasons for which a batch job waits that do not pass by themselves.
_NEVER = re.compile(
  r"BadConstraints|Invalid(Account|QOS)|PartitionTimeLimit|PartitionNodeLimit|"
  r"DependencyNeverSatisfied|JobHeld|MaxWall|MaxGRESPerJob|MaxNodePerJob|"
  r"MaxNodesPerJob|launch_failed_requeued_held|launch failed requeued held"
)
# States in which the machines failed, not the job (sacct, JOB STATE CODES).
_MACHINES = ("BOOT_FAIL", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT", "REQUEUED")
# States of what is in the queue still: accounts lag behind it.
_IN_QUEUE = ("PENDING", "RUNNING", "COMPLETING", "CONFIGURING", "SUSPENDED", "RESIZING")
_WAYS_OUT = (
  (
    r"[Ii]nvalid account|account/partition combination",
    "set slurm.account and slurm.partition to what `sacctmgr show assoc` lists for you",
  ),
  (r"[Ii]nvalid (qos|QOS)", "set slurm.qos to one that `sacctmgr show qos` lists"),
  (r"[Ii]nvalid partition", "set slurm.partition to one that `sinfo` lists"),
  (
    r"[Ii]nvalid (generic resource|gres)|node configuration is not available|"
    r"[Ii]nvalid feature",
    "no node has that: set slurm.gres (gpu:TYPE) or slurm.constraint to what "
    "`sinfo -o '%G %f'` lists, or take another --slice",
  ),
  (r"time limit", "set slurm.time_limit below that of the partition (`sinfo`)"),
  (r"[Rr]eservation", "name one that `scontrol show reservation` lists"),
  (
    r"QOSMax|AssocMax|AssocGrp|QOSGrp|submit limit|violates accounting",
    "a limit of your account (`sacctmgr show assoc`): take fewer GPUs or another qos",
  ),
  (
    r"Permission denied \(|Host key verification failed|Could not resolve hostname",
    "ssh to slurm.login does not work: try it by hand (ssh-add, ssh-copy-id)",
  ),
  (r"[Nn]o space left|[Qq]uota exceeded", "slurm.directory is full"),
  (r"mkdir: .*|Permission denied", "slurm.directory cannot be written to: set another"),
  (r"setup\.sh: ", "Python cannot be set up there"),
)


@dataclasses.dataclass(frozen=True)
class BatchJob:
  """One line of squeue."""

  name: str
  id: str
  state: str
  reason: str
  nodes: str


def job_name(job: Job, step: Step) -> str:
  """Returns the name of a step's batch job."""
  return f"msm-{job.name}-{step.name}"


def parse(job: Job, said: str) -> tuple[list[BatchJob], dict[str, int]]:
  """Returns batch jobs (NAME|ID|STATE|REASON|NODES) and ends (STEP.exit:CODE)."""
  jobs, ends = [], {}
  for line in said.splitlines():
    if line.count("|") == 4:
      jobs.append(BatchJob(*(word.strip() for word in line.split("|"))))
    elif match := re.fullmatch(r"(.+)\.exit:(\d+)", line):
      ends[match[1]] = int(match[2])
  order = [job_name(job, step) for step in job.steps]
  return sorted(jobs, key=lambda each: order.index(each.name)), ends


def waits_for(jobs: list[BatchJob]) -> tuple[State, str]:
  """Returns whether what waits may ever run, and for what it waits."""
  first = jobs[0]
  says = f"{first.name} {first.state}: {first.reason}"
  if _NEVER.search(first.reason):
    return State.FAILED, f"{says}, which will not pass: mend [slurm] in tpu.toml"
  return State.WAITING, says


def became(step: Step, said: str) -> tuple[State, str]:
  """Returns what a state that sacct knows means for a step that left no exit code.

  ABSENT is what can be submitted again.
  """
  state = (said.split() or [""])[0]
  if not state:
    return State.FAILED, f"{step.name} left the queue without a word"
  if state in _IN_QUEUE:
    return State.WAITING, f"{step.name} left the queue, and sacct says {state} yet"
  if state in _MACHINES or state == "COMPLETED":  # then of hosts that found it done
    return State.ABSENT, f"{step.name}: {state}"
  return State.FAILED, f"{step.name} left the queue: {state}"


def explained(error: Failed, settings: Settings, way_out: str | None) -> Exception:
  """Returns a UserError for what a person can fix; else the error, to try again.

  Args:
    error: of a command on the cluster.
    settings: for their file's name.
    way_out: what to say if the command itself failed, and not the way to it.
  """
  said = error.said.strip()
  last = said.splitlines()[-1] if said else f"exit code {error.code}"
  for pattern, way in _WAYS_OUT:
    if re.search(pattern, said):
      return UserError(f"{settings.where}: [slurm]: {way} ({last})")
  if way_out is not None and error.code not in (124, 255):  # time-out, ssh itself
    return UserError(f"{settings.where}: [slurm]: {way_out}")
  return error
