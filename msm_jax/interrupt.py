"""Ctrl-C and SIGTERM: as an interrupt, or as a wish granted where nothing is lost."""

import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def listen() -> None:
  """Makes SIGTERM do what Ctrl-C does.

  What a shell starts in the background (`nohup ... &`) ignores Ctrl-C, and is to end
  at SIGTERM all the same.
  """
  signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
  if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    raise KeyboardInterrupt
  signal.raise_signal(signal.SIGINT)  # event loops have a way of their own with it


class StopRequest:
  """Within it, the first signal only sets `requested`; a second Ctrl-C ends at once."""

  def __init__(self):
    self.requested = False
    self._old: dict[int, object] = {}

  def __enter__(self) -> "StopRequest":
    self._old = {number: signal.signal(number, self._note) for number in _SIGNALS}
    return self

  def __exit__(self, kind, error, trace) -> None:
    for number, handler in self._old.items():
      signal.signal(number, handler)

  def _note(self, number: int, frame: FrameType | None) -> None:
    if self.requested and number == signal.SIGINT:
      raise KeyboardInterrupt
    self.requested = True
