"""From a laptop to a pod and back:

  python -m tpu VERB --config=configs/NAME.py[:ARG] --target=TARGET --slice=v6e-16

VERB
  create  ask for the machines
  push    bring code and Python to them
  run     all that is not done yet: create, push, start, look after, delete
  status  how far it is, what it cost, what is there
  logs    of the host that speaks for all, or --host=K [--follow]
  stop    hosts save and end; machines stay
  delete  remove every machine and whatever else was made
TARGET
  compute (v5p, v6e, tpu7x), queued (v4, v5e), gke, slurm (GPUs)

status, logs, stop and delete need no more than --name. Names of project, zone, bucket:
tpu.toml, see tpu/settings.example.toml. --dry_run prints every command and runs none.
Exit codes: 0 done, 2 you can fix it, 75 stopped on purpose (run again to go on).
"""

import difflib
import sys
from collections.abc import Callable, Sequence

from msm_jax import exits
from msm_jax.errors import UserError
from tpu import asked as asked_lib
from tpu import given, inputs, slices
from tpu.asked import Asked
from tpu.board import Unreachable
from tpu.given import FLAGS
from tpu.job import Job
from tpu.presence import Presence
from tpu.shell import Failed
from tpu.targets import Target


def create() -> None:
  """Asks for the machines of the first step."""
  asked = asked_lib.new(_say)
  if FLAGS.dry_run:
    return asked.target.create(asked.each()[0])
  _submit(asked)
  asked.target.create(asked.each()[0])
  name = asked.job.name
  return _say(f"{name}: asked for; `python -m tpu status --name={name}` says how it is")


def push() -> None:
  """Brings code and Python to the machines."""
  asked = asked_lib.new(_say)
  here = asked.each()[0]
  if FLAGS.dry_run:
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

  asked = asked_lib.new(_say)
  _tell_price(asked)
  if FLAGS.dry_run:
    return _dry_run(asked)
  supervisor.look_after(
    asked.job,
    asked.target,
    asked.board,
    **asked_lib.terms(asked),
    keep=FLAGS.keep,
    detach=FLAGS.detach,
    say=_say,
  )
  return None


def status() -> None:
  """Prints how far a job is."""
  _refuse_dry("status")
  from tpu import status as status_lib

  asked = asked_lib.known(_say)
  here, found = asked.now(), None
  try:
    asked.target.check(here)
    found = asked.target.find(here)
  except (Failed, UserError) as error:
    _say(f"the cloud was not asked: {exits.one_line(error)}")
  for line in status_lib.lines(asked.board, found):
    print(line)


def logs() -> None:
  """Prints the log of one host."""
  _refuse_dry("logs")
  from tpu import gathering

  asked, host = asked_lib.known(_say), FLAGS.host
  most = max(asked.job.at(step).machines.num_hosts for step in asked.job.steps)
  if host is None:
    host = gathering.speaker(asked.board, [step.name for step in asked.job.steps])
  elif host >= most:
    known = f"hosts 0 to {most - 1}" if most > 1 else "host 0 alone"
    raise UserError(f"--host={host}: {asked.job.name} has {known}")
  if not FLAGS.follow:
    for step in reversed(asked.job.steps):
      log = asked.board.log(step.name, host)
      if log is not None:
        return print(log.decode("utf-8", "replace"), end="")
  for line in asked.target.logs(asked.now(), host, FLAGS.follow):
    print(line, flush=True)
  return None


def stop() -> None:
  """Lets hosts save and end."""
  asked = asked_lib.known(_say)
  if FLAGS.dry_run:
    return [asked.target.stop(here) for here in asked.each()] and None
  name, board = asked.job.name, asked.board
  records = [board.attempt(step.name) for step in asked.job.steps]
  if all(record is not None and record.phase == "finished" for record in records):
    return _say(f"{name}: is finished: there is nothing to stop")
  board.ask_to_stop()
  for here in asked.each():
    asked.target.stop(here)
  if asked.target.restarts_itself:  # which ends what runs there, too
    return _say(f"{name}: hosts save and end; `run` goes on, `delete` removes the rest")
  return _say(
    f"{name}: hosts save and end; machines stay, and cost, until `python -m tpu delete "
    f"--name={name}`"
  )


def delete() -> None:
  """Removes all that was made."""
  asked = asked_lib.known(_say)
  if FLAGS.dry_run:
    return [asked.target.delete(here) for here in asked.each()] and None
  asked.board.ask_to_stop()  # so that nobody who looks after it makes them again
  left = []
  for here in asked.each():
    asked.target.delete(here)
    left += asked.target.find(here).resources
  if left:
    raise UserError(f"{asked.job.name}: still there: {', '.join(left)}: run again")
  for step in asked.job.steps:
    Presence(asked.board).gone(step, "deleted")
  name, workdir = asked.job.name, asked.job.workdir
  return _say(f"{name}: everything that was made is gone; {workdir} stays")


VERBS = {
  verb.__name__: verb for verb in (create, push, run, status, logs, stop, delete)
}


def _dry_run(asked: Asked) -> None:
  """Prints what a run does when nothing goes wrong, as a script."""
  job, target = asked.job, asked.target
  for line in inputs.model_to_be_copied(asked.config, asked.settings):
    _say(f"# {line}")
  _say(f"# job.json, signs of life and logs: {asked.board_url}")
  if target.restarts_itself:
    target.create(job)
    _say("# ... until all steps are done: the cloud starts them, and hosts again")
    return None if FLAGS.keep else target.delete(job)
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
  return None


def _submit(asked: Asked) -> None:
  from tpu import submitting
  from tpu.board import Submission

  asked.board.files.make()
  submission = Submission(
    job=asked.job, target=asked.target.name, **asked_lib.terms(asked)
  )
  submitting.submit(submission, asked.target, asked.board, _say)


def _tell_price(asked: Asked) -> None:
  machines, provisioning = asked.job.machines, asked.job.provisioning
  chips, hosts = slices.num_chips(machines), machines.num_hosts
  chips = f"{chips} chips" if chips > 1 else "1 chip"
  price = slices.dollars_per_hour(machines, provisioning, asked.settings)
  kind = getattr(machines, "kind", None) or machines.chip.name
  dollars = f"no price is known: [prices.{kind}] {provisioning.value} in tpu.toml"
  if price is not None:
    dollars = f"${price:,.2f} an hour {provisioning.value.replace('_', ' ')}"
  many = f"{hosts} hosts" if hosts > 1 else "1 host"
  _say(f"# {machines.name}: {chips}, {many}, {dollars}")


def _expected_hosts(target: Target, here: Job) -> tuple[str, ...]:
  expected = getattr(target, "expected_hosts", None)
  if expected is not None:
    return expected(here)
  return tuple(f"{here.name}-HOST{k}" for k in range(here.machines.num_hosts))


def _refuse_dry(verb: str) -> None:
  if FLAGS.dry_run:
    raise UserError(f"--dry_run: `{verb}` changes nothing, and needs none")


def _say(line: str) -> None:
  print(line, flush=True)


def _parse(arguments: Sequence[str]) -> Callable[[], None]:
  """Returns the verb; what cannot be understood is the user's to mend."""
  if arguments and arguments[0] in ("--help", "-h", "help"):
    return _help
  verb, *rest = arguments or ["nothing"]
  if verb not in VERBS:
    near = difflib.get_close_matches(verb, VERBS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(VERBS)}"
    raise UserError(f"VERB {verb!r} is not known: {hint}")
  given.parse(rest)
  return _help if FLAGS.help else VERBS[verb]


def _help() -> None:
  print(__doc__.strip())
  print("\nFlags")
  print("\n".join(given.lines()))


def main(arguments: Sequence[str]) -> int:
  """Runs one verb and returns the exit code."""

  def work() -> None:
    verb = _parse(arguments)
    try:
      verb()
    except (Failed, Unreachable) as error:
      said = exits.one_line(error)
      raise UserError(f"{said}: that may pass: run the same again in a while") from None

  return exits.code_of(work, lambda: "tpu.toml")


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
