"""From a laptop to a pod and back:

  python -m tpu VERB --config=configs/NAME.py[:ARG] --target=TARGET --slice=v6e-16

VERB
  create  ask for the machines
  push    bring code and Python to them
  run     all that is not done yet: create, push, start, look after, delete
  status  how far it is, what it cost, what is there
  logs    of one host: --host=K [--follow]
  stop    hosts save and end; machines stay
  delete  remove every machine and whatever else was made
TARGET
  compute (v5p, v6e, tpu7x), queued (v4, v5e), gke, slurm (GPUs)

status, logs, stop and delete need no more than --name. Names of project, zone, bucket:
tpu.toml, see tpu/settings.example.toml. --dry_run prints every command and runs none.
Exit codes: 0 done, 2 you can fix it, 75 stopped on purpose (run again to go on).
"""

import dataclasses
import difflib
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from msm_jax import exits
from msm_jax.errors import UserError
from tpu import gcloud, remote, slices
from tpu import settings as settings_lib
from tpu.archive import Archive, pack
from tpu.job import Job, Provisioning
from tpu.settings import Settings
from tpu.shell import Shell
from tpu.targets import Target

TARGETS = ("compute", "gke", "queued", "slurm")
FLAGS = flags.FlagValues()


def _flag(
  define: Callable[..., Any], name: str, default: Any, says: str, *kinds: Any
) -> None:
  define(name, default, *kinds, says, flag_values=FLAGS)


_flag(flags.DEFINE_bool, "help", False, "print how this is used")
_flag(flags.DEFINE_string, "config", None, "configs/NAME.py[:ARG]")
_flag(flags.DEFINE_enum, "target", None, "which kind of cloud", TARGETS)
_flag(flags.DEFINE_string, "slice", None, "v6e-16, v5p:2x2x2, h100:8")
flags.DEFINE_integer(
  "num_slices", None, "so many slices, along `data`", 1, flag_values=FLAGS
)
_flag(flags.DEFINE_bool, "spot", False, "cheap, may be taken away at any time")
_flag(flags.DEFINE_bool, "reserved", False, "from `reservation` in tpu.toml")
_flag(
  flags.DEFINE_bool, "flex", False, "flex-start: waits for its turn, 7 days at most"
)
_flag(flags.DEFINE_string, "name", None, "of the job and its resources")
_flag(flags.DEFINE_string, "workdir", None, "of the study; default BUCKET/studies/NAME")
_flag(flags.DEFINE_string, "settings", None, "a file other than tpu.toml")
_flag(flags.DEFINE_bool, "dry_run", False, "print commands, run none")
_flag(flags.DEFINE_bool, "skip_fit", False, "do not ask whether it fits the slice")
_flag(flags.DEFINE_bool, "keep", False, "run: leave the machines when all is done")
_flag(flags.DEFINE_bool, "detach", False, "run: leave when all hosts work")
_flag(flags.DEFINE_list, "cpu_steps", [], "modes for a machine of its own: generate")
_flag(flags.DEFINE_integer, "max_same_failures", 3, "give up after so many in a row")
_flag(flags.DEFINE_integer, "host", 0, "logs: of this host")
_flag(flags.DEFINE_bool, "follow", False, "logs: go on as they grow")


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
    """Returns the job as each of its kinds of machines sees it."""
    return list(dict.fromkeys(self.job.at(step) for step in self.job.steps))


def create() -> None:
  """Asks for the machines of the first step."""
  asked = _new()
  if _is_dry():
    return asked.target.create(asked.each()[0])
  _submit(asked)
  asked.target.create(asked.each()[0])
  return _say(f"{asked.job.name}: asked for; `python -m tpu status` says when it is up")


def push() -> None:
  """Brings code and Python to the machines."""
  asked = _new()
  here = asked.each()[0]
  if _is_dry():
    return asked.target.push(here, _expected_hosts(asked.target, here))
  found = asked.target.find(here)
  if not found.hosts and not asked.target.restarts_itself:
    raise UserError(
      f"{asked.job.name}: machines are not up ({found.state.value}): `python -m tpu "
      "create` them, or `run`, which waits for them"
    )
  asked.target.push(here, found.hosts)
  return _say(f"{asked.job.name}: pushed {asked.job.code}")


def run() -> None:
  """Does what is not done yet, and looks after it until it is."""
  from tpu import supervisor

  asked = _new()
  _tell_price(asked)
  if _is_dry():
    return _dry_run(asked)
  supervisor.look_after(
    asked.job,
    asked.target,
    asked.board,
    settings=_as_json(asked.settings),
    dollars_per_hour=slices.dollars_per_hour(
      asked.job.machines, asked.job.provisioning, asked.settings
    ),
    keep=FLAGS.keep,
    detach=FLAGS.detach,
    say=_say,
  )
  return None


def status() -> None:
  """Prints how far a job is."""
  _refuse_dry("status")
  from tpu import status as status_lib

  asked = _known()
  found = None
  try:
    asked.target.check(asked.job)
    found = asked.target.find(asked.each()[-1])
  except UserError as error:
    _say(f"the cloud was not asked: {error}")
  for line in status_lib.lines(asked.board, found):
    print(line)


def logs() -> None:
  """Prints the log of one host."""
  _refuse_dry("logs")
  asked, host = _known(), FLAGS.host
  if not FLAGS.follow:
    for step in reversed(asked.job.steps):
      log = asked.board.log(step.name, host)
      if log is not None:
        return sys.stdout.buffer.write(log) and None
  last = asked.each()[-1]
  for line in asked.target.logs(last, host, FLAGS.follow):
    print(line, flush=True)
  return None


def stop() -> None:
  """Lets hosts save and end."""
  asked = _known()
  if _is_dry():
    return [asked.target.stop(here) for here in asked.each()] and None
  asked.board.ask_to_stop()
  for here in asked.each():
    asked.target.stop(here)
  return _say(
    f"{asked.job.name}: hosts save and end; machines stay, and cost, until `python -m "
    "tpu delete`"
  )


def delete() -> None:
  """Removes all that was made."""
  asked = _known()
  left = []
  for here in asked.each():
    asked.target.delete(here)
    if not _is_dry():
      left += asked.target.find(here).resources
  if _is_dry():
    return
  if left:
    raise UserError(f"{asked.job.name}: still there: {', '.join(left)}: run again")
  _note_gone(asked)
  _say(f"{asked.job.name}: everything that was made is gone; {asked.job.workdir} stays")


VERBS = {
  verb.__name__: verb for verb in (create, push, run, status, logs, stop, delete)
}


def _new() -> Asked:
  """Returns what flags ask for, checked as far as it can be before it costs."""
  from tpu import study

  config_flag, target_name = study.located(_needed("config")), _needed("target")
  settings, shell = _settings(), Shell(dry_run=FLAGS.dry_run)
  name = gcloud.checked_name(FLAGS.name or study.default_name(config_flag))
  config = study.load(config_flag, _OVERRIDES)
  machines = study.machines(config, FLAGS.slice, FLAGS.num_slices)
  steps = study.steps(FLAGS.cpu_steps)
  settings.need(target_name, "bucket")
  archive = pack(shell)
  job = Job(
    name=name,
    config=config_flag,
    overrides=tuple(_OVERRIDES),
    machines=machines,
    provisioning=_provisioning(),
    workdir=FLAGS.workdir or remote.workdir_of(settings, name),
    code=archive.sha,
    steps=steps,
    max_same_failures=FLAGS.max_same_failures,
  )
  target = _target(target_name, settings, shell, job, archive)
  asked = Asked(job=job, target=target, settings=settings, config=config)
  for here in asked.each():
    target.check(here)
  _check_code(archive, config_flag)
  _check_fit(asked)
  return asked


def _known() -> Asked:
  """Returns a job that was submitted before; in a dry run, what flags ask for."""
  if _is_dry():
    return _new()
  from tpu import board as board_lib
  from tpu import study

  settings = _settings()
  name = FLAGS.name
  if name is None:
    name = study.default_name(study.located(_needed("config")))
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

    return gke.Gke(settings, shell)
  from tpu.targets import slurm

  return slurm.Slurm(settings, shell)


def _dry_run(asked: Asked) -> None:
  """Prints what a run does when nothing goes wrong, as a script."""
  job, target = asked.job, asked.target
  _say(f"# job.json, signs of life and logs: {asked.board_url}")
  there: list[Job] = []
  for number, step in enumerate(job.steps):
    here = job.at(step)
    hosts = _expected_hosts(target, here)
    _say(f"# --- {step.name}, on {here.machines.name}")
    if here not in there:
      there.append(here)
      target.create(here)
      _say("# ... until all hosts are up; names of hosts are the cloud's to choose")
      target.push(here, hosts)
    target.start(here, step, hosts)
    _say(f"# ... until {step.name} is done")
    later = [job.at(each) for each in job.steps[number + 1 :]]
    for used in [each for each in there if each not in later]:
      there.remove(used)
      if later or not FLAGS.keep:
        target.delete(used)


def _submit(asked: Asked) -> None:
  from tpu import submitting
  from tpu.board import Submission

  asked.board.files.make()
  submission = Submission(
    job=asked.job, target=asked.target.name, settings=_as_json(asked.settings)
  )
  submitting.submit(submission, asked.target, asked.board, _say)


def _note_gone(asked: Asked) -> None:
  """Ends the count of dollars."""
  from tpu.board import Event

  events = asked.board.events()
  for place in dict.fromkeys(step.place for step in asked.job.steps):
    known = [e.what for e in events if e.place == place and e.what != "asked"]
    if known[-1:] == ["came"]:
      gone = Event(what="went", place=place, time=time.time(), why="deleted")
      asked.board.add_event(gone)


def _check_code(archive: Archive, config: str) -> None:
  """Refuses a config that machines would not get."""
  path = config.partition(":")[0]
  if archive.data and path not in archive.names:
    raise UserError(
      f"--config={path} is ignored by git, so that machines do not get it: name it "
      "otherwise, or change .gitignore"
    )


def _check_fit(asked: Asked) -> None:
  machines = asked.job.machines
  if FLAGS.skip_fit or _is_dry() or not hasattr(machines, "chip"):
    return
  from tpu import fitting

  fitting.check(asked.config, machines, asked.job.workdir, _say)


def _tell_price(asked: Asked) -> None:
  machines, provisioning = asked.job.machines, asked.job.provisioning
  chips, hosts = slices.num_chips(machines), machines.num_hosts
  price = slices.dollars_per_hour(machines, provisioning, asked.settings)
  kind = getattr(machines, "kind", None) or machines.chip.name
  dollars = f"no price is known: [prices.{kind}] {provisioning.value} in tpu.toml"
  if price is not None:
    dollars = f"${price:,.2f} an hour {provisioning.value.replace('_', ' ')}"
  many = f"{hosts} hosts" if hosts > 1 else "1 host"
  _say(f"# {machines.name}: {chips} chips, {many}, {dollars}")


def _expected_hosts(target: Target, here: Job) -> tuple[str, ...]:
  expected = getattr(target, "expected_hosts", None)
  if expected is not None:
    return expected(here)
  return tuple(f"{here.name}-HOST{k}" for k in range(here.machines.num_hosts))


def _provisioning() -> Provisioning:
  asked = [name for name in ("spot", "reserved", "flex") if FLAGS[name].value]
  if len(asked) > 1:
    raise UserError(f"--{asked[0]} and --{asked[1]} exclude one another: take one")
  return Provisioning(asked[0]) if asked else Provisioning.ON_DEMAND


def _settings() -> Settings:
  return settings_lib.load(pathlib.Path(FLAGS.settings) if FLAGS.settings else None)


def _as_json(settings: Settings) -> dict[str, Any]:
  found = dataclasses.asdict(settings)
  del found["where"]
  return found


def _needed(flag: str) -> str:
  value = FLAGS[flag].value
  if value is None:
    known = f" ({', '.join(TARGETS)})" if flag == "target" else ""
    raise UserError(f"--{flag}=... is needed{known}: see python -m tpu --help")
  return value


def _is_dry() -> bool:
  return FLAGS.dry_run


def _refuse_dry(verb: str) -> None:
  if _is_dry():
    raise UserError(f"--dry_run: `{verb}` changes nothing, and needs none")


def _say(line: str) -> None:
  print(line, flush=True)


_OVERRIDES: list[str] = []


def _parse(arguments: Sequence[str]) -> Callable[[], None]:
  """Returns the verb; what cannot be understood is the user's to mend."""
  if arguments and arguments[0] in ("--help", "-h", "help"):
    return _help
  for name in FLAGS:
    FLAGS[name].unparse()  # nothing is left of an earlier call
  verb, *rest = arguments or ["nothing"]
  if verb not in VERBS:
    near = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(VERBS)}"
    raise UserError(f"VERB {verb!r} is not known: {hint}")
  _OVERRIDES[:] = [word for word in rest if word.startswith("--config.")]
  try:
    others = [word for word in rest if not word.startswith("--config.")]
    positional = FLAGS(["tpu", *others])[1:]
  except (flags.Error, ValueError) as error:
    raise UserError(exits.one_line(error)) from None
  if positional:
    raise UserError(f"{positional[0]!r} is not understood: flags begin with --")
  return _help if FLAGS.help else VERBS[verb]


def _help() -> None:
  print(__doc__.strip())
  print("\nFlags")
  for name in FLAGS.get_flags_for_module(__name__):
    print(f"  --{name.name:<18} {name.help}")


def main(arguments: Sequence[str]) -> int:
  """Runs one verb and returns the exit code."""
  return exits.code_of(lambda: _parse(arguments)(), lambda: "tpu.toml")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
