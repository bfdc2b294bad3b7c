"""A cluster of Kubernetes with JobSet whose pods are real processes on this machine.

What its controllers would do is done at the beginning of every call: `reconciled`
follows the sources of JobSet v0.10 (failure_policy.go, depends_on.go) and Kubernetes'
Job controller (podFailurePolicy, podReplacementPolicy Failed, suspend). A pod is a
folder with its own HOME; what runs in it is found by a variable in its environment.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import signal
import sys
import time
from collections.abc import Iterator
from typing import Any

_LABEL = "jobset.sigs.k8s.io"
_INDEX = "batch.kubernetes.io/job-completion-index"
_MARK = "FAKE_POD"
_RUNNER = pathlib.Path(__file__).parent / "fake_tools" / "pod.py"


def make(root: pathlib.Path, image: pathlib.Path, **fields: Any) -> None:
  """Makes an empty cluster.

  Args:
    root: where its state is.
    image: folder that containers of any image see as their own.
    fields: contexts, images (that can be pulled), secrets, queues, serviceaccounts,
      nodes (pods that fit; None: any number), jobset (fields that its version lacks).
  """
  root.mkdir(parents=True)
  state = {"image": str(image), "jobsets": {}, "pods": {}, "events": [], "count": 0}
  state |= {"contexts": [], "images": [], "secrets": {}, "queues": []}
  state |= {"serviceaccounts": [], "nodes": None, "jobset": "", "workloads": {}}
  (root / "cluster.json").write_text(json.dumps(state | fields))


@contextlib.contextmanager
def opened(root: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Gives the state, brought up to date, to be changed."""
  with (root / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    cluster = json.loads((root / "cluster.json").read_text())
    cluster["root"] = str(root)
    _reconcile(cluster)
    yield cluster
    _reconcile(cluster)
    (root / "cluster.new").write_text(json.dumps(cluster))
    (root / "cluster.new").rename(root / "cluster.json")


def take_node(root: pathlib.Path, pod: str, grace_s: float) -> None:
  """Preempts the node of a pod: SIGTERM, SIGKILL later; the pod failed, disrupted."""
  with opened(root) as cluster:
    _end(cluster, cluster["pods"][pod], grace_s)
    disrupted = {"type": "DisruptionTarget", "status": "True"}
    cluster["pods"][pod]["status"]["conditions"] = [disrupted]


def running(root: pathlib.Path) -> list[str]:
  """Returns the names of pods that run."""
  with opened(root) as cluster:
    pods = cluster["pods"].items()
    return sorted(name for name, pod in pods if pod["status"]["phase"] == "Running")


def left(root: pathlib.Path) -> list[int]:
  """Returns processes of any pod."""
  return _processes(f"{root}/pods")


def expanded(text: str, environment: dict[str, str]) -> str:
  """Returns what a kubelet makes of $(NAME) and $$ in a container's command."""

  def replaced(match: re.Match[str]) -> str:
    if match[0] == "$$":
      return "$"
    return environment.get(match[1], match[0])

  return re.sub(r"\$\$|\$\(([^()]*)\)", replaced, text)


def _reconcile(cluster: dict[str, Any]) -> None:
  for pod in cluster["pods"].values():
    _notice_end(cluster, pod)
  for jobset in cluster["jobsets"].values():
    if jobset["metadata"]["name"] in cluster["workloads"]:  # Kueue suspends and lets go
      workload = cluster["workloads"][jobset["metadata"]["name"]]
      admitted = workload["spec"]["active"] and workload["admitted"]
      jobset["spec"]["suspend"] = not admitted
    if not any(c["status"] == "True" for c in jobset["status"]["conditions"]):
      _advance(cluster, jobset)
  _schedule(cluster)


def _advance(cluster: dict[str, Any], jobset: dict[str, Any]) -> None:
  """Does what the controllers of JobSet and Job do."""
  if jobset["spec"].get("suspend"):
    return _remove_pods(cluster, jobset)
  complete, failed = set(), []
  for replicated in jobset["spec"]["replicatedJobs"]:
    needs = {each["name"] for each in replicated.get("dependsOn", [])}
    if needs <= complete:
      indices = range(replicated.get("replicas", 1))
      ends = [_job(cluster, jobset, replicated, index) for index in indices]
      failed += [(replicated["name"], end) for end in ends if end not in ("", "done")]
      if set(ends) == {"done"}:
        complete.add(replicated["name"])
  if failed:
    _apply_failure_policy(cluster, jobset, failed)
  elif len(complete) == len(jobset["spec"]["replicatedJobs"]):
    _conclude(jobset, "Completed", "jobset completed successfully")
  return None


def _job(cluster, jobset, replicated, job_index) -> str:
  """Advances one Job; returns 'done', why it failed, or '' while it is active."""
  spec = replicated["template"]["spec"]
  absent, done = [], 0
  for index in range(spec["completions"]):
    mine = _pods_of(cluster, jobset, replicated["name"], job_index, index)
    phases = {pod["status"]["phase"] for pod in mine}
    done += "Succeeded" in phases
    actions = [_action(spec, pod) for pod in mine if pod["status"]["phase"] == "Failed"]
    if "FailJob" in actions:
      return "PodFailurePolicy"
    if actions.count("Count") > spec["backoffLimit"]:
      return "BackoffLimitExceeded"
    if phases <= {"Failed"}:
      absent.append(index)
  for index in absent:
    _add_pod(cluster, jobset, replicated, job_index, index)
  return "done" if done == spec["completions"] else ""


def _action(spec: dict[str, Any], pod: dict[str, Any]) -> str:
  code = pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"]
  conditions = [c["type"] for c in pod["status"].get("conditions", [])]
  for rule in spec.get("podFailurePolicy", {}).get("rules", []):
    codes = rule.get("onExitCodes")
    if codes and (code in codes["values"]) == (codes["operator"] == "In"):
      return rule["action"]
    if any(c["type"] in conditions for c in rule.get("onPodConditions", [])):
      return rule["action"]
  return "Count"


def _apply_failure_policy(cluster, jobset, failed: list[tuple[str, str]]) -> None:
  policy = jobset["spec"].get("failurePolicy", {})
  action, status = "RestartJobSet", jobset["status"]
  for rule in policy.get("rules", []):
    reasons = rule.get("onJobFailureReasons", [])
    if any(not reasons or reason in reasons for _, reason in failed):
      action = rule["action"]
      break
  if action == "RestartJobSet":
    if status["restartsCountTowardsMax"] >= policy.get("maxRestarts", 0):
      action = "FailJobSet"
    status["restartsCountTowardsMax"] += 1
  if action == "FailJobSet":
    name = f"{jobset['metadata']['name']}-{failed[0][0]}-0"
    _conclude(jobset, "Failed", f"jobset failed (first failed job: {name})")
    return _end_pods(cluster, jobset)
  status["restarts"] += 1
  return _remove_pods(cluster, jobset)


def _conclude(jobset: dict[str, Any], kind: str, message: str) -> None:
  condition = {"type": kind, "status": "True", "message": message}
  jobset["status"]["conditions"].append(condition)
  jobset["status"]["terminalState"] = kind


def _add_pod(cluster, jobset, replicated, job_index: int, index: int) -> None:
  name = jobset["metadata"]["name"]
  cluster["count"] += 1
  labels = {
    f"{_LABEL}/jobset-name": name,
    f"{_LABEL}/replicatedjob-name": replicated["name"],
    f"{_LABEL}/job-index": str(job_index),
    _INDEX: str(index),
  }
  host = f"{name}-{replicated['name']}-{job_index}-{index}"
  pod = f"{host}-{cluster['count']:05}"
  template = replicated["template"]["spec"]["template"]
  cluster["pods"][pod] = {
    "kind": "Pod",
    "metadata": {
      "name": pod,
      "labels": template["metadata"]["labels"] | labels,
      "annotations": labels,
      "creationTimestamp": f"{cluster['count']:09}",
    },
    "spec": template["spec"] | {"hostname": host},
    "status": {"phase": "Pending"},
  }


def _schedule(cluster: dict[str, Any]) -> None:
  """Starts what waits, as far as there are nodes, images and secrets."""
  for name, pod in cluster["pods"].items():
    if pod["status"]["phase"] != "Pending":
      continue
    phases = [each["status"]["phase"] for each in cluster["pods"].values()]
    if cluster["nodes"] is not None and phases.count("Running") >= cluster["nodes"]:
      message = "0/3 nodes are available: 3 node(s) didn't match Pod's node affinity"
      condition = {"type": "PodScheduled", "status": "False", "message": message}
      pod["status"]["conditions"] = [condition]
      continue
    container = pod["spec"]["containers"][0]
    refs = [
      e["valueFrom"].get("secretKeyRef")
      for e in container.get("env", ())
      if "valueFrom" in e
    ]
    if container["image"] not in cluster["images"]:
      _waits(pod, "ErrImagePull", f"{container['image']}: not found")
    elif lacking := [r for r in refs if r and r["name"] not in cluster["secrets"]]:
      message = f'secret "{lacking[0]["name"]}" not found'
      _waits(pod, "CreateContainerConfigError", message)
    else:
      _start(cluster, name, pod, container)


def _waits(pod: dict[str, Any], reason: str, message: str) -> None:
  state = {"waiting": {"reason": reason, "message": message}}
  pod["status"]["containerStatuses"] = [{"name": "agent", "state": state}]


def _start(cluster, name: str, pod: dict[str, Any], container: dict[str, Any]) -> None:
  import subprocess  # here, as most calls need none

  folder = pathlib.Path(cluster["root"]) / "pods" / name
  (folder / "home").mkdir(parents=True)
  given = _environment(cluster, pod, container)
  command = [expanded(word, given) for word in container["command"] + container["args"]]
  own = {"HOME": str(folder / "home"), _MARK: str(folder)}
  with (folder / "log").open("ab") as log:
    # Through a shell that ends at once: the pod is nobody's child here.
    runner = [sys.executable, "-S", str(_RUNNER), str(folder), *command]
    subprocess.run(
      ["sh", "-c", '"$@" &', "sh", *runner],
      check=True,
      cwd=cluster["image"],
      env=cluster["environment"] | given | own,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      start_new_session=True,
    )
  pod["status"] = {"phase": "Running", "containerStatuses": [{"name": "agent"}]}
  pod["status"]["containerStatuses"][0]["state"] = {"running": {}}


def _environment(cluster, pod, container) -> dict[str, str]:
  """Returns the variables of a container, those of GKE's webhook included.

  JAX has no TPU here: what it would read off TPU_WORKER_ID it is told in its own words.
  """
  labels, given = pod["metadata"]["labels"], {"JOB_COMPLETION_INDEX": ""}
  given["JOB_COMPLETION_INDEX"] = labels[_INDEX]
  for each in container.get("env", ()):
    source = each.get("valueFrom", {})
    if "fieldRef" in source:
      given[each["name"]] = labels[source["fieldRef"]["fieldPath"].split("'")[1]]
    elif "secretKeyRef" in source:
      secret = source["secretKeyRef"]
      given[each["name"]] = cluster["secrets"][secret["name"]][secret["key"]]
    else:
      given[each["name"]] = each["value"]
  port = _port(cluster, pod["spec"]["hostname"].rsplit("-", 2)[0])
  if "google.com/tpu" in container["resources"].get("limits", {}):
    jobset = cluster["jobsets"][labels[f"{_LABEL}/jobset-name"]]
    for replicated in jobset["spec"]["replicatedJobs"]:
      if replicated["name"] == labels[f"{_LABEL}/replicatedjob-name"]:
        per_slice = replicated["template"]["spec"]["completions"]
        number = int(labels[f"{_LABEL}/job-index"]) * per_slice + int(labels[_INDEX])
        given["JAX_PROCESS_ID"] = str(number)
        given["JAX_NUM_PROCESSES"] = str(per_slice * replicated["replicas"])
        given["JAX_COORDINATOR_ADDRESS"] = port
  elif "JAX_COORDINATOR_ADDRESS" in given:  # the cluster's DNS
    host = given["JAX_COORDINATOR_ADDRESS"].partition(".")[0]
    assert host in {p["spec"]["hostname"] for p in cluster["pods"].values()}, host
    given["JAX_COORDINATOR_ADDRESS"] = port
  return given


def _port(cluster: dict[str, Any], step: str) -> str:
  import socket

  ports = cluster.setdefault("ports", {})
  if step not in ports:
    with socket.socket() as probe:
      probe.bind(("127.0.0.1", 0))
      ports[step] = probe.getsockname()[1]
  return f"127.0.0.1:{ports[step]}"


def _notice_end(cluster: dict[str, Any], pod: dict[str, Any]) -> None:
  name = pod["metadata"]["name"]
  path = pathlib.Path(cluster["root"]) / "pods" / name / "exit"
  if pod["status"]["phase"] == "Running" and path.exists():
    code = int(path.read_text())
    pod["status"]["phase"] = "Failed" if code else "Succeeded"
    state = {"terminated": {"exitCode": code}}
    pod["status"]["containerStatuses"] = [{"name": "agent", "state": state}]


def _end(cluster: dict[str, Any], pod: dict[str, Any], grace_s: float) -> None:
  """Ends the container of a pod, if it runs."""
  _warn(cluster, pod)
  folder = pathlib.Path(cluster["root"]) / "pods" / pod["metadata"]["name"]
  deadline = time.monotonic() + grace_s
  while pod["status"]["phase"] == "Running" and time.monotonic() < deadline:
    time.sleep(0.02)
    _notice_end(cluster, pod)
  while found := _processes(str(folder)):
    for pid in found:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.01)
  if pod["status"]["phase"] == "Running":
    (folder / "exit").write_text("137")
    _notice_end(cluster, pod)


def _warn(cluster: dict[str, Any], pod: dict[str, Any]) -> None:
  """Sends SIGTERM to the first process of a container, as a kubelet does."""
  folder = pathlib.Path(cluster["root"]) / "pods" / pod["metadata"]["name"]
  _notice_end(cluster, pod)
  if pod["status"]["phase"] == "Running":
    while not (folder / "pid").exists():
      time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
      os.kill(int((folder / "pid").read_text()), signal.SIGTERM)


def _processes(mark: str) -> list[int]:
  wanted, found = f"{_MARK}={mark}".encode(), []
  for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    with contextlib.suppress(OSError):
      if any(entry.startswith(wanted) for entry in path.read_bytes().split(b"\0")):
        found.append(int(path.parent.name))
  return found


def _pods_of(cluster, jobset, *indices: Any) -> list[dict[str, Any]]:
  wanted = [jobset["metadata"]["name"], *map(str, indices)]
  names = ("jobset-name", "replicatedjob-name", "job-index")
  keys = [*(f"{_LABEL}/{name}" for name in names), _INDEX]
  return [
    pod
    for pod in cluster["pods"].values()
    if [pod["metadata"]["labels"][key] for key in keys[: len(wanted)]] == wanted
  ]


def _end_pods(cluster: dict[str, Any], jobset: dict[str, Any]) -> None:
  for pod in _pods_of(cluster, jobset):
    _warn(cluster, pod)
  for pod in _pods_of(cluster, jobset):
    _end(cluster, pod, pod["spec"]["terminationGracePeriodSeconds"])


def _remove_pods(cluster: dict[str, Any], jobset: dict[str, Any]) -> None:
  _end_pods(cluster, jobset)
  for pod in _pods_of(cluster, jobset):
    del cluster["pods"][pod["metadata"]["name"]]


def add(cluster: dict[str, Any], manifest: dict[str, Any]) -> None:
  """Adds a JobSet."""
  cluster["environment"] = dict(os.environ)  # stands for that of the image
  name = manifest["metadata"]["name"]
  manifest["metadata"]["uid"] = os.urandom(16).hex()
  status = {"conditions": [], "restarts": 0, "restartsCountTowardsMax": 0}
  cluster["jobsets"][name] = manifest | {"status": status}
  if "kueue.x-k8s.io/queue-name" in manifest["metadata"].get("labels", {}):
    owner = [{"uid": manifest["metadata"]["uid"]}]
    message = "couldn't assign flavors: insufficient quota for google.com/tpu"
    told = {"type": "QuotaReserved", "status": "False", "message": message}
    cluster["workloads"][name] = {
      "metadata": {"name": f"jobset-{name}", "ownerReferences": owner},
      "spec": {"active": True},
      "status": {"conditions": [told]},
      "admitted": False,
    }


def remove(cluster: dict[str, Any], name: str) -> bool:
  """Removes a JobSet and all of it; returns whether there was one."""
  jobset = cluster["jobsets"].pop(name, None)
  if jobset is not None:
    _remove_pods(cluster, jobset)
    cluster["workloads"].pop(name, None)
  return jobset is not None
