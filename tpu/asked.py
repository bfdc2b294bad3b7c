"""What a verb is about: a job and where it goes, checked as far as costs nothing."""

import dataclasses
from collections.abc import Callable
from typing import Any

from msm_jax.errors import UserError
from msm_jax.storage import urls
from tpu import gcloud, given, inputs, remote, slices
from tpu import settings as settings_lib
from tpu.archive import Archive, pack
from tpu.given import FLAGS
from tpu.job import Cpu, Job
from tpu.settings import Settings
from tpu.shell import Shell
from tpu.targets import Target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
  """What a verb is about."""

  job: Job
  target: Target
  settings: Settings
  config: dict[str, Any] | None = None  # None: of a job that was submitted before

  @property
  def board_url(self) -> str:
    """Returns where hosts leave word."""
    return remote.board_of(self.settings, self.job.name)

  @property
  def board(self):
    """Returns the board itself."""
    from tpu import board

    return board.open_(self.board_url)

  def each(self) -> list[Job]:
    """Returns the job as each of its kinds of machines sees it.

    Where the cloud starts steps by itself, it is given the whole job at once.
    """
    if self.target.restarts_itself:
      return [self.job]
    return list(dict.fromkeys(self.job.at(step) for step in self.job.steps))

  def now(self) -> Job:
    """Returns the job as the machines of its first unfinished step see it."""
    if self.target.restarts_itself:
      return self.job
    for step in self.job.steps:
      record = self.board.attempt(step.name)
      if record is None or record.phase != "finished":
        return self.job.at(step)
    return self.job.at(self.job.steps[-1])


def new(say: Callable[[str], None]) -> Asked:
  """Returns what flags ask for, checked as far as it can be before it costs."""
  from tpu import study

  config_flag = study.located(given.needed("config"))
  target_name = given.needed("target")
  settings, shell = given.settings(), Shell(dry_run=FLAGS.dry_run)
  name = gcloud.checked_name(FLAGS.name or study.default_name(config_flag))
  config = study.load(config_flag, given.OVERRIDES)
  study.check_part(config, FLAGS.arm, FLAGS.seed)
  machines = study.machines(config, FLAGS.slice, FLAGS.num_slices)
  steps = study.steps(FLAGS.cpu_steps)
  settings.need(target_name, "bucket")
  slices.check_prices(settings)
  archive = pack(shell)
  job = Job(
    name=name,
    config=config_flag,
    overrides=given.of_study(),
    machines=machines,
    provisioning=given.provisioning(),
    workdir=FLAGS.workdir or remote.workdir_of(settings, name),
    code=archive.sha,
    steps=steps,
    max_same_failures=FLAGS.max_same_failures,
  )
  target = _target(target_name, settings, shell, job, archive)
  asked = Asked(job=job, target=target, settings=settings, config=config)
  for here in asked.each():
    target.check(here)
  if archive.data:
    _check_code(archive, config_flag)
    inputs.check(config, archive.names, settings, target_name == "slurm", say)
  _check_fit(asked, say)
  _note_workdir(asked, say)
  return asked


def known(say: Callable[[str], None]) -> Asked:
  """Returns a job that was submitted before; in a dry run, what flags ask for."""
  if FLAGS.dry_run:
    if FLAGS.config is None:
      raise UserError(
        "--dry_run asks nobody, the bucket neither: give --config, --target and --slice"
      )
    return new(say)
  from tpu import board as board_lib
  from tpu import study

  settings = given.settings()
  name = FLAGS.name
  if name is None and FLAGS.config is None:
    raise UserError("--name=... is needed: as `create` or `run` said it")
  if name is None:
    name = study.default_name(study.located(FLAGS.config))
  settings.need(f"any --name={name}", "bucket")
  url = remote.board_of(settings, gcloud.checked_name(name))
  submission = board_lib.open_(url).submission()
  if submission is None:
    raise UserError(
      f"--name={name}: nothing of that name was submitted at {url}: is `bucket` in "
      f"{settings.where} the one it was submitted with?"
    )
  job = submission.job
  if submission.settings:
    then = settings_lib.parse(submission.settings, f"{url}/job.json")
    settings = dataclasses.replace(then, bucket=settings.bucket)
  archive = Archive(sha="", data=b"")  # its code went with it
  target = _target(submission.target, settings, Shell(), job, archive)
  return Asked(job=job, target=target, settings=settings)


def _target(
  name: str, settings: Settings, shell: Shell, job: Job, archive: Archive
) -> Target:
  if name == "compute":
    from tpu.targets import compute

    return compute.make(settings, shell, job, archive)
  if name == "queued":
    from tpu.targets import queued

    return queued.make(settings, shell, job, archive)
  if name == "gke":
    from tpu.targets import gke

    return gke.Gke(settings, shell, archive)
  from tpu.targets import slurm

  return slurm.Slurm(settings, shell, archive)


def _check_code(archive: Archive, config: str) -> None:
  """Refuses a config that machines would not get."""
  path = config.partition(":")[0]
  if path not in archive.names:
    raise UserError(
      f"--config={path} is ignored by git, so that machines do not get it: name it "
      "otherwise, or change .gitignore"
    )


def _note_workdir(asked: Asked, say: Callable[[str], None]) -> None:
  """Says that a directory goes with the machines, unless they are Slurm's."""
  workdir, target = asked.job.workdir, asked.target.name
  if target != "slurm" and not urls.is_remote(workdir):
    say(
      f"# note: --workdir={workdir} is a directory of each machine of "
      f"--target={target}, and goes with it: take gs://BUCKET/NAME"
    )


def _check_fit(asked: Asked, say: Callable[[str], None]) -> None:
  machines = asked.job.machines
  if FLAGS.skip_fit or FLAGS.dry_run or not hasattr(machines, "chip"):
    return
  from tpu import fitting

  fitting.check(asked.config, machines, asked.job.workdir, say, FLAGS.arm)


def terms(asked: Asked) -> dict[str, Any]:
  """Returns what job.json keeps beside the job: settings, and what an hour costs."""
  job, own = asked.job, asked.settings
  found = dataclasses.asdict(own)
  del found["where"]
  return {
    "settings": found,
    "dollars_per_hour": slices.dollars_per_hour(job.machines, job.provisioning, own),
    "cpu_dollars_per_hour": slices.dollars_per_hour(Cpu(), job.provisioning, own),
  }
