"""Jobs on machines that are directories and processes: agents, board, supervisor."""

import dataclasses
import os
import signal
import time

import drives
import fake_hosts
import pytest
from drives import Drive

from msm_jax.errors import Stopped, UserError
from tpu import gathering, status
from tpu.command import marked
from tpu.job import Step
from tpu.shell import Failed


@pytest.fixture(autouse=True)
def _nothing_is_left():
  yield
  while drives.MADE:
    drives.MADE.pop().end()


def agents(machine):
  """Returns the processes of a machine that are no command."""
  commands = set(marked(str(next((machine / "home" / ".msm_tpu").iterdir()))))
  return [pid for pid in fake_hosts.processes(machine) if pid not in commands]


def test_a_job_is_created_started_finished_and_deleted(tmp_path):
  drive = Drive(tmp_path)
  drive.look_after(dollars_per_hour=3600.0)
  assert drive.starts() == [0] and drive.saved() == 20
  assert drive.record().phase == "finished"
  assert not list(drive.target.root.iterdir()) and not drive.left()
  for host in range(2):  # every host has its log
    assert f"counting from {drive.starts(host)[0]}\n" in drive.log(host)
    assert "the command ended with 0" in drive.log(host)
  told = drive.board.progress("study")
  assert (told["at"], told["step"], told["of"]) == ("train count", 20, 20)
  said = "\n".join(status.lines(drive.board, drive.target.find(drive.job)))
  assert "study: finished, attempt 1" in said and "in the cloud: absent" in said
  assert "train count: 20/20 step, loss 0.050," in said and "tokens/s" in said
  seconds = status.machine_seconds(drive.board.events(), "pod", time.time())
  assert f"${seconds:.2f} so far" in said and seconds > 0.2
  drive.target.calls.clear()
  drive.look_after()  # again: nothing is done
  assert "create" not in drive.target.calls and drive.starts() == [0]


def test_a_command_that_fails_goes_on_from_what_it_saved(tmp_path):
  orders = [
    {"host": 1, "step": 8, "code": 1, "times": 1},
    {"host": 0, "step": 12, "code": 75, "times": 1},
    {"host": 0, "step": 17, "code": -9, "times": 1},
  ]
  drive = Drive(tmp_path, orders=orders)
  drive.look_after()
  assert len(drive.starts()) == 4 and drive.starts()[2:] == [10, 15]
  record = drive.record()
  assert (record.phase, record.attempt) == ("finished", 4)
  assert [(each.host, each.code) for each in record.failures] == [
    *((1, 1), (0, 75), (0, -9))
  ]
  assert not drive.left()
  assert drive.target.calls.count("create") == drive.target.calls.count("start") == 1


def test_an_error_that_a_person_can_fix_ends_the_job_with_its_line(tmp_path):
  says = "error: config.stages.a.seq_len=7: must be even"
  orders = [{"host": 1, "step": 5, "code": 2, "times": 9, "says": says}]
  drive = Drive(tmp_path, orders=orders)
  with pytest.raises(
    UserError, match=r"drive: study: host 1 \(drive-1\).*must be even"
  ):
    drive.look_after()
  assert not list(drive.target.root.iterdir()) and not drive.left()
  assert drive.log(1).count(says) == 1
  # Mended, it is submitted again and goes on.
  (drive.out / "orders").write_text("[]")
  drive.job = dataclasses.replace(drive.job, code="2")
  drive.look_after()
  record = drive.record()
  assert (record.phase, record.attempt) == ("finished", 2)
  assert drive.starts()[1] == 5 and drive.board.submission().job.code == "2"


def test_machines_that_are_taken_away_are_replaced_and_the_job_goes_on(tmp_path):
  drive = Drive(tmp_path)
  drive.hold_at(7)
  with drive:
    drive.wait_for_step(7)
    drive.target.preempt(drive.job, grace_s=20.0)  # less if it saved before
    drive.go_on()
    drive.wait_for(lambda: drive.record().phase == "finished")
  assert drive.error is None, drive.error
  assert drive.starts()[0] == 0 and drive.starts()[1] >= 7  # it saved on SIGTERM
  assert drive.record().same == 0
  assert [event.what for event in drive.board.events()] == [
    *("asked", "came", "went", "asked", "came", "went")
  ]
  assert drive.log(0).count("counting from") == 2  # one log over both machines
  assert not drive.left()


def test_how_far_it_is_is_heard_from_whichever_host_has_process_0(tmp_path):
  orders = [
    {"host": 0, "step": 8, "code": 1, "times": 1, "says": "ValueError: boom"},
    {"host": 0, "step": 12, "code": 75, "times": 1},
  ]
  drive = Drive(tmp_path, orders=orders)
  drive.target.first = 1
  drive.look_after()
  record = drive.record()
  assert record.phase == "finished" and record.furthest == {"train count": 11}
  assert [(each.host, each.at) for each in record.failures] == [(1, "train count")] * 2
  assert not record.failures[1].counts  # it had come further
  told = drive.board.progress("study")
  assert (told["step"], told["of"], told["host"]) == (20, 20, 1)
  assert gathering.speaker(drive.board, ["other", "study"]) == 1


@pytest.mark.slow
def test_the_command_runs_on_while_the_board_is_away(tmp_path):
  drive = Drive(tmp_path)
  drive.hold_at(5)
  with drive:
    drive.wait_for_step(5)
    shared = tmp_path / "shared"
    shared.rename(tmp_path / "away")
    time.sleep(1.2)  # longer than a host may be silent
    (tmp_path / "away").rename(shared)
    drive.go_on()
    drive.wait_for(lambda: drive.record().phase == "finished")
  assert drive.error is None, drive.error
  assert drive.starts() == [0] and drive.record().attempt == 1
  assert "the board is away, the command runs on" in drive.log(1)


@pytest.mark.parametrize("told", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_job_that_is_stopped_saves_and_goes_on_when_it_is_run_again(tmp_path, told):
  drive = Drive(tmp_path)
  drive.hold_at(6)
  with drive:
    drive.wait_for_step(6)
    drive.board.ask_to_stop()
    if told:  # as `python -m tpu stop` does, for hosts that look at the board seldom
      for host in range(2):
        for agent in agents(drive.target.machine(drive.job, host)):
          os.kill(agent, signal.SIGTERM)
    drive.wait_for(lambda: drive.error is not None)
  assert isinstance(drive.error, Stopped) and "run the same command" in str(drive.error)
  assert drive.record().phase == "stopped" and drive.target.calls.count("start") == 1
  drive.wait_until_idle()
  drive.go_on()
  assert drive.saved() >= 6
  assert drive.target.find(drive.job).hosts  # machines are there still
  drive.look_after()
  assert drive.record().phase == "finished" and drive.starts()[1] >= 6
  assert drive.target.calls.count("create") == 1


@pytest.mark.slow
@pytest.mark.parametrize("host", [0, 1])
def test_an_agent_that_is_killed_is_started_again_and_leaves_no_command(tmp_path, host):
  timing = dataclasses.replace(drives.QUICK, lost_s=0.6)
  drive = Drive(tmp_path, timing=timing)
  drive.hold_at(6)
  with drive:
    drive.wait_for_step(6)
    machine = drive.target.machine(drive.job, host)
    (agent,) = agents(machine)
    (command,) = set(fake_hosts.processes(machine)) - {agent}
    os.kill(agent, signal.SIGKILL)
    drive.wait_for(lambda: drive.record().attempt == 2)
    drive.go_on()
    drive.wait_for(lambda: len(drive.starts()) == 2)
    assert command not in fake_hosts.processes(machine)
    drive.wait_for(lambda: drive.record().phase == "finished")
  assert drive.error is None, drive.error
  assert drive.record().same == 0 and "create" in drive.target.calls
  assert drive.target.calls.count("create") == 1


@pytest.mark.slow
def test_what_fails_at_one_step_again_and_again_is_given_up(tmp_path):
  orders = [{"host": 0, "step": 8, "code": 1, "times": 9, "says": "ValueError: boom"}]
  drive = Drive(tmp_path, orders=orders)
  with pytest.raises(UserError, match="failed 3 times without getting on: attempt 1"):
    drive.look_after()
  assert drive.starts() == [0, 5, 5]
  assert not list(drive.target.root.iterdir()) and not drive.left()


@pytest.mark.slow
@pytest.mark.parametrize(
  "order",
  ["half create", "half delete", "fail create", "fail find", "fail push", "fail start"],
)
def test_what_the_cloud_half_does_is_done_in_the_end(tmp_path, order):
  drive = Drive(tmp_path)
  drive.target.order(order)
  drive.look_after()
  assert drive.record().phase == "finished" and drive.starts() == [0]
  assert not drive.target.find(drive.job).resources and not drive.left()


@pytest.mark.slow
def test_another_supervisor_takes_up_what_one_left_anywhere(tmp_path):
  class Killed(BaseException):
    pass

  drive = Drive(tmp_path)
  call, calls = drive.target._call, []

  def killing(name):
    calls.append(name)
    if len(calls) in (1, 2, 3, 5, 6, 8):
      raise Killed
    call(name)

  drive.target._call = killing
  for _ in range(20):
    try:
      drive.look_after()
      break
    except Killed:
      continue
  assert drive.record().phase == "finished" and drive.starts() == [0]
  assert calls.count("create") <= 3 and not drive.left()


@pytest.mark.slow
def test_agents_that_are_never_heard_of_end_the_job_with_that(tmp_path):
  timing = dataclasses.replace(drives.QUICK, first_beat_s=0.5)
  drive = Drive(tmp_path, timing=timing)
  start = drive.target.start
  drive.target.start = lambda job, step, hosts: start(job, step, hosts[:1])
  with pytest.raises(UserError, match="agents of hosts 1 were started 3 times"):
    drive.look_after()
  assert drive.record().why == "waiting for host 1 (drive-1)"
  assert drive.target.calls.count("create") == 3
  assert not list(drive.target.root.iterdir()) and not drive.left()


@pytest.mark.slow
def test_agents_whose_others_do_not_come_end_and_name_them(tmp_path):
  timing = dataclasses.replace(drives.QUICK, barrier_s=0.5, first_beat_s=1.5)
  drive = Drive(tmp_path, timing=timing)
  start, starts = drive.target.start, []

  def late(job, step, hosts):
    starts.append(step)
    start(job, step, hosts if len(starts) == 2 else hosts[:1])

  drive.target.start = late
  drive.look_after()
  assert "waiting for host 1 (drive-1); start again" in drive.log(0)
  assert drive.record().phase == "finished" and len(starts) == 2


@pytest.mark.slow
def test_steps_without_accelerators_have_a_machine_that_goes_before_the_pod(tmp_path):
  steps = (
    Step(name="generate", mode="generate", place="cpu"),
    Step(name="rest", mode="run"),
  )
  drive = Drive(tmp_path, steps=steps)
  drive.look_after(dollars_per_hour=10.0, cpu_dollars_per_hour=1.0)
  assert [drive.record(step.name).phase for step in steps] == ["finished"] * 2
  told = [(event.what, event.place) for event in drive.board.events()]
  each = [("asked", "cpu"), ("came", "cpu"), ("went", "cpu")]
  assert told == each + [(what, "pod") for what, _ in each]
  assert not list(drive.target.root.iterdir()) and not drive.left()


@pytest.mark.slow
def test_another_job_of_the_same_name_is_refused_while_one_is_under_way(tmp_path):
  drive = Drive(tmp_path)
  drive.hold_at(2)
  with drive:
    drive.wait_for_step(2)
    other = Drive(tmp_path)
    other.job = dataclasses.replace(drive.job, overrides=("--config.seeds=1",))
    with pytest.raises(UserError, match=r"--name=drive is a job .* overrides"):
      other.look_after()
    other.job = dataclasses.replace(drive.job, code="2")
    with pytest.raises(UserError, match="--target=local, not other"):
      other.target.name = "other"
      other.look_after()
    other.target.name = "local"
    drive.go_on()
    other.look_after()  # with other code it helps to look after the first
    assert any(
      "goes on with the code that was submitted" in line for line in other.said
    )
  assert drive.error is None and drive.starts() == [0]


@pytest.mark.slow
def test_machines_that_go_without_a_word_and_do_not_come_back_are_replaced(tmp_path):
  timing = dataclasses.replace(drives.QUICK, barrier_s=1.0)
  drive = Drive(tmp_path, timing=timing)
  drive.hold_at(7)
  with drive:
    drive.wait_for_step(7)
    drive.target.preempt(drive.job, says=False)
    drive.go_on()
    drive.wait_for(lambda: drive.record().phase == "finished")
  assert drive.error is None, drive.error
  assert drive.target.calls.count("create") == 2
  assert "deleting machines that are gone, and did not come back" in "".join(drive.said)
  assert not list(drive.target.root.iterdir()) and not drive.left()


def test_a_job_whose_machines_are_deleted_is_not_begun_again_unasked(tmp_path):
  drive = Drive(tmp_path)
  drive.hold_at(3)
  with drive:
    drive.wait_for_step(3)
    drive.board.ask_to_stop()  # as `python -m tpu delete` does
    drive.target.delete(drive.job)
    drive.wait_for(lambda: drive.error is not None)
  drive.go_on()
  assert isinstance(drive.error, Stopped) and "run the same command" in str(drive.error)
  assert drive.target.calls.count("create") == 1 and not drive.left()
  # Nothing of it is under way any more: another one may have its name.
  assert drive.record().phase in ("running", "stopped")
  drive.job = dataclasses.replace(drive.job, overrides=("--config.seeds=1",))
  drive.look_after()
  assert drive.record().phase == "finished" and not drive.board.is_to_stop()


@pytest.mark.slow
def test_a_stop_while_machines_are_waited_for_ends_the_wait(tmp_path):
  drive = Drive(tmp_path)
  drive.target.create(drive.job)
  drive.target.preempt(drive.job, says=False)
  with drive:
    drive.wait_for(lambda: drive.target.calls.count("find") > 2)
    drive.board.ask_to_stop()
    drive.wait_for(lambda: drive.error is not None)
  assert isinstance(drive.error, Stopped) and "stopped in study" in str(drive.error)
  drive.target.delete(drive.job)
  drive.look_after()
  assert drive.record().phase == "finished" and drive.starts() == [0]


@pytest.mark.slow
def test_machines_that_cannot_be_deleted_are_named(tmp_path):
  drive = Drive(tmp_path)

  def refuse(job):
    raise Failed(["delete"], 1, "in use")

  delete, drive.target.delete = drive.target.delete, refuse
  with pytest.raises(UserError, match=r"finished, but could not be deleted: .*machine"):
    drive.look_after()
  drive.target.delete = delete
  drive.look_after()
  assert not list(drive.target.root.iterdir())


@pytest.mark.slow
def test_a_cloud_that_starts_hosts_itself_is_not_meddled_with(tmp_path):
  orders = [{"host": 1, "step": 8, "code": 2, "times": 1, "says": "error: mend it"}]
  drive = Drive(tmp_path, orders=orders)
  drive.target.restarts_itself = True
  with pytest.raises(UserError, match="error: mend it"):
    drive.look_after()
  drive.look_after()
  assert drive.record().phase == "finished" and not drive.left()
  calls = [name for name in drive.target.calls if name != "find"]
  assert calls == ["create", "push", "start", "delete"] * 2


@pytest.mark.slow
def test_what_the_cloud_refuses_ends_the_job_unless_hosts_work(tmp_path):
  drive = Drive(tmp_path, step_s=0.3)

  def refuse(*_):
    raise UserError("no credentials: log in")

  push, drive.target.push = drive.target.push, refuse
  with pytest.raises(UserError, match="drive: no credentials: log in"):
    drive.look_after()
  assert not list(drive.target.root.iterdir())  # nothing ran
  drive.target.push = push
  drive.look_after(detach=True)
  find, drive.target.find = drive.target.find, refuse
  with pytest.raises(UserError, match=r"log in.*then run the same command again"):
    drive.look_after()
  drive.target.find = find
  drive.look_after()
  assert drive.record().phase == "finished" and drive.starts() == [0]


@pytest.mark.slow
def test_detached_a_supervisor_returns_when_all_hosts_work(tmp_path):
  drive = Drive(tmp_path, step_s=0.1)
  drive.look_after(detach=True)
  assert drive.record().phase == "running"
  with drive:
    drive.wait_for(lambda: drive.record().phase == "finished")
  assert drive.starts() == [0]
