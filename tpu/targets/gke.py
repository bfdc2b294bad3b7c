"""Google Kubernetes Engine: a whole job is one JobSet.

`create` submits it; from then on Kubernetes starts hosts, replaces them and lets the
next step begin, whether somebody looks after it or not. See jobset.py for what is done
about which end of a pod, image.py for what runs in it.
"""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any

from msm_jax.errors import UserError
from tpu.archive import Archive
from tpu.job import Job, State, Step
from tpu.settings import Settings
from tpu.shell import Failed, Shell
from tpu.targets import Found, jobset
from tpu.targets import pods as pods_lib
from tpu.targets.image import Image
from tpu.targets.kubectl import Kubectl

_JOBSETS = "jobsets.jobset.x-k8s.io"
_WORKLOADS = "workloads.kueue.x-k8s.io"
_LABEL = "jobset.sigs.k8s.io"
_INDEX = "batch.kubernetes.io/job-completion-index"
_DELETE_TIMEOUT_S = 600


@dataclasses.dataclass(frozen=True)
class Gke:
  """The target; see `tpu.targets.Target`."""

  settings: Settings
  shell: Shell
  archive: Archive

  name = "gke"
  restarts_itself = True

  def check(self, job: Job) -> None:
    """Refuses what cannot be: names, tools, the cluster, what it has to have."""
    gke = self.settings.gke
    self.settings.need("gke", "bucket", "image")
    if gke.context is None:
      self.settings.need("gke", "project", "gke.cluster")
      if not self._kubectl.location:
        self.settings.need("gke", "gke.location")
    jobset.check(job, self.settings)
    self.shell.need("kubectl")
    self._kubectl.log_in()
    if self.shell.dry_run:
      return None
    field = "replicatedJobs.dependsOn" if len(job.steps) > 1 else "failurePolicy.rules"
    version = "--api-version=jobset.x-k8s.io/v1alpha2"
    self._kubectl.ask("explain", f"jobset.spec.{field}", version)
    if gke.queue:
      self._kubectl.need("localqueues.kueue.x-k8s.io", gke.queue, "gke.queue (Kueue)")
    if gke.service_account:
      self._kubectl.need("serviceaccounts", gke.service_account, "gke.service_account")
    for variable, secret in self.settings.secrets.items():
      self._kubectl.need_secret(variable, secret)
    return None

  def create(self, job: Job) -> None:
    """Submits the job, or lets one that was stopped go on."""
    text = jobset.render(job, self.settings, self._image(job).name)
    there, _ = self._there(job)
    if there is None:
      return self._submit(job, text, in_place=False)
    digest = pods_lib.annotation(there, jobset.DIGEST)
    is_same = f'{jobset.DIGEST}: "{digest}"' in text
    is_over = pods_lib.is_deleting(there) or pods_lib.ended(there)
    if is_over or (not is_same and self._is_stopped(there)):
      return self._submit(job, text, in_place=True)
    if not is_same:
      raise UserError(
        f"--name={job.name} is taken by a JobSet with other code or settings, and what "
        "is submitted cannot be changed: take another --name, or first "
        f"python -m tpu delete --name={job.name}"
      )
    return self._suspend(job, there, False)

  def find(self, job: Job) -> Found:
    """Returns what there is of the JobSet and its pods."""
    there, pods = self._there(job)
    if there is None:
      return Found(state=State.ABSENT)
    resources = (f"jobset {job.name}", *(f"pod {pods_lib.name(pod)}" for pod in pods))
    if pods_lib.is_deleting(there):
      return Found(state=State.DELETING, resources=resources)
    ended = pods_lib.ended(there)
    says = f"{ended.get('type', '').lower()}: {ended.get('message', '')}"
    if pods_lib.condition(there, "Failed"):
      says += self._last_words(pods)
      return Found(state=State.FAILED, says=says, resources=resources)
    if ended:  # whoever has more to do nevertheless is to `create` it anew
      return Found(state=State.ABSENT, says=says, resources=resources)
    if self._is_stopped(there):  # `create` lets it go on
      return Found(state=State.ABSENT, says="stopped", resources=resources)
    hosts = self._hosts(job, pods)
    if hosts:
      return Found(state=State.READY, hosts=hosts, resources=resources)
    broken = [reason for pod in pods if (reason := pods_lib.broken(pod))]
    if broken:
      return Found(state=State.FAILED, says=broken[0], resources=resources)
    says = self._waits_for(job, there, pods)
    return Found(state=State.WAITING, says=says, resources=resources)

  def push(self, job: Job, hosts: tuple[str, ...]) -> None:
    """Makes the image, unless it is there."""
    self._image(job).make()

  def start(self, job: Job, step: Step, hosts: tuple[str, ...]) -> None:
    """Does nothing: Kubernetes started the hosts."""

  def logs(self, job: Job, host: int, follow: bool) -> Iterator[str]:
    """Yields what a host prints, in the step that runs or ran last."""
    pods = self._by_step(job, self._there(job)[1])
    for step in reversed(job.steps):
      if host in pods.get(step.name, {}):
        pod = pods_lib.name(pods[step.name][host])
        more = ["--follow"] if follow else []
        return self._kubectl.lines("logs", pod, "--container=agent", *more)
    raise UserError(f"--host={host} has no pod now: its log so far is on the board")

  def stop(self, job: Job) -> None:
    """Suspends the JobSet: pods get SIGTERM and go, the JobSet stays."""
    there = {"spec": {}} if self.shell.dry_run else self._there(job)[0]
    if there is not None and not pods_lib.ended(there):
      self._suspend(job, there, True)

  def delete(self, job: Job) -> None:
    """Deletes the JobSet; returns when it and its pods are gone."""
    if not self.shell.dry_run and self._there(job)[0] is None:
      return
    options = ("--ignore-not-found", "--cascade=foreground", "--wait")
    timeout = f"--timeout={_DELETE_TIMEOUT_S}s"
    self._kubectl.do("delete", f"{_JOBSETS}/{job.name}", *options, timeout)

  @property
  def _kubectl(self) -> Kubectl:
    return Kubectl(self.settings, self.shell)

  def _image(self, job: Job) -> Image:
    return Image(job, self.settings, self.shell, self.archive.sha)

  def _last_words(self, pods: list[dict[str, Any]]) -> str:
    """Returns how a host that failed ended, and what it said last."""
    for pod, code in pods_lib.failed(pods)[:1]:
      words: list[str] = []
      with contextlib.suppress(Failed, UserError):  # its node is gone, and its log
        said = self._kubectl.ask("logs", pod, "--container=agent", "--tail=1")
        words = said.strip().splitlines()[-1:]
      return ": ".join([f"; {pod} ended with {code}", *words])
    return ""

  def _submit(self, job: Job, text: str, in_place: bool) -> None:
    """Makes the image, then the JobSet, perhaps in place of one that is over."""
    self.push(job, ())
    if in_place:
      self.delete(job)
    self._kubectl.do("create", "--filename=-", stdin=text)

  def _there(self, job: Job) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Returns the JobSet, if there is one, and its pods.

    Of this study: a colleague's may be called the same; it is neither used nor deleted.
    """
    if self.shell.dry_run:
      return None, []
    label = f"--selector={jobset.LABEL}={job.name}"
    found = self._kubectl.items(f"{_JOBSETS},pods", label)
    for each in found:
      of_study = pods_lib.annotation(each, jobset.WORKDIR) == job.workdir
      if each["kind"] == "JobSet" and of_study:
        return each, [pod for pod in found if pod["kind"] == "Pod"]
    return None, []

  def _by_step(
    self, job: Job, pods: list[dict[str, Any]]
  ) -> dict[str, dict[int, dict[str, Any]]]:
    """Returns step -> host -> its newest pod."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    steps = {step.name: step for step in job.steps}
    for pod in sorted(pods, key=pods_lib.age):
      labels = pod["metadata"]["labels"]
      step = steps.get(labels.get(f"{_LABEL}/replicatedjob-name"))
      if step is not None:
        indices = int(labels[f"{_LABEL}/job-index"]), int(labels[_INDEX])
        found.setdefault(step.name, {})[jobset.host_number(job, step, *indices)] = pod
    return found

  def _hosts(self, job: Job, pods: list[dict[str, Any]]) -> tuple[str, ...]:
    """Returns the pods of the step that runs; none unless all of them do."""
    for step in job.steps:
      running = {
        host: pods_lib.name(pod)
        for host, pod in self._by_step(job, pods).get(step.name, {}).items()
        if pod["status"].get("phase") == "Running" and not pods_lib.is_deleting(pod)
      }
      if len(running) == jobset.num_hosts(job, step):
        return tuple(running[host] for host in sorted(running))
    return ()

  def _waits_for(
    self, job: Job, there: dict[str, Any], pods: list[dict[str, Any]]
  ) -> str:
    """Returns what the job waits for, in the cluster's own words."""
    if there["spec"].get("suspend"):
      queue = self.settings.gke.queue
      told = pods_lib.condition(self._workload(there) or {}, "QuotaReserved", "False")
      return f"in queue {queue}: {told.get('message', 'no word of Kueue yet')}"
    pending = [pod for pod in pods if pod["status"].get("phase") == "Pending"]
    said = [reason for pod in pending if (reason := pods_lib.pending(pod))]
    if not said:
      return f"{len(pods)} pods, not all of them run yet"
    return "; ".join([said[0], *self._scaling({pods_lib.name(pod) for pod in pending})])

  def _scaling(self, pods: set[str]) -> list[str]:
    """Returns the last word of the autoscaler about pods: quota, stockout."""
    kinds = "involvedObject.kind=Pod,type=Warning"
    told = [
      event["message"]
      for event in self._kubectl.items("events", f"--field-selector={kinds}")
      if event["involvedObject"]["name"] in pods and "ScaleUp" in event["reason"]
    ]
    if told and "quota" in told[-1].lower():
      told[-1] += " (ask for more quota, or take a smaller slice or another cluster)"
    return told[-1:]

  def _workload(self, there: dict[str, Any]) -> dict[str, Any] | None:
    """Returns what Kueue has for a JobSet."""
    uid = there["metadata"]["uid"]
    for found in self._kubectl.items(_WORKLOADS):
      if uid in (each["uid"] for each in found["metadata"].get("ownerReferences", [])):
        return found
    return None

  def _is_stopped(self, there: dict[str, Any]) -> bool:
    """Returns whether `stop` suspended a JobSet; Kueue suspends what has to wait."""
    if not there["spec"].get("suspend"):
      return False
    if not self.settings.gke.queue:
      return True
    workload = self._workload(there) or {"spec": {}}  # Kueue has not seen it yet
    return not workload["spec"].get("active", True)

  def _suspend(self, job: Job, there: dict[str, Any], suspend: bool) -> None:
    """Stops or lets go on; Kueue, which does that too, must be told instead."""
    if self.settings.gke.queue and not self.shell.dry_run:
      workload = self._workload(there)
      if workload is None:
        raise Failed(["kubectl"], 1, f"Kueue has not seen {job.name} yet")
      if workload["spec"].get("active", True) is suspend:
        name = f"{_WORKLOADS}/{pods_lib.name(workload)}"
        self._kubectl.patch(name, {"active": not suspend})
    elif there["spec"].get("suspend", False) is not suspend:
      self._kubectl.patch(f"{_JOBSETS}/{job.name}", {"suspend": suspend})
