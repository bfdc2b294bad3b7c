"""Random kills of hosts, supervisor and network while a job runs to its end.

    python tests/kill_drive.py --seed=0 --kills=20 [--hosts=4] [--study]

Hosts are directories and processes, the cloud is `fake_tools/gcloud`, the bucket
`fake_gcs.py`; the rest is what users run. Without --study a small program stands in for
launch.py that counts, saves and hashes; with it the job is the study of pod_study.py,
which is then run once more with nothing done to it: both must come to the same, bit for
bit. Prints what was done when, and what came of it; ends with 0 if that is as it should
be.
"""

import argparse
import collections
import contextlib
import dataclasses
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

sys.path[:0] = [str(pathlib.Path(__file__).parents[1])]

import fake_hosts  # noqa: E402
import study_end  # noqa: E402
from fake_cloud import HERE, FakeCloud  # noqa: E402

TIMING = {
  "poll_s": 0.2,
  "beat_s": 0.5,
  "gather_s": 1.0,
  "lost_s": 8.0,
  "settle_s": 4.0,
  "grace_s": 6.0,
  "backoff_s": 0.3,
  "max_backoff_s": 2.0,
  "look_s": 0.5,
  "first_beat_s": 20.0,
}
BUSY = "HTTPError 503: Service Unavailable"


@dataclasses.dataclass
class Outcome:
  """What came of a drive.

  Attributes:
    code: how the last supervisor ended.
    kills: what was done, by kind.
    seconds: wall time.
    attempts: that hosts made.
    said: the last line of the supervisor.
    left: resources and processes.
  """

  code: int | None
  kills: collections.Counter
  seconds: float
  attempts: int
  said: str
  left: list[str]


class Drive:
  """One job and what is done to it."""

  def __init__(self, cloud: FakeCloud, seed: int, say=print):
    self._cloud, self._random, self._say = cloud, random.Random(seed), say
    self._began = time.monotonic()
    self._supervisor: subprocess.Popen | None = None
    self.kills: collections.Counter = collections.Counter()
    self._ways = {
      "one host": self._one_host,
      "all hosts": self._all_hosts,
      "an agent": lambda: self._process("-m tpu.host"),
      "a command": lambda: self._process(""),
      "the supervisor": self._kill_supervisor,
      "the bucket": lambda: self._cloud.gcs.outage(self._random.uniform(1, 10)),
      "gcloud": self._gcloud,
    }

  def run(self, kills: int, limit_s: float) -> Outcome:
    """Does so many kills, then lets the job come to its end."""
    self._supervisor = self._cloud.start()
    deadline = time.monotonic() + limit_s
    due = self._next()
    while time.monotonic() < deadline and self._supervisor.poll() is None:
      time.sleep(0.05)
      if sum(self.kills.values()) < kills and time.monotonic() >= due:
        self._kill()
        due = self._next()
    code = self._supervisor.poll()
    if code is None:
      self._supervisor.kill()
      self._supervisor.wait()
    record = self._cloud.board.attempt("study")
    return Outcome(
      code=code,
      kills=self.kills,
      seconds=time.monotonic() - self._began,
      attempts=record.attempt if record else 0,
      said=self._cloud.said().strip().splitlines()[-1],
      left=self._settled(),
    )

  def _next(self) -> float:
    return time.monotonic() + self._random.uniform(2.0, 14.0)

  def _kill(self) -> None:
    way = self._random.choice(list(self._ways))
    with contextlib.suppress(
      ProcessLookupError, IndexError
    ):  # nothing of that is there
      self._ways[way]()
      self.kills[way] += 1
      self._say(f"{time.monotonic() - self._began:6.1f} s  {way}")

  def _one_host(self) -> None:
    fake_hosts.take_away(self._random.choice(self._cloud.machines()))

  def _all_hosts(self) -> None:
    if not self._cloud.machines():
      raise IndexError
    self._cloud.preempt(grace_s=self._random.choice((0.0, 3.0)))

  def _process(self, what: str) -> None:
    """Kills a process on some machine whose command line has `what` in it."""
    machine = self._random.choice(self._cloud.machines())
    agents = [pid for pid in fake_hosts.processes(machine) if _is_agent(pid)]
    others = [pid for pid in fake_hosts.processes(machine) if pid not in agents]
    os.kill(self._random.choice(agents if what else others), signal.SIGKILL)

  def _kill_supervisor(self) -> None:
    self._supervisor.kill()
    self._supervisor.wait()
    time.sleep(self._random.uniform(0.0, 2.0))
    self._supervisor = self._cloud.start()

  def _gcloud(self) -> None:
    for _ in range(self._random.randint(1, 3)):
      self._cloud.order("compute", BUSY, self._random.choice(("before", "after")))

  def _settled(self) -> list[str]:
    deadline = time.monotonic() + 10
    while self._cloud.left() and time.monotonic() < deadline:
      time.sleep(0.1)
    return self._cloud.left()


def _is_agent(pid: int) -> bool:
  with contextlib.suppress(OSError):
    return b"tpu.host" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()
  return False


def counting(out: pathlib.Path, steps: int = 800, step_s: float = 0.1) -> list[str]:
  """Returns a command that stands in for launch.py."""
  out.mkdir(parents=True, exist_ok=True)
  return [str(HERE / "counting_process.py"), str(out), str(steps), str(step_s)]


def look_after(
  root: pathlib.Path, asked: argparse.Namespace, kills: int
) -> tuple[Outcome, pathlib.Path]:
  """Runs a job of its own; returns what came of it, and its workdir."""
  workdir = root / "w"
  launch = None if asked.study else counting(workdir)
  timing = TIMING
  if asked.study:  # starting JAX takes its time
    timing |= {"lost_s": 20.0, "settle_s": 20.0, "grace_s": 20.0}
  config = f"tests/pod_study.py:{asked.hosts}"
  with FakeCloud(
    root / "c", "compute", asked.hosts, timing, config, workdir, launch
  ) as cloud:
    outcome = Drive(cloud, asked.seed).run(kills, asked.limit_s)
    if outcome.code or outcome.left:
      print(cloud.said())
  done = ", ".join(f"{count} x {way}" for way, count in sorted(outcome.kills.items()))
  print(f"{sum(outcome.kills.values())} kills ({done})")
  print(
    f"exit {outcome.code} after {outcome.seconds:.0f} s, {outcome.attempts} attempts, "
    f"left: {outcome.left or 'nothing'}; {outcome.said}",
    flush=True,
  )
  return outcome, workdir


def unlike(hurt: pathlib.Path, straight: pathlib.Path) -> list[str]:
  """Returns what two studies did not come to alike."""
  ends = [study_end.of(workdir) for workdir in (hurt, straight)]
  different = [name for name in ends[0] if ends[0][name] != ends[1][name]]
  verdict = f"unlike: {', '.join(different)}" if different else "the same bits"
  print(f"beside the undisturbed one, {', '.join(ends[0])}: {verdict}")
  return different


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--kills", type=int, default=20)
  parser.add_argument("--hosts", type=int, default=4, choices=(2, 4))
  parser.add_argument("--limit_s", type=float, default=1800.0)
  parser.add_argument("--study", action="store_true")
  asked = parser.parse_args()
  with tempfile.TemporaryDirectory(prefix="msm-jax-kills-") as folder:
    root = pathlib.Path(folder)
    outcome, hurt = look_after(root / "hurt", asked, asked.kills)
    if outcome.code not in (0, 2) or outcome.left:
      return 1
    if not asked.study or outcome.code:  # stopped with the reason: nothing to compare
      return 0
    undisturbed, straight = look_after(root / "straight", asked, 0)
    if undisturbed.code or undisturbed.left:
      return 1
    return 1 if unlike(hurt, straight) else 0


if __name__ == "__main__":
  sys.exit(main())
