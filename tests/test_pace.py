"""The pace finds what a service takes: simulated services, simulated time."""

import asyncio
import random

import pytest

from data_gen.clients import protocol
from data_gen.engine.limits import Limits
from data_gen.engine.pace import Pace
from msm_jax.errors import Stopped


class SimulatedTime(asyncio.SelectorEventLoop):
  """An event loop whose clock jumps to the next timer: minutes pass in no time."""

  simulated = 0.0

  def time(self):
    return self.simulated

  def _run_once(self):
    if not self._ready and self._scheduled:
      self.simulated = max(self.simulated, self._scheduled[0].when())
    super()._run_once()


class Service:
  """Answers after `latency_s`; a token bucket says how many requests per second."""

  def __init__(self, *, rate=1e9, burst=1e9, latency_s=1.0, stray=0.0):
    self.rate, self.burst, self.latency_s, self.stray = rate, burst, latency_s, stray
    self.tokens, self.filled = burst, 0.0
    self.in_flight = self.most_in_flight = self.refused = 0
    self.sent, self.answered = [], []
    self.rng = random.Random(0)

  def wait(self, now):
    """Takes a token; returns 0, or how long it takes until there is one."""
    earned = (now - self.filled) * self.rate
    self.tokens, self.filled = min(self.burst, self.tokens + earned), now
    if self.rng.random() < self.stray:
      return 0.3
    if self.tokens < 1:
      return max((1 - self.tokens) / self.rate, 0.01)
    self.tokens -= 1
    return 0.0

  async def answer(self):
    """Answers, or raises RateLimited."""
    clock = asyncio.get_running_loop().time
    self.sent.append(clock())
    if wait := self.wait(clock()):
      self.refused += 1
      await asyncio.sleep(0.05)
      raise protocol.RateLimited("too many", retry_after=wait)
    self.in_flight += 1
    self.most_in_flight = max(self.most_in_flight, self.in_flight)
    await asyncio.sleep(self.latency_s * self.rng.uniform(0.5, 1.5))
    self.in_flight -= 1
    self.answered.append(clock())

  def share_used(self, start, end):
    """Returns the share of the rate that was used between two times."""
    count = sum(start <= when < end for when in self.answered)
    return count / (self.rate * (end - start))


def run(service, seconds, **limits):
  """Lets as many workers as may be ask the service for some time; returns the pace."""
  fields = {"max_concurrency": 1000, "timeout_s": 99.0, "max_attempts": 3} | limits

  async def work(pace):
    clock = asyncio.get_running_loop().time
    while clock() < seconds:
      async with pace.turn(lambda: None) as turn:
        try:
          await service.answer()
          pace.succeeded(turn)
        except protocol.RateLimited as error:
          pace.refused(error, turn)

  async def run_all():
    pace = Pace(Limits(**fields), "model")
    await asyncio.gather(*(work(pace) for _ in range(fields["max_concurrency"])))
    return pace

  with asyncio.Runner(loop_factory=SimulatedTime) as runner:
    return runner.run(run_all())


@pytest.mark.parametrize(
  ("rate", "burst", "latency_s"),
  [(50, 50, 0.5), (50, 50, 5.0), (50, 10, 1.0), (10, 10, 2.0), (3, 5, 2.0)],
)
def test_within_a_minute_nine_tenths_of_a_rate_limit_are_used(rate, burst, latency_s):
  service = Service(rate=rate, burst=burst, latency_s=latency_s)
  run(service, 120, max_concurrency=400)
  assert service.share_used(60, 120) >= 0.9
  assert service.refused <= 0.15 * len(service.answered)


def test_it_starts_slowly_and_doubles_with_every_round_trip():
  service = Service(latency_s=1.0)
  run(service, 3.0, start_concurrency=8)
  first = sum(when < 0.5 for when in service.sent)
  assert first == 8
  assert 50 < service.most_in_flight <= 1000


def test_the_ceiling_is_never_passed():
  service = Service(latency_s=0.2)
  pace = run(service, 10, max_concurrency=20)
  assert service.most_in_flight == 20 == pace.limit


def test_stray_refusals_do_not_slow_it_down():
  service = Service(latency_s=1.0, stray=0.02)
  pace = run(service, 60, max_concurrency=200)
  assert pace.limit > 150


def test_nothing_goes_out_while_the_service_asks_to_wait():
  service = Service(rate=10, burst=30, latency_s=0.1)
  real, refused = service.wait, []

  def wait(now):
    if real(now):
      refused.append(now)
    return 7.0 if refused and refused[-1] == now else 0.0

  service.wait = wait
  run(service, 60, max_concurrency=50)
  assert len(refused) >= 5
  for when in refused:  # it takes the refusal 0.05 s to arrive
    assert not [sent for sent in service.sent if when + 0.06 < sent < when + 7.0]


def test_a_limit_that_lets_nothing_through_stops_the_run():
  service = Service(stray=1.0)
  with pytest.raises(Stopped, match="limits the rate"):
    run(service, 1e6, max_concurrency=5, max_wait_s=100.0)
  assert max(service.sent) + 0.4 >= 100


def test_a_spend_limit_of_ten_minutes_is_waited_for():
  service = Service(latency_s=1.0)
  spent_until = 600.0
  service.wait = lambda now: 0.0 if now < 5 or now > spent_until else 60.0
  run(service, 700, max_concurrency=10, max_wait_s=900.0)
  assert sum(when > spent_until for when in service.answered) > 100
