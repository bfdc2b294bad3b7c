"""What host 0 decides, on a clock that the test turns."""

import dataclasses

import pytest

from tpu import pulse
from tpu.attempts import Leader, Point
from tpu.board import Attempt, Beat
from tpu.timing import Timing

TIMING = Timing(lost_s=60.0, settle_s=30.0, backoff_s=10.0, max_backoff_s=300.0)


class Hosts:
  """Three hosts and host 0's decisions."""

  def __init__(self, max_same_failures=3, num_hosts=3):
    self.now = 0.0
    names = [f"vm-{k}" for k in range(num_hosts)]
    self.leader = Leader(names, max_same_failures, TIMING, lambda: self.now)
    self.pulse = pulse.Pulse(num_hosts, 1000.0, lambda: self.now)
    self.record = self.leader.take_up(None, Point())
    self.count, self.point = 0, Point()
    self.beats: list[Beat | None] = [None] * num_hosts

  def beat(self, *hosts, phase="waiting", **fields):
    """Lets hosts (all by default) beat, in the attempt of now."""
    for host in hosts or range(len(self.beats)):
      self.count += 1
      about = {"agent": f"agent {host}", "attempt": self.record.attempt} | fields
      self.beats[host] = Beat(count=self.count, phase=phase, **about)
    return self

  def decide(self, after_s=0.0, stop=False):
    """Returns how the step stands after a while."""
    self.now += after_s
    seen = self.pulse.look(self.beats)
    self.record = self.leader.decide(self.record, seen, self.point, stop)
    return self.record

  def begin(self):
    """Lets the attempt of now run."""
    while self.record.phase != "waiting":
      self.beat()
      assert self.decide(after_s=1.0).phase in ("restarting", "waiting")
    assert self.beat().decide().phase == "running"
    return self.beat(phase="running")

  def fail(self, code, host=1, point=None, said="error: no", others=75):
    """Lets a running attempt end; returns what was decided."""
    self.point = point or self.point
    self.beat(phase="ended", code=others)
    return self.beat(host, phase="ended", code=code, said=said).decide()


@pytest.fixture
def hosts():
  return Hosts()


def test_an_attempt_begins_when_all_hosts_wait_for_it(hosts):
  hosts.beat(0, 1)
  assert hosts.decide().phase == "waiting"
  hosts.beat(2, attempt=7)
  assert hosts.decide().phase == "waiting"
  hosts.beat(2)
  assert hosts.decide().phase == "running"


def test_missing_hosts_are_named_by_number_and_name(hosts):
  hosts.beat(0)
  assert hosts.decide().why == "waiting for host 1 (vm-1), host 2 (vm-2)"
  hosts.beat(0, 2)
  assert hosts.decide().why == "waiting for host 1 (vm-1)"
  hosts.now += 61
  hosts.beat(0, 1)
  assert hosts.decide().why == "waiting for host 2 (vm-2)"


def test_a_step_is_finished_when_all_commands_ended_well(hosts):
  hosts.begin().beat(0, 1, phase="ended", code=0)
  assert hosts.decide().phase == "running"
  hosts.beat(2, phase="ended", code=0)
  assert hosts.decide().phase == "finished"


def test_what_a_person_can_fix_gives_up_at_once_with_its_line(hosts):
  record = hosts.begin().fail(2, host=2, said="error: config.x is wrong", others=-9)
  assert record.phase == "gave_up"
  assert record.why == "host 2 (vm-2): ended with 2: error: config.x is wrong"


def test_the_first_that_said_an_error_is_blamed_not_those_it_took_along(hosts):
  hosts.begin().beat(0, phase="ended", code=-6, said="Fatal Python error: Aborted")
  hosts.beat(1, phase="ended", code=75, said="process 2 was not heard of")
  assert hosts.decide().phase == "running"
  hosts.beat(2, phase="ended", code=1, said="KeyError: 'x'")
  record = hosts.decide()
  assert (record.failures[0].host, record.failures[0].code) == (2, 1)
  assert "KeyError" in record.why


def test_others_have_a_while_to_end_before_the_next_attempt(hosts):
  hosts.begin().beat(1, phase="ended", code=1)
  assert hosts.decide().phase == "running"
  hosts.beat(0, 2, phase="running")
  assert hosts.decide(after_s=29).phase == "running"
  record = hosts.decide(after_s=2)
  assert (record.phase, record.attempt) == ("restarting", 2)


def test_75_begins_again_at_once_where_the_work_got_on(hosts):
  record = hosts.begin().fail(75, point=Point("train a", 5))
  assert record.phase == "restarting" and not record.same
  assert hosts.decide().phase == "waiting"
  record = hosts.begin().fail(75, point=Point("train a", 6))
  assert not record.same and hosts.decide().phase == "waiting"


def test_75_that_gets_nowhere_is_given_up(hosts):
  # Out of budget, say: it would go on for ever.
  for _ in range(3):
    assert hosts.begin().fail(75, point=Point("train a", 5)).phase == "restarting"
  record = hosts.begin().fail(75, said="out of budget: 3 of 3 dollars")
  assert record.phase == "gave_up" and "out of budget" in record.why


def test_other_failures_wait_longer_and_longer_and_are_given_up(hosts):
  waits = []
  for _ in range(2):
    hosts.begin().fail(1, point=Point("train a", 5), said="boom")
    before = hosts.now
    while hosts.decide(after_s=0.1).phase != "waiting":
      hosts.beat()
    waits.append(hosts.now - before)
  assert 7.4 < waits[0] < 10.2 and 14.9 < waits[1] < 20.2
  record = hosts.begin().fail(1, said="boom")
  assert record.phase == "gave_up"
  assert record.why.startswith("failed 3 times without getting on: attempt 1: host 1")
  assert "attempt 3: host 1 (vm-1) at train a, 5: ended with 1: boom" in record.why


def test_waits_have_an_end():
  assert all(225 <= TIMING.backoff(n) <= 300 for n in (7, 10, 1000))


@pytest.mark.parametrize("point", [Point("train a", 6), Point("train b", 1)])
def test_getting_on_in_between_resets_the_count(hosts, point):
  for _ in range(2):
    hosts.begin().fail(1, point=Point("train a", 5))
  assert hosts.record.same == 2
  assert hosts.begin().fail(1, point=point).same == 1


def test_going_over_the_same_ground_again_is_not_getting_on(hosts):
  for step in (5, 3, 4):
    record = hosts.begin().fail(1, point=Point("train a", step))
  assert record.phase == "gave_up"


def test_a_host_that_is_lost_is_nobodys_failure(hosts):
  for attempt in range(1, 8):
    hosts.begin().decide()
    hosts.now += 61
    hosts.beat(0, 1, phase="running")
    record = hosts.decide()
    assert (record.phase, record.attempt) == ("restarting", attempt + 1)
    assert not record.same and "host 2 (vm-2): lost" in record.why
    hosts.beat()
    assert hosts.decide().phase == "waiting"  # at once


def test_what_followed_from_a_lost_host_is_not_blamed(hosts):
  hosts.begin()
  hosts.beat(1, phase="ended", code=2, said="error: OSError on the bucket")
  hosts.beat(2, phase="late", agent="another")
  assert hosts.decide().phase == "restarting"


def test_an_agent_that_began_again_meanwhile_begins_the_next_attempt(hosts):
  hosts.begin().beat(1, phase="late", agent="another")
  record = hosts.decide()
  assert (record.phase, record.attempt, record.same) == ("restarting", 2, 0)


@pytest.mark.parametrize(
  "said",
  [
    "error: JAX_COORDINATOR_ADDRESS=10.0.0.2:8476: process 0 did not answer",
    "error: gs://lab/w is in use by me on vm-0 since 12:00: wait until it ends",
  ],
)
def test_an_error_that_may_follow_from_an_earlier_attempt_is_tried_again(hosts, said):
  assert hosts.begin().fail(2, said=said).phase == "restarting"
  assert hosts.begin().fail(2, said=said).phase == "restarting"
  assert hosts.begin().fail(2, said=said).phase == "gave_up"


def test_machines_that_are_taken_away_with_notice_do_not_count(hosts):
  for _ in range(6):
    hosts.begin().beat(0, 1, phase="ended", code=75)
    hosts.beat(2, phase="leaving", code=75)
    assert hosts.decide().phase == "restarting"
  assert hosts.record.same == 0


def test_a_new_agent_of_host_0_goes_on_with_the_next_attempt(hosts):
  hosts.begin()
  record = hosts.leader.take_up(hosts.record, Point("train a", 9))
  assert (record.phase, record.attempt) == ("restarting", 2)
  assert record.furthest == {"train a": 9}
  for phase in ("finished", "gave_up", "stopped", "waiting"):
    over = Attempt(phase=phase, attempt=4)
    assert hosts.leader.take_up(over, Point()) == over


def test_a_stop_waits_for_all_to_save_but_not_for_ever(hosts):
  hosts.begin()
  assert hosts.decide(stop=True).phase == "running"
  patient = dataclasses.replace(hosts.record)
  hosts.beat(phase="ended", code=75)
  assert hosts.decide(stop=True).phase == "stopped"
  hosts.record = patient
  hosts.beat(1, phase="running")
  assert hosts.decide(stop=True).phase == "running"
  hosts.beat(1, phase="running")
  assert hosts.decide(after_s=200, stop=True).phase == "stopped"


def test_time_in_which_nobody_looked_makes_nobody_older():
  now = [0.0]
  seen = pulse.Pulse(2, 10.0, lambda: now[0])
  beats = [Beat(agent="a", count=k, attempt=1, phase="running") for k in (1, 2)]
  assert [each.age_s for each in seen.look(beats)] == [0, 0]
  now[0] = 5.0
  assert [each.age_s for each in seen.look(beats)] == [5, 5]
  now[0] = 5000.0
  assert [each.age_s for each in seen.look(beats)] == [5, 5]
  seen.expect_new(beats)
  fresh = dataclasses.replace(beats[1], count=9)
  ages = [each.age_s for each in seen.look([beats[0], fresh])]
  assert ages == [float("inf"), 0]
