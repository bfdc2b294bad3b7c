"""Slurm's commands, ssh and scp, for a fake cluster in the folder FAKE_SLURM.

An option that Slurm 22.05 does not know is refused; what a command is not used for here
is not there. Runs without packages (python -S).
"""

import os
import pathlib
import signal
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))

import fake_slurm

ROOT = pathlib.Path(os.environ["FAKE_SLURM"])
_SBATCH = {
  *("account", "constraint", "dependency", "exclusive", "gres", "job-name"),
  *("kill-on-invalid-dep", "mem", "nodes", "ntasks-per-node", "open-mode", "output"),
  *("parsable", "partition", "qos", "requeue", "reservation", "signal", "time"),
}


def parsed(words: list[str], known: set[str]) -> dict[str, str]:
  """Returns --name=value words as a mapping."""
  found = {}
  for word in words:
    name, _, value = word.removeprefix("--").partition("=")
    if not word.startswith("--") or name not in known:
      sys.exit(f"{sys.argv[1]}: unrecognized option '{word}'")
    found[name] = value
  return found


def sbatch(words: list[str]) -> None:
  script = sys.stdin.read()
  assert script.startswith("#!"), script[:20]
  lines = [line[8:].strip() for line in script.splitlines() if line[:8] == "#SBATCH "]
  options = parsed([*lines, *words], _SBATCH)  # the command line stands above
  with fake_slurm.opened(ROOT) as slurm:
    if "account" in options and options["account"] not in slurm["accounts"]:
      sys.exit(
        "sbatch: error: Batch job submission failed: Invalid account or "
        "account/partition combination specified"
      )
    print(fake_slurm.submit(slurm, script, options))


def squeue(words: list[str]) -> None:
  options = parsed(words, {"me", "noheader", "name", "format", "jobs"})
  if said := os.environ.get("FAKE_SQUEUE_SAYS"):
    sys.exit(said)
  with fake_slurm.opened(ROOT) as slurm:
    if options["format"] == "%T":
      print(slurm["jobs"][options["jobs"]]["state"])
      return
    assert options["format"] == "%j|%i|%T|%r|%N", options
    for job in slurm["jobs"].values():
      if (
        job["name"] in options["name"].split(",") and job["state"] in fake_slurm.ACTIVE
      ):
        nodes = fake_slurm.nodes_of(job) if job["state"] == "RUNNING" else ""
        print("|".join([job["name"], job["id"], job["state"], job["reason"], nodes]))


def scancel(words: list[str]) -> None:
  numbers = [word for word in words if word.isdigit()]
  options = parsed(
    [word for word in words if not word.isdigit()], {"me", "signal", "state", "name"}
  )
  assert numbers or "me" in options, "a name alone is that of others, too"
  with fake_slurm.opened(ROOT) as slurm:
    for number, job in slurm["jobs"].items():
      is_meant = number in numbers or job["name"] == options.get("name")
      if not is_meant or job["state"] not in fake_slurm.ACTIVE:
        continue
      if options.get("state", job["state"]) != job["state"]:
        continue
      if options.get("signal") == "TERM":
        fake_slurm.signal_tasks(slurm, number, signal.SIGTERM)
      else:
        fake_slurm.end(slurm, number, "CANCELLED")


def scontrol(words: list[str]) -> None:
  if words[:2] == ["show", "hostnames"]:
    print("\n".join(fake_slurm.hostnames(words[2])))
    return
  if words[:3] == ["--oneliner", "show", "job"]:
    with fake_slurm.opened(ROOT) as slurm:
      job = slurm["jobs"][words[3]]
      print(f"JobId={words[3]} JobName={job['name']} JobState={job['state']} Nice=0")
    return
  assert words[0] == "requeue", words
  import subprocess  # here, as most calls need none

  # The caller is part of what is requeued, and is ended with it: another process does.
  with fake_slurm.opened(ROOT) as slurm:
    if "requeue" not in slurm["jobs"][words[1]]["options"]:
      sys.exit("Job cannot be requeued")
  free = {k: v for k, v in os.environ.items() if k != "FAKE_SLURM_JOB"}
  code = "import fake_slurm, pathlib, sys\nroot = pathlib.Path(sys.argv[1])\n"
  code += (
    "with fake_slurm.opened(root) as slurm: fake_slurm.requeue(slurm, sys.argv[2])"
  )
  subprocess.Popen(
    [sys.executable, "-S", "-c", code, str(ROOT), words[1]],
    env=free | {"PYTHONPATH": sys.path[0]},
    start_new_session=True,
  )


def srun(words: list[str]) -> None:
  import shutil
  import subprocess

  split = words.index("bash")
  known = {"kill-on-bad-exit", "wait", "open-mode", "output"}
  options = parsed(words[:split], known)
  folder, tasks = pathlib.Path(os.environ["FAKE_FOLDER"]), []
  for number in range(int(os.environ["FAKE_NODES"])):
    task = folder / f"task-{number}"
    shutil.rmtree(task, ignore_errors=True)
    task.mkdir()
    given = {"SLURM_PROCID": str(number), fake_slurm.TASK: str(task)}
    if "MSM_TPU_STATE" in os.environ:  # in the node's own /tmp
      given["MSM_TPU_STATE"] = str(folder / f"node{number}-tmp")
    runner = [sys.executable, "-S", str(fake_slurm._RUNNER), str(task), *words[split:]]
    with open(options["output"].replace("%t", str(number)), "ab") as log:
      tasks.append(
        subprocess.Popen(runner, env=os.environ | given, stdout=log, stderr=log)
      )

  def killed(*_: object) -> None:
    for each in folder.glob("task-*/pid"):
      os.kill(int(each.read_text()), signal.SIGKILL)

  signal.signal(signal.SIGTERM, killed)  # srun: forcing job termination
  for task in tasks:
    task.wait()
  sys.exit(
    max(int((folder / f"task-{k}" / "exit").read_text()) for k in range(len(tasks)))
  )


def sacct(words: list[str]) -> None:
  known = {"noheader", "parsable2", "allocations", "format", "jobs"}
  options = parsed(words, known)
  with fake_slurm.opened(ROOT) as slurm:
    if not slurm["accounts_are_kept"]:
      sys.exit("Slurm accounting storage is disabled")
    print(slurm["jobs"][options["jobs"]]["state"])


def ssh(words: list[str]) -> None:
  host, script = words
  if host != "me@login":
    sys.exit(f"ssh: Could not resolve hostname {host}: Name or service not known")
  os.execvp("bash", ["bash", "-c", script])


def scp(words: list[str]) -> None:
  import shutil

  quiet, source, target = words
  assert quiet == "-q" and target.startswith("me@login:"), words
  shutil.copyfile(source, target.partition(":")[2])


globals()[sys.argv[1]](sys.argv[2:])
