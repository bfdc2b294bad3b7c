"""Which hosts live, as somebody sees it who reads their beats."""

import dataclasses
import time
from collections.abc import Callable, Sequence

from tpu.board import Beat


@dataclasses.dataclass(frozen=True, kw_only=True)
class Seen:
  """A host: its last beat, and since when that is the same, in seconds."""

  host: int
  beat: Beat | None
  age_s: float


class Pulse:
  """Notes on its own clock when beats change; clocks of hosts are not believed.

  A beat that is there at the first look counts as fresh then. Time in which nobody
  looked (the board was away, this laptop slept) makes nobody older.

  Args:
    num_hosts: how many there are.
    gap_s: longer between two looks is time in which nobody looked.
    clock: returns seconds.
  """

  def __init__(
    self, num_hosts: int, gap_s: float, clock: Callable[[], float] = time.monotonic
  ):
    self._clock, self._gap_s = clock, gap_s
    self._looked = clock()
    self._beats: list[Beat | None] = [None] * num_hosts
    self._since = [self._looked] * num_hosts

  def look(self, beats: Sequence[Beat | None]) -> list[Seen]:
    """Takes what all hosts said last; returns how old that is."""
    now = self._clock()
    if now - self._looked > self._gap_s:
      self._since = [since + now - self._looked for since in self._since]
    self._looked = now
    for host, beat in enumerate(beats):
      if _key(beat) != _key(self._beats[host]):
        self._beats[host], self._since[host] = beat, now
    return [
      Seen(host=host, beat=beat, age_s=now - self._since[host])
      for host, beat in enumerate(self._beats)
    ]

  def expect_new(self, beats: Sequence[Beat | None]) -> None:
    """Lets what was said up to now count as of hosts that are gone."""
    self._beats = list(beats)
    self._since = [float("-inf")] * len(self._beats)
    self._looked = self._clock()


def _key(beat: Beat | None) -> tuple[str, int] | None:
  return None if beat is None else (beat.agent, beat.count)
