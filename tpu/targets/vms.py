"""Virtual machines of Compute Engine: ssh to all of them, and one without accelerators.

Shared by `compute`, whose pods are such machines, and `queued`, whose steps without
accelerators run on one.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

from msm_jax.errors import UserError
from tpu import gcloud as gcloud_lib
from tpu.archive import Archive
from tpu.gcloud import Gcloud
from tpu.job import Gpus, Job, Machines, Provisioning, State, Step
from tpu.remote import Remote
from tpu.settings import Settings
from tpu.shell import Failed
from tpu.targets import Found

_AT_ONCE = 16  # connections; gcloud takes 100 MB for each
UBUNTU = (
  ("image-family", "ubuntu-2404-lts-amd64"),
  ("image-project", "ubuntu-os-cloud"),
)
EXTRAS = "gcs"  # of pyproject.toml, where there are no TPUs
_GONE = (
  "STOPPING",
  "STOPPED",
  "TERMINATED",
  "SUSPENDING",
  "SUSPENDED",
  "DEPROVISIONING",
)


def named(job: Job) -> str:
  """Returns the description of all that belongs to a job."""
  return f"msm-jax {job.workdir} on {job.machines.name} {job.provisioning.value}"


def is_of_study(job: Job, said: str) -> bool:
  """Returns whether a resource's description is one that we gave, for this study."""
  return said.startswith(f"msm-jax {job.workdir} on ")


def common_flags(job: Job, settings: Settings) -> list[str]:
  """Returns flags of templates and machines: who, in which network, with which name."""
  labels = {**settings.labels, "msm-job": job.name}
  where = settings.subnetwork
  if where and "/" not in where:  # templates are global: a bare name means nothing
    where = f"projects/{settings.project}/regions/{settings.region}/subnetworks/{where}"
  return [
    f"--description={named(job)}",
    f"--labels={','.join(f'{k}={v}' for k, v in sorted(labels.items()))}",
    f"--boot-disk-size={settings.compute.disk_gb}GB",
    *gcloud_lib.flags(
      (
        ("service-account", settings.service_account),
        ("network", settings.network),
        ("subnet", where),
      )
    ),
    "--scopes=cloud-platform",  # else Secret Manager and the bucket refuse
    *([] if settings.compute.external_ip else ["--no-address"]),
  ]


def ssh_flags(settings: Settings) -> list[str]:
  """Returns how machines are reached."""
  if settings.compute.tunnel_through_iap:
    return ["--tunnel-through-iap"]
  return [] if settings.compute.external_ip else ["--internal-ip"]


def patiently(connect: Callable[[], Any], what: str, patience_s: float) -> None:
  """Connects again while a machine may still boot.

  Raises:
    Failed: it did not answer within `patience_s` seconds; it may be gone.
  """
  deadline = time.monotonic() + patience_s
  while True:
    try:
      connect()
      return
    except Failed as error:
      if not gcloud_lib.is_ssh(error.said):
        raise
      if time.monotonic() > deadline:
        raise Failed(error.argv[:4], error.code, _no_ssh(what, error)) from None
    time.sleep(min(10.0, patience_s / 10))


def _no_ssh(what: str, error: Failed) -> str:
  return (
    f"{what}: no ssh: does a firewall rule let port 22 in (from 35.235.240.0/20 with "
    "tunnel_through_iap), and may you log in (roles/compute.osLogin)? "
    f"({gcloud_lib.words(error.said)})"
  )


def upload(
  gcloud: Gcloud, archive: Archive, job: Job, url: str, settings: Settings
) -> None:
  """Copies the code into the bucket, if it is not the code of an earlier submission."""
  if archive.sha != job.code:
    return  # it went there with the job
  with tempfile.TemporaryDirectory() as folder:
    path = Path(archive.file)
    if not gcloud.shell.dry_run:
      path = archive.save(Path(folder))
    gcloud.do(
      "code to the bucket",
      *("storage", "cp", str(path), url, f"--project={settings.project}"),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Vms:
  """Machines that `gcloud compute ssh` reaches.

  Attributes:
    gcloud: with the project.
    remote: what is typed there.
    patience_s: how long a machine may take to answer.
  """

  gcloud: Gcloud
  remote: Remote
  patience_s: float = 120.0

  @property
  def settings(self) -> Settings:
    """Returns the settings of all."""
    return self.gcloud.settings

  def on_all(self, doing: str, lines: Mapping[str, str]) -> None:
    """Types a line on every machine: {name: line}."""
    if self.gcloud.shell.dry_run:
      for name, line in lines.items():
        self._type(doing, name, line)
      return
    with futures.ThreadPoolExecutor(_AT_ONCE) as pool:
      for done in [pool.submit(self._type, doing, *each) for each in lines.items()]:
        done.result()

  def _type(self, doing: str, name: str, line: str) -> None:
    argv = (*self._ssh(name), f"--command={line}")
    what = f"{doing}: {name}"
    patiently(lambda: self.gcloud.on_host(what, *argv), what, self.patience_s)

  def lines(self, name: str, line: str) -> Iterator[str]:
    """Yields what a line prints on a machine."""
    self.gcloud.shell.need("gcloud")
    argv = ["gcloud", *self._ssh(name), f"--command={line}", "--quiet"]
    yield from self.gcloud.shell.lines(argv)

  def _ssh(self, name: str) -> tuple[str, ...]:
    return ("compute", "ssh", name, *self.gcloud.zonal, *ssh_flags(self.settings))

  def start(
    self,
    step: Step,
    hosts: Sequence[str],
    environment: Callable[[int], Mapping[str, str]],
  ) -> None:
    """Starts the agent of a step on every machine."""
    count = len(hosts)
    self.on_all(
      f"start of {step.name}",
      {
        host: self.remote.start(step, k, count, environment(k))
        for k, host in enumerate(hosts)
      },
    )

  # The machine of steps without accelerators; its name is the job's.

  def create_cpu(self, job: Job) -> None:
    """Creates it, unless it is there."""
    settings = self.settings
    try:
      self.gcloud.do(
        f"instance {job.name}",
        *("compute", "instances", "create", job.name, *self.gcloud.zonal),
        f"--machine-type={settings.compute.cpu_machine_type}",
        *gcloud_lib.flags(UBUNTU),
        *common_flags(job, settings),
      )
    except Failed as error:
      if not gcloud_lib.is_taken(error.said):
        raise
      self.check_ours(job, "instance", *self._cpu("describe", job))

  def check_ours(self, job: Job, kind: str, *describe: str) -> None:
    """Raises a UserError where something of that name is of somebody else."""
    found = self.gcloud.ask(f"{kind} {job.name}", *describe)
    if found is not None:
      refuse_others(job, kind, found.get("description", ""), named(job))

  def is_strangers(self, job: Job, *describe: str) -> bool:
    """Returns whether there is something of that name, and not of this study.

    A colleague's may be called the same; it is neither used nor deleted.
    """
    if self.gcloud.shell.dry_run:
      return False
    found = self.gcloud.ask(f"whose {job.name} is", *describe)
    return found is not None and not is_of_study(job, found.get("description", ""))

  def find_cpu(self, job: Job) -> Found:
    """Returns what there is of it."""
    found = self.gcloud.ask(f"instance {job.name}", *self._cpu("describe", job))
    if found is None or not is_of_study(job, found.get("description", "")):
      return Found(state=State.ABSENT)
    status = found["status"]
    state = State.PREEMPTED if status in _GONE else State.WAITING
    state = State.READY if status == "RUNNING" else state
    hosts = (job.name,) if state is State.READY else ()
    resources = (f"instance {job.name}",)
    return Found(state=state, hosts=hosts, says=status, resources=resources)

  def delete_cpu(self, job: Job) -> None:
    """Deletes it, if it is there."""
    doing = f"deletion of instance {job.name}"
    if not self.is_strangers(job, *self._cpu("describe", job)):
      self.gcloud.do(doing, *self._cpu("delete", job), absent_ok=True)

  def _cpu(self, verb: str, job: Job) -> tuple[str, ...]:
    return ("compute", "instances", verb, job.name, *self.gcloud.zonal)


def is_gone(status: str) -> bool:
  """Returns whether a machine stopped, or is about to."""
  return status in _GONE


def host_of(found: Found, host: int) -> str:
  """Returns the name of a host.

  Raises:
    UserError: there is no such host now.
  """
  if host < len(found.hosts):
    return found.hosts[host]
  reason = f"there are {len(found.hosts)}" if found.hosts else "machines are not up"
  raise UserError(
    f"--host={host}: {reason} ({found.state.value}); without --follow the log is read "
    "from the bucket"
  )


def check_bucket(settings: Settings, target: str) -> None:
  """Raises a UserError where `bucket` is no bucket."""
  if not settings.bucket.startswith("gs://"):
    raise UserError(
      f"{settings.where}: bucket = {settings.bucket!r}: --target={target} needs "
      "gs://BUCKET/PREFIX; a directory is for slurm"
    )


def check_tpus(machines: Machines, target: str) -> None:
  """Raises a UserError for GPUs."""
  if isinstance(machines, Gpus):
    raise UserError(
      f"--slice={machines.name}: --target={target} makes TPUs only; GPUs are had with "
      "--target=gke or --target=slurm"
    )


def refuse_others(job: Job, kind: str, said: str, wanted: str) -> None:
  """Raises a UserError where a resource's description is not the one that we give.

  Args:
    job: whose name the resource has.
    kind: of the resource.
    said: its description.
    wanted: ours.
  """
  if said == wanted:
    return
  if is_of_study(job, said):
    raise UserError(
      f"{job.name}: there is {_a(kind)} of this study already, made for "
      f"{said.rpartition(' on ')[2]}: python -m tpu delete --name={job.name} first"
    )
  raise UserError(
    f"--name={job.name} is taken: there is {_a(kind)} of that name that is not of "
    f"{job.workdir} ({said or 'no description'}): choose another --name"
  )


def _a(kind: str) -> str:
  return f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def check_flex(job: Job, settings: Settings) -> None:
  """Raises a UserError for a duration that flex-start does not take."""
  hours = settings.compute.flex_hours
  if job.provisioning is Provisioning.FLEX and not 0 < hours <= 168:
    raise UserError(
      f"{settings.where}: compute.flex_hours = {hours:g} must be above 0, at most 168 "
      "(seven days)"
    )
