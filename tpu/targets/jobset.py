"""A job as one JobSet: every step a replicated job that waits for the one before.

What Kubernetes does with exit codes of an agent (`python -m tpu.host`):

    0    the pod is done; when all of a step are, the next step starts
    2    given up: the Job fails (podFailurePolicy), and with it the JobSet
    75   stopped on purpose: another pod takes its place, and the agent goes on
    pod taken away (DisruptionTarget: preempted, evicted, drained): likewise
    else the Job fails, and all is created anew, at most `MAX_RESTARTS` times

So the machinery restarts without end what the machines did, and the agent, which sees
progress, counts what the code did. Checked against JobSet's sources (api/jobset/
v1alpha2, pkg/controllers/failure_policy.go, depends_on.go) and the Job API of
Kubernetes 1.32.

GKE's webhook sets TPU_WORKER_ID, TPU_WORKER_HOSTNAMES and, for several slices,
MEGASCALE_COORDINATOR_ADDRESS, MEGASCALE_NUM_SLICES and MEGASCALE_SLICE_ID in pods of a
JobSet that ask for google.com/tpu (cloud.google.com/kubernetes-engine/docs/how-to/
tpu-multislice), so nothing of that is here, and JAX finds it by itself.
"""

import dataclasses
import hashlib
import re
import shlex
from collections.abc import Mapping

from msm_jax.errors import UserError
from msm_jax.topology import Topology
from tpu import remote, rendering, slices
from tpu.job import Gpus, Job, Provisioning, Step
from tpu.settings import Settings

MAX_RESTARTS = 20
LABEL = "msm-jax/job"  # of the JobSet and its pods: the job's name
DIGEST = "msm-jax/spec"  # annotation: hash of what was submitted
WORKDIR = "msm-jax/workdir"  # annotation: the study's
_LONGEST = 63  # of a pod's name, which is a label of DNS
_FLEX_SECONDS = 7 * 24 * 3600  # flex-start gives no more
_PORT = 8476  # of process 0, for GPUs; the one JAX takes on TPUs
_GPUS = {  # value of cloud.google.com/gke-accelerator
  "a100": "nvidia-a100-80gb",
  "h100": "nvidia-h100-80gb",
  "h200": "nvidia-h200-141gb",
  "b200": "nvidia-b200",
}
_RESERVATION = "cloud.google.com/reservation-name"
_QUEUE = "kueue.x-k8s.io/queue-name"
_PRIORITY = "kueue.x-k8s.io/priority-class"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
  """What a container asks for: `kind` is limits or requests."""

  kind: str
  amounts: Mapping[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """One step as the template wants it; fields are named as there."""

  name: str
  after: str | None  # the step before
  slices: int
  hosts: int  # of one slice
  exclusive: bool
  host_network: bool
  selector: Mapping[str, str]
  tolerations: tuple[str, ...]
  pod_annotations: Mapping[str, str]
  environment: Mapping[str, str]
  ports: tuple[int, ...]
  resources: Resources
  shared_memory: bool
  script: str


def check(job: Job, settings: Settings) -> None:
  """Refuses names and machines that Kubernetes or GKE would refuse.

  Raises:
    UserError: the name is too long or malformed, GKE has no such GPU, a reservation is
      not named.
  """
  if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", job.name):
    raise UserError(
      f"--name={job.name}: on GKE it begins with a letter, and has lower-case letters, "
      "digits and dashes"
    )
  longest = max((_pod_name(job, step) for step in job.steps), key=len)
  if len(longest) > _LONGEST:
    most = len(job.name) - len(longest) + _LONGEST
    raise UserError(
      f"--name={job.name}: pods would be named {longest}, which is over {_LONGEST} "
      f"letters: take a name of at most {most}"
    )
  machines = job.machines
  if isinstance(machines, Gpus) and machines.kind not in _GPUS:
    raise UserError(f"--slice={machines.name}: on GKE GPUs are {', '.join(_GPUS)}")
  if job.provisioning is Provisioning.RESERVED:
    settings.need("gke --reserved", "reservation")
  for variable, secret in settings.secrets.items():
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", secret):
      raise UserError(
        f"{settings.where}: secrets.{variable} = {secret!r}: names of Kubernetes' "
        "secrets are lower-case letters, digits and dashes"
      )


def render(job: Job, settings: Settings, image: str) -> str:
  """Returns the manifest of a whole job."""
  parts, before = [], None
  for step in job.steps:
    parts.append(_part(job, step, before, settings))
    before = step.name
  labels = dict(settings.labels)
  if settings.gke.queue:
    labels[_QUEUE] = settings.gke.queue
  if settings.gke.priority:
    labels[_PRIORITY] = settings.gke.priority
  values = {
    "job": job,
    "label": LABEL,
    "workdir": WORKDIR,
    "gke": settings.gke,
    "machines": job.machines.name,
    "labels": labels,
    "secrets": settings.secrets,
    "max_restarts": MAX_RESTARTS,
    "steps": parts,
    "image": image,
  }
  text = rendering.render("jobset.yaml.jinja", annotations={}, **values)
  digest = hashlib.sha256(text.encode()).hexdigest()[:16]
  return rendering.render("jobset.yaml.jinja", annotations={DIGEST: digest}, **values)


def num_hosts(job: Job, step: Step) -> int:
  """Returns the pods of a step."""
  return job.at(step).machines.num_hosts


def host_number(job: Job, step: Step, slice_index: int, index: int) -> int:
  """Returns which host a pod is, by the indices of its Job and within that."""
  machines = job.at(step).machines
  per_slice = slices.hosts_per_slice(machines) if _is_tpu(machines) else 0
  return slice_index * per_slice + index


def _is_tpu(machines: object) -> bool:
  return isinstance(machines, Topology)


def _pod_name(job: Job, step: Step) -> str:
  slice_index = _num_slices(job, step) - 1
  index = num_hosts(job, step) // (slice_index + 1) - 1
  return f"{job.name}-{step.name}-{slice_index}-{index}-abcde"


def _num_slices(job: Job, step: Step) -> int:
  machines = job.at(step).machines
  return machines.num_slices if _is_tpu(machines) else 1


def _part(job: Job, step: Step, before: str | None, settings: Settings) -> Part:
  machines = job.at(step).machines
  replicas = _num_slices(job, step)
  hosts = num_hosts(job, step) // replicas
  on_pod = step.place == "pod"
  gpus = machines if isinstance(machines, Gpus) else None
  flex = on_pod and job.provisioning is Provisioning.FLEX
  return Part(
    name=step.name,
    after=before,
    slices=replicas,
    hosts=hosts,
    # With it only pod 0 exists until its node does. Flex-start brings nodes for pods
    # that are there, and so would bring too few, unless Kueue asked for all of them.
    exclusive=_is_tpu(machines) and hosts > 1 and not (flex and not settings.gke.queue),
    # Pods on the host's network act as the node's service account: Workload Identity
    # does not reach them (and Autopilot has none of them).
    host_network=replicas > 1 and settings.gke.service_account is None,
    selector=_selector(job, settings) if on_pod else {},
    tolerations=_tolerations(job) if on_pod else (),
    pod_annotations=(
      {"provreq.kueue.x-k8s.io/maxRunDurationSeconds": str(_FLEX_SECONDS)}
      if flex and settings.gke.queue
      else {}
    ),
    environment=_environment(job, step, settings),
    # 8471: between hosts of a slice; 8080: between slices (as in Google's manifests).
    ports=((8471, 8080) if replicas > 1 else (8471,)) if _is_tpu(machines) else (),
    resources=_resources(job, step),
    shared_memory=gpus is not None and gpus.per_host > 1,
    script=_script(job, step, settings),
  )


def _selector(job: Job, settings: Settings) -> dict[str, str]:
  """Returns labels of the nodes (checked in GKE's pages on TPUs, GPUs, Spot,
  flex-start and reservations)."""
  machines = job.machines
  if _is_tpu(machines):
    selector = slices.gke_labels(machines)
  else:
    selector = {"cloud.google.com/gke-accelerator": _GPUS[machines.kind]}
  match job.provisioning:
    case Provisioning.SPOT:
      selector["cloud.google.com/gke-spot"] = "true"
    case Provisioning.FLEX:
      selector["cloud.google.com/gke-flex-start"] = "true"
    case Provisioning.RESERVED:
      selector[_RESERVATION] = settings.reservation
      selector["cloud.google.com/reservation-affinity"] = "specific"
  return selector


def _tolerations(job: Job) -> tuple[str, ...]:
  kind = "google.com/tpu" if _is_tpu(job.machines) else "nvidia.com/gpu"
  more = {
    Provisioning.SPOT: ("cloud.google.com/gke-spot",),
    Provisioning.FLEX: (
      "cloud.google.com/gke-flex-start",
      "cloud.google.com/gke-queued",
    ),
  }
  return (kind, *more.get(job.provisioning, ()))


def _environment(job: Job, step: Step, settings: Settings) -> dict[str, str]:
  machines = job.at(step).machines
  ours = remote.ON_TPU if _is_tpu(machines) else remote.ON_CPU
  ours = {} if isinstance(machines, Gpus) else ours
  if _num_slices(job, step) > 1:
    ours = ours | {"LIBTPU_INIT_ARGS": remote.ABORT_ON_HANGS}
  environment = remote.merged(settings.environment, ours)
  if isinstance(machines, Gpus):
    # Where GKE puts the driver of the node.
    environment["LD_LIBRARY_PATH"] = "/usr/local/nvidia/lib64"
    if machines.num_hosts > 1:
      first = f"{job.name}-{step.name}-0-0.{job.name}"
      environment["JAX_COORDINATOR_ADDRESS"] = f"{first}:{_PORT}"
      environment["JAX_NUM_PROCESSES"] = str(machines.num_hosts)
  return environment


def _resources(job: Job, step: Step) -> Resources:
  machines = job.at(step).machines
  if _is_tpu(machines):
    chips = str(slices.chips_per_host(machines))
    return Resources(kind="limits", amounts={"google.com/tpu": chips})
  if isinstance(machines, Gpus):
    return Resources(kind="limits", amounts={"nvidia.com/gpu": str(machines.per_host)})
  return Resources(kind="requests", amounts={"cpu": "4", "memory": "16Gi"})


def _script(job: Job, step: Step, settings: Settings) -> str:
  """Returns what /bin/sh runs in a pod of a step."""
  machines = job.at(step).machines
  number = "JOB_COMPLETION_INDEX"
  if _num_slices(job, step) > 1:
    number = f"MSM_SLICE * {slices.hosts_per_slice(machines)} + {number}"
  lines = [f"host=$(({number}))"]
  if isinstance(machines, Gpus) and machines.num_hosts > 1:
    lines.append("export JAX_PROCESS_ID=$host")
  board = shlex.quote(remote.board_of(settings, job.name))
  agent = f"exec python -m tpu.host --board={board}"
  options = f"--step={step.name} --num_hosts={num_hosts(job, step)} --host=$host"
  lines += [f"{agent} \\", f"  {options} -- \\", f"  {shlex.join(job.command(step))}"]
  # Kubernetes fills in $(NAME), and makes $ of $$, before the shell sees it.
  return re.sub(r"\$(?=[$(])", "$$", "\n".join(lines))
