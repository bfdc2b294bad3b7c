"""Pods as queued resources of the Cloud TPU API: v4, v5e; v5p and v6e, too.

The API is not developed further, and does not have tpu7x (docs.cloud.google.com/tpu/
docs/tpus-in-compute-engine), but v4 and v5e are had outside GKE with it alone. A
request waits in a queue until all slices are there; a spot slice that is taken away
leaves a suspended request behind, which holds quota until it is deleted (skypilot#1483,
marin#87).

Flags: `gcloud compute tpus queued-resources create --help` of the Google Cloud CLI 528;
flex-start: docs.cloud.google.com/tpu/docs/request-using-flex-start. `--spot` is asked
of the released command, not of its alpha: that one, as of 528, then orders on demand.
"""

import dataclasses
from collections.abc import Iterator, Mapping
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

_RESOURCES = ("compute", "tpus", "queued-resources")
_WAITING = ("DRAFT", "ACCEPTED", "WAITING_FOR_RESOURCES", "CREATING", "PROVISIONING")
_GONE = ("SUSPENDING", "SUSPENDED")
# Of a node that is no more, while its request may still say ACTIVE for a while.
_NODE_GONE = ("PREEMPTED", "TERMINATED", "STOPPED", "STOPPING", "DELETING", "HIDDEN")


def make(settings: Settings, shell: Shell, job: Job, archive: Archive) -> "Queued":
  """Returns the target for a job, as it was submitted."""
  lines = remote.Remote(
    settings=settings,
    job=job,
    code=remote.code_of(settings, job),
    board=remote.board_of(settings, job.name),
  )
  gcloud = Gcloud(shell, settings)
  return Queued(vms=Vms(gcloud=gcloud, remote=lines), archive=archive)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Queued:
  """See `tpu.targets.Target`."""

  vms: Vms
  archive: Archive
  name: str = "queued"
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
    if slices.generation(machines).legacy is None:
      raise UserError(
        f"--slice={slices.name(machines)}: the Cloud TPU API does not have "
        f"{machines.chip.name}: take --target=compute or --target=gke"
      )
    slices.check_zone(machines, settings)
    vms.check_flex(job, settings)
    return gcloud_lib.check_ready(self._gcloud)

  def create(self, job: Job) -> None:
    """Asks for all slices in one request."""
    if isinstance(job.machines, Cpu):
      return self.vms.create_cpu(job)
    try:
      self._gcloud.do(f"request of {job.name}", *self._request(job))
    except Failed as error:
      if not gcloud_lib.is_taken(error.said):
        raise
      self._check_ours(job)
    return None

  def _request(self, job: Job) -> list[str]:
    settings, machines = self._settings, job.machines
    is_alpha, provisioned = _provisioned(job.provisioning, settings)
    kind = [f"--accelerator-type={slices.accelerator_type(machines)}"]
    if slices.accelerator_type(machines) is None:  # by its shape; v4 alone is released
      is_alpha = is_alpha or machines.chip.name != "v4"
      legacy = slices.generation(machines).legacy
      kind = [f"--type={legacy}", f"--topology={slices.shape(machines)}"]
    nodes = [f"--node-id={job.name}"]
    if machines.num_slices > 1:
      nodes = [f"--node-count={machines.num_slices}", f"--node-prefix={job.name}"]
    own, valid = settings.queued, settings.queued.valid_hours
    labels = {**settings.labels, "msm-job": job.name}
    return [
      *(["alpha"] if is_alpha else []),
      *(*_RESOURCES, "create", job.name, *self._gcloud.zonal),
      *nodes,
      *kind,
      f"--runtime-version={own.runtime_version or slices.generation(machines).runtime}",
      *provisioned,
      *([f"--valid-until-duration={round(valid * 3600)}s"] if valid else []),
      f"--description={vms.named(job)}",
      f"--labels={','.join(f'{k}={v}' for k, v in sorted(labels.items()))}",
      *gcloud_lib.flags(
        (
          ("service-account", settings.service_account),
          ("network", settings.network),
          ("subnetwork", settings.subnetwork),
        )
      ),
      "--scopes=https://www.googleapis.com/auth/cloud-platform",
      *([] if settings.compute.external_ip else ["--internal-ips"]),
      "--async",  # the queue may be long
    ]

  def _check_ours(self, job: Job) -> None:
    specs = _nodes(self._describe(job) or {})
    wanted = vms.named(job)
    for spec in specs:
      vms.refuse_others(job, "queued resource", spec.get("description", ""), wanted)

  def _describe(self, job: Job) -> dict[str, Any] | None:
    about = (*_RESOURCES, "describe", job.name, *self._gcloud.zonal)
    return self._gcloud.ask(f"state of {job.name}", *about)

  def _is_strangers(self, job: Job, found: Mapping[str, Any] | None) -> bool:
    """Returns whether a described request is of another study."""
    said = [node.get("description", "") for node in _nodes(found or {})]
    return not all(vms.is_of_study(job, each) for each in said)

  def find(self, job: Job) -> Found:
    """Returns what there is."""
    if isinstance(job.machines, Cpu):
      return self.vms.find_cpu(job)
    found = self._describe(job)
    if found is None or self._is_strangers(job, found):
      return Found(state=State.ABSENT, says="no queued resource")
    resources = (f"queued-resource {job.name}",)
    state, says = _state(found)
    if state is not State.READY:
      return Found(state=state, says=says, resources=resources)
    listed = self._gcloud.ask(
      f"nodes of {job.name}",
      *("compute", "tpus", "tpu-vm", "list", *self._gcloud.zonal),
      f"--filter=labels.msm-job={job.name}",
    )
    nodes = {each["name"].rpartition("/")[2]: each for each in listed or ()}
    resources += tuple(f"tpu-vm {name}" for name in sorted(nodes))
    names = _node_names(job)
    states = [nodes.get(name, {}).get("state", "gone") for name in names]
    if any(each in _NODE_GONE or each == "gone" for each in states):
      state, says = State.PREEMPTED, f"nodes: {', '.join(states)}"
    elif set(states) != {"READY"}:
      state, says = State.WAITING, f"nodes: {', '.join(states)}"
    hosts = self.expected_hosts(job) if state is State.READY else ()
    return Found(state=state, hosts=hosts, says=says, resources=resources)

  def push(self, job: Job, hosts: tuple[str, ...]) -> None:
    """Brings the code into the bucket, and from there to every host."""
    lines = self.vms.remote
    vms.upload(self._gcloud, self.archive, lines.job, lines.code, self._settings)
    if isinstance(job.machines, Cpu):
      line = lines.push(vms.EXTRAS)
      return self.vms.on_all("set-up", {host: line for host in hosts})
    return self._on_nodes("set-up", job, "all", lines.push(f"tpu,{vms.EXTRAS}"))

  def start(self, job: Job, step: Step, hosts: tuple[str, ...]) -> None:
    """Starts the agent of a step on every host; each finds out its number there."""
    if isinstance(job.machines, Cpu):
      return self.vms.start(step, hosts, lambda _: remote.ON_CPU)
    per_slice = slices.hosts_per_slice(job.machines)
    # JAX asks the metadata server, which knows slices, too.
    environment = dict(remote.ON_TPU)
    if len(hosts) > 1:
      environment["MSM_JAX_DISTRIBUTED"] = "1"
    if job.machines.num_slices > 1:
      environment["LIBTPU_INIT_ARGS"] = remote.ABORT_ON_HANGS
    for number in range(job.machines.num_slices):
      first = number * per_slice
      line = self.vms.remote.start(step, None, len(hosts), environment, first)
      self._on_nodes(f"start of {step.name}", job, str(number), line)
    return None

  def logs(self, job: Job, host: int, follow: bool) -> Iterator[str]:
    """Yields the lines of one host's newest log."""
    line = self.vms.remote.log(follow)
    if isinstance(job.machines, Cpu):
      yield from self.vms.lines(vms.host_of(self.find(job), host), line)
      return
    vms.host_of(self.find(job), host)
    node, worker = divmod(host, slices.hosts_per_slice(job.machines))
    argv = self._ssh(job, str(node), str(worker), line)
    self._gcloud.shell.need("gcloud")
    yield from self._gcloud.shell.lines(["gcloud", *argv, "--quiet"])

  def stop(self, job: Job) -> None:
    """Sends SIGTERM to what runs."""
    line = self.vms.remote.stop()
    if not self._gcloud.shell.dry_run and not self.find(job).hosts:
      return None
    if isinstance(job.machines, Cpu):
      return self.vms.on_all("stop", {job.name: line})
    return self._on_nodes("stop", job, "all", line)

  def delete(self, job: Job) -> None:
    """Deletes the request with its nodes."""
    if isinstance(job.machines, Cpu):
      return self.vms.delete_cpu(job)
    if not self._gcloud.shell.dry_run and self._is_strangers(job, self._describe(job)):
      return None
    about = (*_RESOURCES, "delete", job.name, *self._gcloud.zonal, "--force")
    self._gcloud.do(f"deletion of {job.name}", *about, absent_ok=True)
    return None

  def expected_hosts(self, job: Job) -> tuple[str, ...]:
    """Returns the names of all hosts, NODE/WORKER."""
    if isinstance(job.machines, Cpu):
      return (job.name,)
    per_slice = slices.hosts_per_slice(job.machines)
    return tuple(f"{name}/{k}" for name in _node_names(job) for k in range(per_slice))

  def _on_nodes(self, doing: str, job: Job, node: str, line: str) -> None:
    argv = self._ssh(job, node, "all", line, "--batch-size=all")
    vms.patiently(
      lambda: self._gcloud.on_host(doing, *argv), doing, self.vms.patience_s
    )

  def _ssh(
    self, job: Job, node: str, worker: str, line: str, *more: str
  ) -> tuple[str, ...]:
    return (
      *(*_RESOURCES, "ssh", job.name, *self._gcloud.zonal),
      *(f"--node={node}", f"--worker={worker}", *more),
      *vms.ssh_flags(self._settings),
      f"--command={line}",
    )


def _node_names(job: Job) -> list[str]:
  """Returns what the API calls the slices of a request."""
  number = job.machines.num_slices
  return [f"{job.name}-{k}" for k in range(number)] if number > 1 else [job.name]


def _provisioned(
  provisioning: Provisioning, settings: Settings
) -> tuple[bool, list[str]]:
  """Returns whether the alpha is needed, and the flags."""
  match provisioning:
    case Provisioning.SPOT:
      return False, ["--spot"]
    case Provisioning.RESERVED if settings.reservation:
      return True, ["--reserved", f"--reservation={settings.reservation}"]
    case Provisioning.RESERVED:
      return False, ["--reserved"]
    case Provisioning.FLEX:
      seconds = round(settings.compute.flex_hours * 3600)
      return True, ["--provisioning-model=flex-start", f"--max-run-duration={seconds}s"]
    case Provisioning.ON_DEMAND:
      return False, []


def _state(found: Mapping[str, Any]) -> tuple[State, str]:
  """Returns what a described request is doing, and its words."""
  state = found.get("state", {})
  name = state.get("state", "ACCEPTED")
  error = state.get("failedData", {}).get("error", {}).get("message", "")
  if name == "ACTIVE":
    return State.READY, name
  if name == "DELETING":
    return State.DELETING, name
  if name in _GONE:
    return State.PREEMPTED, name
  if name == "FAILED":
    if gcloud_lib.is_passing(error) and not gcloud_lib.is_quota(error):
      return State.PREEMPTED, f"FAILED: {error}"  # delete it and ask again
    return State.FAILED, str(gcloud_lib.explained(error, "the cloud refuses"))
  return State.WAITING, name if name in _WAITING else f"state {name}"


def _nodes(found: Mapping[str, Any]) -> list[Mapping[str, Any]]:
  return [spec.get("node", {}) for spec in found.get("tpu", {}).get("nodeSpec", ())]
