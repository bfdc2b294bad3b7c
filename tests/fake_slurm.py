"""A cluster with Slurm whose jobs are real processes on this machine.

What slurmctld would do is done at the beginning of every call. As there: a signal to
srun itself kills its tasks; one to a job reaches every process of its tasks; a batch
script gets no signal unless it is meant (`--signal=B:`); a job that is requeued begins
its script anew, and those that wait for it go on waiting; one that failed lets them
never run. Nodes have a /tmp of their own.
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

_MARK = "FAKE_SLURM_JOB"
TASK = "FAKE_SLURM_TASK"
_RUNNER = pathlib.Path(__file__).parent / "fake_tools" / "pod.py"
ACTIVE = ("PENDING", "RUNNING")


def make(root: pathlib.Path, **fields: Any) -> None:
  """Makes an empty cluster.

  Args:
    root: where its state is.
    fields: nodes, accounts, reason (for which jobs wait), accounts_are_kept (whether
      sacct answers).
  """
  root.mkdir(parents=True)
  state = {"jobs": {}, "nodes": 8, "accounts": [], "reason": "Resources"}
  state["accounts_are_kept"] = True
  (root / "slurm.json").write_text(json.dumps(state | fields))


@contextlib.contextmanager
def opened(root: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Gives the state, brought up to date, to be changed."""
  with (root / "lock").open("w") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    slurm = json.loads((root / "slurm.json").read_text())
    slurm["root"] = str(root)
    _schedule(slurm)
    yield slurm
    _schedule(slurm)
    (root / "slurm.new").write_text(json.dumps(slurm))
    (root / "slurm.new").rename(root / "slurm.json")


def submit(slurm: dict[str, Any], script: str, options: dict[str, str]) -> str:
  """Adds a job; returns its id."""
  number = str(1000 + len(slurm["jobs"]))
  folder = pathlib.Path(slurm["root"]) / number
  folder.mkdir()
  (folder / "script").write_text(script)
  job = {"id": number, "name": options["job-name"], "options": options}
  job["environment"] = dict(os.environ)  # --export=ALL
  slurm["jobs"][number] = job | {"state": "PENDING", "restarts": 0}
  return number


def near_end(root: pathlib.Path, number: str) -> None:
  """Does what happens near the end of a time limit: the signal that was asked for."""
  with opened(root) as slurm:
    target, _, name = slurm["jobs"][number]["options"]["signal"].partition(":")
    assert target == "B" and name.startswith("TERM@"), name
    os.kill(int((_folder(slurm, number) / "pid").read_text()), signal.SIGTERM)


def preempt(root: pathlib.Path, number: str, grace_s: float) -> None:
  """Takes the nodes of a job for another: SIGTERM to its tasks, SIGKILL, requeue."""
  with opened(root) as slurm:
    signal_tasks(slurm, number, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while _tasks(slurm, number) and time.monotonic() < deadline:
      time.sleep(0.02)
    if "requeue" in slurm["jobs"][number]["options"]:
      return requeue(slurm, number)
    return end(slurm, number, "PREEMPTED")


def requeue(slurm: dict[str, Any], number: str) -> None:
  """Ends a job's processes and puts it into the queue again."""
  end(slurm, number, "PENDING")
  slurm["jobs"][number]["restarts"] += 1


def end(slurm: dict[str, Any], number: str, state: str) -> None:
  """Ends a job with a state: SIGKILL to all that it started."""
  while found := processes(_folder(slurm, number)):
    for pid in found:
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    time.sleep(0.01)
  for name in ("exit", "pid"):
    (_folder(slurm, number) / name).unlink(missing_ok=True)
  slurm["jobs"][number]["state"] = state


def signal_tasks(slurm: dict[str, Any], number: str, which: int) -> None:
  """Signals all processes of every task; the batch script gets nothing."""
  for task in _tasks(slurm, number):
    for pid in processes(task, TASK):
      with contextlib.suppress(ProcessLookupError):
        os.kill(pid, which)


def processes(folder: pathlib.Path, mark: str = _MARK) -> list[int]:
  """Returns processes of jobs under a folder."""
  wanted, found = f"{mark}={folder}".encode(), []
  for path in pathlib.Path("/proc").glob("[0-9]*/environ"):
    with contextlib.suppress(OSError):
      if any(entry.startswith(wanted) for entry in path.read_bytes().split(b"\0")):
        found.append(int(path.parent.name))
  return found


def nodes_of(job: dict[str, Any]) -> str:
  """Returns the node list of a job as Slurm writes it."""
  count = int(job["options"].get("nodes", 1))
  return f"node[0-{count - 1}]" if count > 1 else "node0"


def hostnames(nodes: str) -> list[str]:
  """Returns what `scontrol show hostnames` makes of a node list."""
  match = re.fullmatch(r"(\w+)\[(\d+)-(\d+)\]", nodes)
  if match is None:
    return [nodes]
  return [f"{match[1]}{k}" for k in range(int(match[2]), int(match[3]) + 1)]


def _folder(slurm: dict[str, Any], number: str) -> pathlib.Path:
  return pathlib.Path(slurm["root"]) / number


def _tasks(slurm: dict[str, Any], number: str) -> list[pathlib.Path]:
  """Returns the folders of tasks that run."""
  begun = [path.parent for path in _folder(slurm, number).glob("task-*/pid")]
  return [task for task in begun if not (task / "exit").exists()]


def _schedule(slurm: dict[str, Any]) -> None:
  for number, job in slurm["jobs"].items():
    ended = _folder(slurm, number) / "exit"
    if job["state"] == "RUNNING" and ended.exists():
      job["code"] = int(ended.read_text())
      job["state"] = "FAILED" if job["code"] else "COMPLETED"
  for number, job in slurm["jobs"].items():
    if job["state"] == "PENDING":
      job["reason"] = _reason(slurm, job)
      if job["reason"] == "DependencyNeverSatisfied":
        if job["options"].get("kill-on-invalid-dep") == "yes":
          job["state"] = "CANCELLED"
      elif not job["reason"]:
        _start(slurm, number, job)


def _reason(slurm: dict[str, Any], job: dict[str, Any]) -> str:
  """Returns why a job waits; '' if it need not."""
  kind, _, other = job["options"].get("dependency", "").partition(":")
  if kind:
    assert kind == "afterok", kind
    before = slurm["jobs"][other]["state"]
    if before in ACTIVE:
      return "Dependency"
    if before != "COMPLETED":
      return "DependencyNeverSatisfied"
  jobs = slurm["jobs"].values()
  taken = [int(j["options"]["nodes"]) for j in jobs if j["state"] == "RUNNING"]
  wanted = int(job["options"]["nodes"])
  return slurm["reason"] if sum(taken) + wanted > slurm["nodes"] else ""


def _start(slurm: dict[str, Any], number: str, job: dict[str, Any]) -> None:
  import subprocess  # here, as most calls need none

  folder = _folder(slurm, number)
  given = {
    "SLURM_JOB_ID": number,
    "SLURM_JOB_NODELIST": nodes_of(job),
    "SLURM_RESTART_COUNT": str(job["restarts"]),
    "FAKE_NODES": job["options"]["nodes"],
    "FAKE_FOLDER": str(folder),
    _MARK: str(folder),
  }
  job["state"], job["reason"] = "RUNNING", "None"
  output = job["options"]["output"].replace("%j", number)
  with open(output, "ab") as log:
    runner = [sys.executable, "-S", str(_RUNNER), str(folder), "bash"]
    subprocess.run(
      ["sh", "-c", '"$@" &', "sh", *runner, str(folder / "script")],
      check=True,
      env=job["environment"] | given,
      stdin=subprocess.DEVNULL,
      stdout=log,
      stderr=log,
      start_new_session=True,
    )
