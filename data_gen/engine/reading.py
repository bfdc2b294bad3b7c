"""A ledger that is looked at and never written, whoever writes it meanwhile."""

import json
import pathlib

from data_gen.engine import entries, ledger


class Reading:
  """The outcomes in a ledger on disk; nothing if there is none.

  Attributes:
    totals: what its rows add up to, with the requests that a dead process left behind.
  """

  def __init__(self, path: pathlib.Path):
    self.totals = entries.Totals()
    self._path = path
    self._where: dict[str, int] = {}
    self._failed: dict[str, int] = {}
    if path.exists():
      self._read_index()

  def __len__(self) -> int:
    """The number of requests that have an outcome."""
    return len(self._where)

  def outcome(self, identity: str) -> entries.Entry | None:
    """Returns how a request ended, or None if it is open."""
    return self._read(self._where.get(identity))

  def failure(self, identity: str) -> entries.Entry | None:
    """Returns the last attempt at a request that came to nothing so far."""
    return self._read(self._failed.get(identity))

  def _read(self, place: int | None) -> entries.Entry | None:
    if place is None:
      return None
    with open(self._path, "rb") as file:
      file.seek(place)
      return entries.Entry(**json.loads(file.readline()))

  def _read_index(self) -> None:
    place = 0
    with open(self._path, "rb") as file:
      for line in file:
        if line.endswith(b"\n"):  # else it is being written, or torn by a crash
          row = json.loads(line)
          self.totals.add(row)
          self._note(row["id"], row["status"], place)
        place += len(line)
    for row in ledger.lost_rows(self._path):
      self.totals.add(row)

  def _note(self, identity: str, status: str, place: int) -> None:
    if status in entries.OUTCOMES:
      self._where[identity] = place
      self._failed.pop(identity, None)
    elif status != entries.JOB:
      self._failed[identity] = place
