"""When machines came and went: for what they cost, and to miss those that went."""

import time

from tpu.board import Board, Event
from tpu.job import State, Step
from tpu.targets import Found


class Presence:
  """What the board says of a job's machines, and what is added to that."""

  def __init__(self, board: Board):
    self._board = board

  def asked(self, step: Step) -> None:
    """Notes that machines were asked for."""
    self._add("asked", step)

  def note(self, step: Step, found: Found) -> None:
    """Notes what changed since the last look."""
    if found.state is not State.READY:
      self.gone(step, found.state.value)
    elif not self._are_here(step):
      self._add("came", step)

  def gone(self, step: Step, why: str) -> None:
    """Notes that machines went, if they had come."""
    if self._are_here(step):
      self._add("went", step, why)

  def away_s(self, step: Step) -> float:
    """Returns for how many seconds machines that came have been gone.

    0 for machines that are here, never came, or were asked for again.
    """
    last = self._of(step)[-1:]
    return sum(time.time() - event.time for event in last if event.what == "went")

  def _are_here(self, step: Step) -> bool:
    known = [event.what for event in self._of(step) if event.what != "asked"]
    return known[-1:] == ["came"]

  def _of(self, step: Step) -> list[Event]:
    return [event for event in self._board.events() if event.place == step.place]

  def _add(self, what: str, step: Step, why: str = "") -> None:
    event = Event(what=what, place=step.place, time=time.time(), why=why)
    self._board.add_event(event)
