"""Pods as machines of Compute Engine: v5p, v6e, tpu7x.

A slice is a managed instance group that makes all its machines at once (bulk) under a
workload policy with the slice's topology, from an instance template; a slice of one
machine needs no policy. Checked against docs.cloud.google.com: compute/docs/tpus/
create-tpu-mig-multi-host-slice, tpu/docs/spot-compute, compute/docs/instance-groups/
about-bulk-mode; and a public account of doing so for v6e in July 2026: groups with a
TPU topology must be in bulk mode, policies are named by their whole path, flex-start
goes into the template, and resize requests are refused.

Spot machines are not started again: groups are deleted and made anew. Of several slices
each has its own group; how they find each other (MEGASCALE_*) is said by us, in the
variables and with the port that Ray gives hosts of slices (`ray.util.tpu`): Google has
no page on several slices of Compute Engine that we know of. Hosts are numbered by their
names, and a TPU's processes are not: see `msm_jax/distributed.py`. Not known: whether
slices can only meet at the host that has their first process.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msm_jax.errors import UserError
from tpu import gcloud as gcloud_lib
from tpu import remote, slices
from tpu.archive import Archive
from tpu.gcloud import Gcloud
from tpu.job import Cpu, Job, Provisioning, State, Step
from tpu.settings import Settings
from tpu.shell import Failed, Shell
from tpu.targets import Found, vms
from tpu.targets.vms import Vms

JAX_PORT, MEGASCALE_PORT = 8476, 8081
_HYPERDISK = ("v6e", "tpu7x")  # these take no other kind of disk
# What the released commands took only after the Google Cloud CLI 528, and where it is
# described. Its alpha has them: `tests/test_tpu_gcloud_flags.py` parses them there.
NEWER = {
  "--target-size-policy-mode": (
    "docs.cloud.google.com/sdk/gcloud/reference/compute/instance-groups/managed/create"
  ),
  "--provisioning-model=FLEX_START": (
    "docs.cloud.google.com/sdk/gcloud/reference/compute/instance-templates/create"
  ),
}


def make(settings: Settings, shell: Shell, job: Job, archive: Archive) -> "Compute":
  """Returns the target for a job, as it was submitted."""
  lines = remote.Remote(
    settings=settings,
    job=job,
    code=remote.code_of(settings, job),
    board=remote.board_of(settings, job.name),
  )
  gcloud = Gcloud(shell, settings)
  return Compute(vms=Vms(gcloud=gcloud, remote=lines), archive=archive)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
  """See `tpu.targets.Target`."""

  vms: Vms
  archive: Archive
  name: str = "compute"
  restarts_itself: bool = False

  @property
  def _gcloud(self) -> Gcloud:
    return self.vms.gcloud

  @property
  def _settings(self) -> Settings:
    return self.vms.settings

  def check(self, job: Job) -> None:
    """Refuses what cannot be before anything is made."""
    settings, machines = self._settings, job.machines
    settings.need(self.name, "project", "zone", "bucket")
    vms.check_bucket(settings, self.name)
    vms.check_tpus(machines, self.name)
    if isinstance(machines, Cpu):
      return gcloud_lib.check_ready(self._gcloud)
    gcloud_lib.checked_name(job.name)
    if slices.generation(machines).image_family is None:
      raise UserError(
        f"--slice={slices.name(machines)}: Compute Engine itself has v5p, v6e and "
        f"tpu7x; for {machines.chip.name} take --target=queued or --target=gke"
      )
    slices.check_zone(machines, settings)
    if job.provisioning is Provisioning.RESERVED:
      settings.need("compute --reserved", "reservation")
    vms.check_flex(job, settings)
    return gcloud_lib.check_ready(self._gcloud)

  def create(self, job: Job) -> None:
    """Asks for policy, template and one group for each slice."""
    if isinstance(job.machines, Cpu):
      return self.vms.create_cpu(job)
    if slices.hosts_per_slice(job.machines) > 1:
      self._make(job, "workload policy", self._policy(job), *self._about_policy(job))
    self._make(
      job, "instance template", self._template(job), *self._about_template(job)
    )
    for number in range(job.machines.num_slices):
      argv = self._group(job, number)
      self._make(job, "instance group", argv, *self._about_group(job, number))
    return None

  def _make(self, job: Job, kind: str, create: list[str], *about: str) -> None:
    """Creates something, unless it is there and ours."""
    try:
      self._gcloud.do(f"{kind} of {job.name}", *create)
    except Failed as error:
      if not gcloud_lib.is_taken(error.said):
        raise
      self.vms.check_ours(job, kind, *about)

  def _policy(self, job: Job) -> list[str]:
    return [
      *("compute", "resource-policies", "create", "workload-policy", job.name),
      *self._gcloud.regional,
      "--type=HIGH_THROUGHPUT",
      f"--accelerator-topology={slices.shape(job.machines)}",
      f"--description={vms.named(job)}",
    ]

  def _template(self, job: Job) -> list[str]:
    settings, machines = self._settings, job.machines
    known = "hyperdisk-balanced" if machines.chip.name in _HYPERDISK else None
    own = settings.compute
    return [
      *("compute", "instance-templates", "create", job.name, self._gcloud.zonal[0]),
      f"--machine-type={slices.machine_type(machines)}",
      "--maintenance-policy=TERMINATE",  # TPUs cannot move to another machine
      *_provisioned(job.provisioning, settings),
      *gcloud_lib.flags(
        (
          (
            "image-family",
            own.image_family or slices.generation(machines).image_family,
          ),
          ("image-project", own.image_project),
          ("boot-disk-type", own.disk_type or known),
        )
      ),
      *vms.common_flags(job, settings),
    ]

  def _group(self, job: Job, number: int) -> list[str]:
    settings, hosts = self._settings, slices.hosts_per_slice(job.machines)
    argv = [
      *("compute", "instance-groups", "managed", "create", _group_name(job, number)),
      *self._gcloud.zonal,
      f"--size={hosts}",
      f"--template={job.name}",
      "--default-action-on-vm-failure=do-nothing",  # one new host alone is of no use
      f"--description={vms.named(job)}",
    ]
    if hosts > 1:
      place = f"projects/{settings.project}/regions/{settings.region}"
      argv += [
        "--target-size-policy-mode=bulk",
        f"--workload-policy={place}/resourcePolicies/{job.name}",
      ]
    return argv

  def _about_policy(self, job: Job, verb: str = "describe") -> tuple[str, ...]:
    return ("compute", "resource-policies", verb, job.name, *self._gcloud.regional)

  def _about_template(self, job: Job, verb: str = "describe") -> tuple[str, ...]:
    return ("compute", "instance-templates", verb, job.name, self._gcloud.zonal[0])

  def _about_group(
    self, job: Job, number: int, verb: str = "describe"
  ) -> tuple[str, ...]:
    group = _group_name(job, number)
    return ("compute", "instance-groups", "managed", verb, group, *self._gcloud.zonal)

  def find(self, job: Job) -> Found:
    """Returns what there is."""
    if isinstance(job.machines, Cpu):
      return self.vms.find_cpu(job)
    template = self._described(job, *self._about_template(job))
    groups = [
      self._instances(job, number, template)
      for number in range(job.machines.num_slices)
    ]
    resources = [
      f"instance-group {_group_name(job, number)}"
      for number, group in enumerate(groups)
      if group is not None
    ]
    if template:
      resources.append(f"instance-template {job.name}")
    hosts = slices.hosts_per_slice(job.machines)
    # It is made before the template, and deleted after it.
    if hosts > 1 and (template or self._described(job, *self._about_policy(job))):
      resources.append(f"resource-policy {job.name}")
    state, says = _state(groups, hosts)
    names = [name for group in groups for name in sorted(map(_name, group or ()))]
    return Found(
      state=state,
      hosts=tuple(names) if state is State.READY else (),
      says=says,
      resources=tuple(resources),
    )

  def _described(self, job: Job, *about: str) -> bool | None:
    """Returns whether something is of this study; None where there is nothing."""
    found = self._gcloud.ask(f"state of {job.name}", *about)
    return None if found is None else vms.is_of_study(job, found.get("description", ""))

  def _instances(
    self, job: Job, number: int, template: bool | None
  ) -> list[dict[str, Any]] | None:
    """Returns the instances of a group; None where this study has none.

    Args:
      job: whose it is.
      number: of its slice.
      template: whether that is of this study, which says the same of groups; None: it
        is not there.
    """
    about = self._about_group(job, number, "list-instances")
    listed = self._gcloud.ask(f"state of {job.name}", *about)
    if listed is not None and template is None:
      template = self._described(job, *self._about_group(job, number)) is not False
    return listed if template else None

  def push(self, job: Job, hosts: tuple[str, ...]) -> None:
    """Brings the code into the bucket, and from there to every host."""
    lines, on_cpu = self.vms.remote, isinstance(job.machines, Cpu)
    vms.upload(self._gcloud, self.archive, lines.job, lines.code, self._settings)
    line = lines.push(vms.EXTRAS if on_cpu else f"tpu,{vms.EXTRAS}")
    self.vms.on_all("set-up", {host: line for host in hosts})

  def start(self, job: Job, step: Step, hosts: tuple[str, ...]) -> None:
    """Starts the agent of a step on every host."""
    if isinstance(job.machines, Cpu):
      return self.vms.start(step, hosts, lambda _: remote.ON_CPU)
    num_slices = job.machines.num_slices
    return self.vms.start(step, hosts, lambda k: _environment(k, hosts, num_slices))

  def logs(self, job: Job, host: int, follow: bool) -> Iterator[str]:
    """Yields the lines of one host's newest log."""
    yield from self.vms.lines(
      vms.host_of(self.find(job), host), self.vms.remote.log(follow)
    )

  def stop(self, job: Job) -> None:
    """Sends SIGTERM to what runs."""
    hosts = self.expected_hosts(job)
    if not self._gcloud.shell.dry_run:
      hosts = self.find(job).hosts
    self.vms.on_all("stop", {host: self.vms.remote.stop() for host in hosts})

  def delete(self, job: Job) -> None:
    """Deletes groups, with their machines, then template and policy."""
    if isinstance(job.machines, Cpu):
      return self.vms.delete_cpu(job)
    for number in range(job.machines.num_slices):
      self._remove(job, functools.partial(self._about_group, job, number))
    self._remove(job, functools.partial(self._about_template, job))
    if slices.hosts_per_slice(job.machines) > 1:
      self._remove(job, functools.partial(self._about_policy, job))
    return None

  def _remove(self, job: Job, about: Callable[[str], tuple[str, ...]]) -> None:
    """Deletes something, if it is there and of this study."""
    if not self.vms.is_strangers(job, *about("describe")):
      self._gcloud.do(f"deletion of {job.name}", *about("delete"), absent_ok=True)

  def expected_hosts(self, job: Job) -> tuple[str, ...]:
    """Returns stand-ins for the names that the cloud will choose, for a dry run."""
    if isinstance(job.machines, Cpu):
      return (job.name,)
    return tuple(
      f"{_group_name(job, number)}-HOST{k}"
      for number in range(job.machines.num_slices)
      for k in range(slices.hosts_per_slice(job.machines))
    )


def _group_name(job: Job, number: int) -> str:
  return f"{job.name}-{number}"


def _name(instance: Mapping[str, Any]) -> str:
  return instance["instance"].rpartition("/")[2]


def _provisioned(provisioning: Provisioning, settings: Settings) -> list[str]:
  """Returns the flags of a template that say how machines are paid for."""
  match provisioning:
    case Provisioning.SPOT:
      return ["--provisioning-model=SPOT", "--instance-termination-action=STOP"]
    case Provisioning.RESERVED:
      return [
        "--provisioning-model=RESERVATION_BOUND",
        "--reservation-affinity=specific",
        f"--reservation={settings.reservation}",
        "--instance-termination-action=DELETE",
      ]
    case Provisioning.FLEX:
      return [
        "--provisioning-model=FLEX_START",
        f"--max-run-duration={round(settings.compute.flex_hours * 3600)}s",
        "--reservation-affinity=none",
        "--instance-termination-action=DELETE",
      ]
    case Provisioning.ON_DEMAND:
      return ["--provisioning-model=STANDARD"]


def _environment(k: int, hosts: tuple[str, ...], num_slices: int) -> dict[str, str]:
  """Returns how host `k` finds the others; within a slice libtpu knows by itself."""
  if len(hosts) == 1:
    return remote.ON_TPU
  found = remote.ON_TPU | {
    "JAX_COORDINATOR_ADDRESS": f"{hosts[0]}:{JAX_PORT}",
    "JAX_NUM_PROCESSES": str(len(hosts)),
    "JAX_PROCESS_ID": str(k),
  }
  if num_slices > 1:
    found |= {
      "MEGASCALE_COORDINATOR_ADDRESS": hosts[0],
      "MEGASCALE_PORT": str(MEGASCALE_PORT),
      "MEGASCALE_NUM_SLICES": str(num_slices),
      "MEGASCALE_SLICE_ID": str(k // (len(hosts) // num_slices)),
      "LIBTPU_INIT_ARGS": remote.ABORT_ON_HANGS,
    }
  return found


def _state(groups: list[Any], hosts: int) -> tuple[State, str]:
  """Returns the state of all groups together, and the cloud's words."""
  if all(group is None for group in groups):
    return State.ABSENT, "no instance group"
  instances = [each for group in groups for each in group or ()]
  said = [
    f"{error.get('code', '')}: {error.get('message', '')}"
    for each in instances
    for error in each.get("lastAttempt", {}).get("errors", {}).get("errors", ())
  ]
  actions = {each.get("currentAction", "NONE") for each in instances}
  statuses = [each.get("instanceStatus", "") for each in instances]
  words = said[0] if said else ", ".join(sorted({s for s in statuses if s} | actions))
  if "DELETING" in actions:
    return State.DELETING, words
  if any(group is None for group in groups):
    return State.ABSENT, "an instance group is missing"
  if any(vms.is_gone(status) for status in statuses):
    return State.PREEMPTED, words
  if statuses.count("RUNNING") == hosts * len(groups) and actions == {"NONE"}:
    return State.READY, words
  if said and not gcloud_lib.is_passing(said[0]):
    return State.FAILED, str(gcloud_lib.explained(said[0], "the cloud refuses"))
  if 0 < len(instances) < hosts * len(groups) and actions == {"NONE"}:  # and none comes
    left = f"{len(instances)} of {hosts * len(groups)} machines are left"
    return State.PREEMPTED, left
  return State.WAITING, words or "asked for"
