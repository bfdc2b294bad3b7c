"""Slurm: nodes with GPUs; every step of a job is a batch job that waits for the last.

`create` brings the code and submits all of it; from then on Slurm starts nodes, starts
them again when they fail or are wanted by others (--requeue), and lets the next step
begin. Scripts requeue themselves when an agent ended with 75, as near the end of the
time limit (templates/slurm.sh.jinja). In `slurm.directory`/slurm/JOB lie

    code/SHA       the code
    described      hash of what was asked for: of another job the rest is forgotten
    submitted      a line for every batch job: STEP ID
    stop           when it is there, scripts do not requeue themselves
    STEP.exit      exit code of a step whose script ended by itself
    STEP.failures  exit codes of agents that failed, a line each
    STEP-K.log, STEP-ID.out  what host K, and the batch script, printed

Checked against the manual pages of Slurm 22.05 (sbatch, srun, scancel, scontrol,
squeue, sacct).
"""

import dataclasses
import hashlib
import pathlib
import shlex
import tempfile
import time
from collections.abc import Iterator

from msm_jax.errors import UserError
from msm_jax.topology import Topology
from tpu import rendering
from tpu.archive import Archive
from tpu.job import Cpu, Gpus, Job, Provisioning, State, Step
from tpu.remote import board_of
from tpu.settings import Settings
from tpu.shell import Failed, Shell
from tpu.targets import Found, slurm_queue

MAX_RESTARTS = 20  # of a script whose agents failed otherwise than with 2 or 75
_SAVE_S = 120  # before the end of the time limit
_WHOLE_HOST = 8  # GPUs
_SETUP_TIMEOUT_S = 3600.0
_DELETE_TIMEOUT_S = 120.0


@dataclasses.dataclass(frozen=True)
class Slurm:
  """The target; see `tpu.targets.Target`."""

  settings: Settings
  shell: Shell
  archive: Archive

  name = "slurm"
  restarts_itself = True

  def check(self, job: Job) -> None:
    """Refuses what cannot be: machines, ways to pay, tools, secrets."""
    own = self.settings.slurm
    self.settings.need("slurm", "bucket", "slurm.directory")
    if own.login and not self.settings.bucket.startswith("gs://"):
      raise UserError(
        f"{self.settings.where}: with slurm.login, bucket must be gs://BUCKET/PREFIX, "
        f"which this machine sees too; or run this on {own.login} without slurm.login"
      )
    if isinstance(job.machines, Topology):
      raise UserError(
        f"--target=slurm has GPUs (--slice=h100:8), not {job.machines.name}: take "
        "--target=compute, gke or queued"
      )
    if job.provisioning in (Provisioning.SPOT, Provisioning.FLEX):
      raise UserError(
        f"--{job.provisioning.value}: Slurm has partitions for that: set "
        "slurm.partition or slurm.qos"
      )
    if job.provisioning is Provisioning.RESERVED:
      self.settings.need("slurm --reserved", "reservation")
    if self.shell.dry_run:
      return
    self.shell.need("ssh" if own.login else "sbatch")
    self._ask("command -v sbatch srun squeue scancel scontrol", "Slurm is not there")
    for variable, secret in self.settings.secrets.items():
      file = self._secret(secret)
      self._ask(
        f"test -r {shlex.quote(file)}",
        f"secrets.{variable}: put the key into {file} (chmod 600) on the cluster",
      )

  def create(self, job: Job) -> None:
    """Brings the code and submits every step that is neither done nor in the queue."""
    self.push(job, ())
    same = f'[ "$(cat described 2>/dev/null)" = {_digest(job)} ]'
    self._do(
      f"cd {self._path(job, '')} || exit; rm -f stop; {same} || rm -f -- *.exit; "
      f"echo {_digest(job)} >described"
    )
    jobs, ends = self._queue(job)
    there = {each.name: each.id for each in jobs}
    before = None
    for step in job.steps:
      name = slurm_queue.job_name(job, step)
      if name in there:
        before = there[name]
      elif ends.get(step.name) != 0:
        before = self._submit(job, step, before)

  def find(self, job: Job) -> Found:
    """Returns what the queue and what is left behind say."""
    if self.shell.dry_run:
      return Found(state=State.ABSENT)
    jobs, ends = self._queue(job)
    resources = tuple(f"job {each.id}" for each in jobs)
    running = [each for each in jobs if each.state == "RUNNING"]
    if running:
      listed = self._ask(f"scontrol show hostnames {shlex.quote(running[0].nodes)}")
      hosts = tuple(listed.split())
      return Found(state=State.READY, hosts=hosts, resources=resources)
    if jobs:
      state, says = slurm_queue.waits_for(jobs)
      return Found(state=state, says=says, resources=resources)
    state, says = self._ended(job, ends)
    return Found(state=state, says=says)

  def push(self, job: Job, hosts: tuple[str, ...]) -> None:
    """Brings code and Python to the shared directory, unless they are there."""
    code = self._path(job, f"code/{job.code}")
    extras = "cuda,gcs" if isinstance(job.machines, Gpus) else "gcs"
    if self.shell.dry_run or not self._is_there(code):
      if job.code != self.archive.sha:  # it goes on with what was submitted
        raise UserError(
          f"--name={job.name}: its code {job.code} is not in {code} any more: "
          f"python -m tpu delete --name={job.name}, and run it again"
        )
      self._do(f"mkdir -p {self._path(job, 'code')}")
      self._copy(job, f"{code}.tar.gz")
      # Made under another name: what is cut short here is begun again.
      self._do(
        f"rm -rf {code}.new && mkdir {code}.new && tar -xzf {code}.tar.gz -C {code}.new"
        f" && mv {code}.new {code} && rm {code}.tar.gz"
      )
    set_up = f"VENV={shlex.quote(self._venv)} EXTRAS={extras} bash {code}/tpu/setup.sh"
    lines = [*self.settings.slurm.setup.strip().splitlines(), set_up]
    patient = dataclasses.replace(self.shell, timeout_s=_SETUP_TIMEOUT_S)
    dataclasses.replace(self, shell=patient)._do("\n".join(lines))

  def start(self, job: Job, step: Step, hosts: tuple[str, ...]) -> None:
    """Does nothing: Slurm started the nodes."""

  def logs(self, job: Job, host: int, follow: bool) -> Iterator[str]:
    """Yields what a host printed, in the step that runs or ran last."""
    names = [f"{step.name}-{host}.log" for step in job.steps]
    listed = self._ask(f"cd {self._path(job, '')} && ls -t {' '.join(names)} || true")
    if not listed.split():
      raise UserError(f"--host={host} printed nothing yet: see python -m tpu status")
    file = self._path(job, listed.split()[0])
    return self.shell.lines(self._argv(f"tail -n +1 {'-F ' * follow}{file}"))

  def stop(self, job: Job) -> None:
    """Lets agents save and end, and nothing start again."""
    self._do(
      f"touch {self._path(job, 'stop')}; {self._each(job)} scancel --me "
      "--state=PENDING --name=$name; scancel --me --signal=TERM --state=RUNNING "
      "--name=$name; done"
    )

  def delete(self, job: Job) -> None:
    """Cancels all batch jobs and removes code and logs; returns when they are gone."""
    # The marker, lest a script that is told to end requeues itself.
    mark = f"mkdir -p {self._path(job, '')} && touch {self._path(job, 'stop')}"
    self._do(f"{mark}; {self._each(job)} scancel --me --name=$name; done")
    deadline = time.monotonic() + _DELETE_TIMEOUT_S
    while not self.shell.dry_run and self._queue(job)[0]:
      if time.monotonic() > deadline:
        raise Failed(["scancel"], 1, "batch jobs do not go")
      time.sleep(1.0)
    self._do(f"rm -rf {self._path(job, '')}")

  def script(self, job: Job, step: Step) -> str:
    """Returns the batch script of a step."""
    machines = job.at(step).machines
    directory = f"{self.settings.slurm.directory}/slurm/{job.name}"
    return rendering.render(
      "slurm.sh.jinja",
      job=job,
      step=step,
      machines=machines.name,
      options=self._options(job, step),
      here=directory,
      setup=self.settings.slurm.setup.strip().splitlines(),
      environment=self.settings.environment,
      secrets={n: self._secret(secret) for n, secret in self.settings.secrets.items()},
      num_hosts=machines.num_hosts,
      agent=self._agent(job, step),
      max_restarts=MAX_RESTARTS,
    )

  def _submit(self, job: Job, step: Step, before: str | None) -> str:
    """Submits a step that begins after another batch job; returns its id."""
    argv = ["sbatch", "--parsable"]
    if before is not None:
      argv += [f"--dependency=afterok:{before}", "--kill-on-invalid-dep=yes"]
    old = [self._path(job, f"{step.name}.{kind}") for kind in ("exit", "failures")]
    said = self._do(
      f"rm -f {' '.join(old)}; id=$({shlex.join(argv)}) && id=${{id%%;*}} && "
      f"echo {step.name} $id >>{self._path(job, 'submitted')} && echo $id",
      stdin=self.script(job, step),
    )
    return said.strip() or f"ID_OF_{step.name}"

  def _agent(self, job: Job, step: Step) -> str:
    """Returns what a shell runs on every node."""
    hosts = job.at(step).machines.num_hosts
    python = f"{self._venv}/bin/python"
    command = [python, *job.command(step)[1:]]
    options = [f"--board={board_of(self.settings, job.name)}", f"--step={step.name}"]
    agent = shlex.join([python, "-m", "tpu.host", *options, f"--num_hosts={hosts}"])
    lines = ["export JAX_PROCESS_ID=$SLURM_PROCID"] if hosts > 1 else []
    # Slurm signals all that runs on a node, this shell, too.
    lines += ["trap : TERM", f"{agent} --host=$SLURM_PROCID -- \\"]
    lines += [f"  {shlex.join(command)}", "code=$?", 'rm -rf "$MSM_TPU_STATE"']
    return "\n".join([*lines, 'exit "$code"'])

  def _options(self, job: Job, step: Step) -> list[str]:
    own, machines = self.settings.slurm, job.at(step).machines
    on_cpu = isinstance(machines, Cpu)
    partition = (on_cpu and own.cpu_partition) or own.partition
    reservation = self.settings.reservation
    is_reserved = job.provisioning is Provisioning.RESERVED and not on_cpu
    given = {
      "job-name": slurm_queue.job_name(job, step),
      "nodes": machines.num_hosts,
      "ntasks-per-node": 1,
      "gres": None if on_cpu else self._gres(machines),
      "partition": partition,
      "account": own.account,
      "qos": own.qos,
      "constraint": None if on_cpu else own.constraint,
      "reservation": reservation if is_reserved else None,
      "time": own.time_limit,
      "signal": f"B:TERM@{_SAVE_S}",
      "open-mode": "append",
      "output": f"{own.directory}/slurm/{job.name}/{step.name}-%j.out",
    }
    words = [f"--{name}={value}" for name, value in given.items() if value is not None]
    if isinstance(machines, Gpus) and machines.per_host == _WHOLE_HOST:
      words += ["--exclusive", "--mem=0"]  # all of the host
    return [*words, "--requeue", *own.options.strip().splitlines()]

  def _gres(self, gpus: Gpus) -> str:
    """Returns GPUs by their type, unless tpu.toml says otherwise what they are."""
    own = self.settings.slurm
    kind = "" if own.constraint or ":" in own.gres else f":{gpus.kind}"
    return f"{own.gres}{kind}:{gpus.per_host}"

  @property
  def _venv(self) -> str:
    return f"{self.settings.slurm.directory}/venv"

  def _secret(self, name: str) -> str:
    return f"{self.settings.slurm.directory}/secrets/{name}"

  def _path(self, job: Job, name: str) -> str:
    """Returns a path on the cluster, as one word of a shell."""
    return shlex.quote(f"{self.settings.slurm.directory}/slurm/{job.name}/{name}")

  def _names(self, job: Job) -> str:
    return ",".join(slurm_queue.job_name(job, step) for step in job.steps)

  def _each(self, job: Job) -> str:
    """Returns the head of a loop: scancel takes one name, unlike squeue."""
    return f"for name in {self._names(job).replace(',', ' ')}; do"

  def _is_there(self, path: str) -> bool:
    return self._ask(f"test -d {path} && echo yes || true").strip() == "yes"

  def _queue(self, job: Job) -> tuple[list[slurm_queue.BatchJob], dict[str, int]]:
    """Returns batch jobs in the queue, and exit codes of steps that left it."""
    if self.shell.dry_run:
      return [], {}
    question = (
      f"squeue --me --noheader --name={self._names(job)} --format='%j|%i|%T|%r|%N' "
      f"|| exit; cd {self._path(job, '')} 2>/dev/null && "
      "grep -H '' -- *.exit 2>/dev/null; true"
    )
    return slurm_queue.parse(job, self._ask(question))

  def _ended(self, job: Job, ends: dict[str, int]) -> tuple[State, str]:
    """Returns what became of a job that has nothing in the queue."""
    for step in job.steps:
      code = ends.get(step.name)
      if code is None:  # never there, lost, or its script ended by Slurm
        return self._lost(job, step)
      if code == 75:
        return State.ABSENT, "stopped"
      if code:
        log = f"{step.name}-0.log"
        words = self._last_words(job, log, f"$(ls -t {step.name}-*.out)")
        at = self._path(job, log)
        return State.FAILED, f"{step.name} ended with {code}: {words}see {at}"
    return State.ABSENT, ""

  def _lost(self, job: Job, step: Step) -> tuple[State, str]:
    """Returns why a step left the queue without a word, if it was ever there."""
    noted = self._ask(
      f"cd {self._path(job, '')} 2>/dev/null || exit 0; [ ! -e stop ] || echo stop; "
      f"sed -n 's/^{step.name} //p' submitted 2>/dev/null | tail -n 1"
    ).split()
    if "stop" in noted:
      return State.ABSENT, "stopped"
    if not noted:
      return State.ABSENT, ""
    # Where nobody keeps accounts the controller knows it for some minutes.
    said = self._ask(
      f"sacct --noheader --parsable2 --allocations --format=State --jobs={noted[-1]} "
      f"2>/dev/null || scontrol --oneliner show job {noted[-1]} 2>/dev/null | "
      r"sed 's/.* JobState=\([A-Z_]*\).*/\1/'"
    )
    state, says = slurm_queue.became(step, said)
    if state is State.FAILED:
      words = self._last_words(job, f"$(ls -t {step.name}-*.out)")
      says += f": {words.removesuffix(': ')}" if words else ""
    return state, says

  def _last_words(self, job: Job, *files: str) -> str:
    """Returns the last line of the first file that has any, and a colon."""
    said = self._ask(
      f"cd {self._path(job, '')} && for file in {' '.join(files)}; do [ ! -s $file ] "
      "|| { tail -n 1 $file; break; }; done 2>/dev/null; true"
    )
    return f"{said.strip()}: " if said.strip() else ""

  def _copy(self, job: Job, path: str) -> None:
    """Brings the archive to the cluster."""
    login = self.settings.slurm.login
    with tempfile.TemporaryDirectory() as folder:
      source = self.archive.file
      if not self.shell.dry_run:
        source = str(self.archive.save(pathlib.Path(folder)))
      if login:
        self._run(self.shell.do, ["scp", "-q", source, f"{login}:{path}"])
      else:
        self._run(self.shell.do, ["cp", source, shlex.split(path)[0]])

  # --- commands on the cluster -------------------------------------------------------

  def _argv(self, script: str) -> list[str]:
    login = self.settings.slurm.login
    return ["ssh", login, script] if login else ["bash", "-c", script]

  def _ask(self, script: str, way_out: str | None = None) -> str:
    return self._run(self.shell.ask, self._argv(script), way_out=way_out)

  def _do(self, script: str, stdin: str | None = None) -> str:
    more = () if stdin is None else (stdin,)
    return self._run(self.shell.do, self._argv(script), *more)

  def _run(self, run, argv: list[str], *more: str, way_out: str | None = None) -> str:
    try:
      return run(argv, *more)
    except Failed as error:
      raise slurm_queue.explained(error, self.settings, way_out) from None


def _digest(job: Job) -> str:
  """Returns a hash of what is asked for."""
  return hashlib.sha256(repr(job.but_for_code()).encode()).hexdigest()[:16]
