"""Which requests are out, on disk: after kill -9 one knows what may have been billed.

A file of slots of equal size. A request takes one before it goes out and clears it when
its result is in the ledger; with nothing out there is no file. It is not flushed to
disk: it outlives the process, not the machine.
"""

import json
import os
import pathlib
from typing import Any

_SLOT = 512


class InFlight:
  """The slots of one ledger."""

  def __init__(self, path: pathlib.Path):
    self._path = path
    self._file: int | None = None
    self._free: list[int] = []
    self._count = 0
    self._slots: dict[int, int] = {}  # ticket -> slot
    self._tickets = 0

  def enter(self, row: dict[str, Any]) -> int:
    """Notes that a request goes out; returns a ticket for `leave`.

    Raises:
      OSError: the disk is full or gone.
    """
    if self._file is None:
      flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
      self._file = os.open(self._path, flags, 0o644)
    slot = self._free.pop() if self._free else self._count
    self._count = max(self._count, slot + 1)
    line = json.dumps(row).encode()
    assert len(line) < _SLOT, "a request in flight takes more than its slot"
    os.pwrite(self._file, line.ljust(_SLOT - 1) + b"\n", slot * _SLOT)
    self._tickets += 1
    self._slots[self._tickets] = slot
    return self._tickets

  def leave(self, ticket: int) -> None:
    """Notes that the result of a request is in the ledger."""
    slot = self._slots.pop(ticket)
    if not self._slots:
      self._path.unlink(missing_ok=True)
      return self.close()
    os.pwrite(self._file, b" " * (_SLOT - 1) + b"\n", slot * _SLOT)
    self._free.append(slot)
    return None

  def close(self) -> None:
    """Lets go of the file; what it holds stays there."""
    if self._file is not None:
      os.close(self._file)
    self._file, self._free, self._count = None, [], 0


def left_behind(path: pathlib.Path) -> list[dict[str, Any]]:
  """Returns the requests that were out when a process died, in no order."""
  if not path.exists():
    return []
  rows = []
  for line in path.read_bytes().split(b"\n"):
    try:
      rows.append(json.loads(line))
    except ValueError:
      continue  # a free slot, or one that was being written: nothing had gone out
  return rows
