"""Every attempt at a request, appended and flushed to disk as it lands.

The ledger is a JSONL file. A request that it holds an outcome for (an answer, or that
the service declined it) is never sent again, so a rerun pays for nothing twice; failed
and refused attempts are entries too, and a rerun tries those requests again. Texts stay
on disk; the index in memory holds where each outcome lies.

Beside it, while requests are out, lies `ledger.in_flight`: what it names when the
process was killed is entered as lost, with the most that it may have cost.
"""

import asyncio
import collections
import dataclasses
import datetime
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from data_gen.engine import entries, in_flight
from data_gen.engine.entries import BLOCKED, FATAL_REQUEST, OK, Entry, Totals
from msm_jax import errors, progress

__all__ = [
  "BLOCKED",
  "FATAL_REQUEST",
  "OK",
  "Entry",
  "Ledger",
  "Totals",
  "lost_rows",
  "totals_in",
]

# An index entry is one number: where a row begins, and how long it is.
_LENGTH_BITS = 32
_LONGEST = (1 << _LENGTH_BITS) - 1


def now() -> str:
  """Returns the time as it is written down."""
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")


def totals_in(path: pathlib.Path) -> Totals:
  """Returns what a ledger on disk adds up to; nothing if there is none.

  Raises:
    UserError: a line is damaged, and not by a crash at its end.
  """
  totals = Totals()
  if not path.exists():
    return totals
  with open(path, "rb") as file:
    for number, line in enumerate(file, start=1):
      row = _parse(line)
      if row is not None:
        totals.add(row)
      elif line.endswith(b"\n"):
        raise errors.UserError(_damaged(path, number))
  for row in lost_rows(path):
    totals.add(row)
  return totals


def lost_rows(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Yields as rows the requests that were out when the last process died."""
  for row in in_flight.left_behind(_beside(path)):
    yield dataclasses.asdict(_lost(row))


class Ledger:
  """An append-only file of attempts; one process writes it at a time.

  Attributes:
    path: where it lies.
    totals: what its rows add up to.
  """

  def __init__(self, path: pathlib.Path):
    """Opens or creates the ledger and repairs a torn last line.

    Raises:
      UserError: not writable, in use by another process, or damaged in the middle.
    """
    self.path = path
    self.totals = Totals()
    self._where: dict[str, int] = {}
    self._failed: dict[str, int] = {}
    self._refused: set[str] = set()
    self._waiters: list[asyncio.Future[None]] = []
    self._flusher: asyncio.Task[None] | None = None
    self._out = in_flight.InFlight(_beside(path))
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
      raise errors.UserError(
        f"{path} cannot be written ({error.strerror}): choose another --workdir"
      ) from None
    try:
      self._lock()
      self._size = 0
      self._read_index()
    except BaseException:
      os.close(self._file)
      raise

  def __enter__(self) -> "Ledger":
    return self

  def __exit__(self, kind, error, trace) -> None:
    self.close()

  def close(self) -> None:
    """Flushes and closes the file."""
    self._out.close()
    os.fsync(self._file)
    os.close(self._file)

  @property
  def spent(self) -> float:
    """Dollars that answers were billed."""
    return self.totals.spent

  def outcome(self, identity: str) -> Entry | None:
    """Returns how a request ended, or None if it is open."""
    place = self._where.get(identity)
    return None if place is None else self._read(place)

  def __contains__(self, identity: str) -> bool:
    """Whether a request need not be sent: it ended, or was refused in this process."""
    return identity in self._where or identity in self._refused

  def __len__(self) -> int:
    """The number of requests that have an outcome."""
    return len(self._where)

  def failure(self, identity: str) -> Entry | None:
    """Returns the last failed attempt that this process made at a request."""
    place = self._failed.get(identity)
    return None if place is None else self._read(place)

  def rows(self) -> Iterator[dict[str, Any]]:
    """Yields all rows in the order in which they landed."""
    with open(self.path, "rb") as file:
      for line in file:
        yield json.loads(line)

  def going_out(self, entry: Entry) -> int:
    """Notes on disk that a request goes out; returns a ticket for `came_back`.

    Raises:
      UserError: the disk is full or gone.
    """
    names = ("id", "stage", "sample_index", "prompt_hash", "attempt", "sent", "at_most")
    try:
      return self._out.enter({name: getattr(entry, name) for name in names})
    except OSError as error:
      raise self._disk_error(error) from None

  def came_back(self, ticket: int) -> None:
    """Notes that the result of a request has been added."""
    try:
      self._out.leave(ticket)
    except OSError as error:
      raise self._disk_error(error) from None

  async def append(self, entry: Entry) -> None:
    """Writes one attempt; returns when it is on disk.

    Raises:
      UserError: the disk is full or gone; what was written before stays.
    """
    self.add(entry)
    await self.flushed()

  def add(self, entry: Entry) -> None:
    """Writes one attempt; it is on disk when `flushed` returns."""
    self._add_row(entries.row_of(entry), this_process=True)

  async def note(self, row: Mapping[str, Any]) -> None:
    """Writes one note about a batch job; returns when it is on disk."""
    self._add_row(row)
    await self.flushed()

  async def flushed(self) -> None:
    """Waits until all that was added is on disk.

    Rows that land while the disk is busy share the next flush.
    """
    waiter = asyncio.get_running_loop().create_future()
    self._waiters.append(waiter)
    if self._flusher is None:
      self._flusher = asyncio.create_task(self._flush())
    await waiter

  def _add_row(self, row: Mapping[str, Any], this_process: bool = False) -> None:
    line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    self._write(line)
    place = self._note(row, len(line))
    if this_process and row["status"] not in entries.OUTCOMES:
      self._failed[row["id"]] = place
    else:
      self._failed.pop(row["id"], None)
    if this_process and row["status"] == FATAL_REQUEST:
      self._refused.add(row["id"])

  def _write(self, line: bytes) -> None:
    try:
      written = os.pwrite(self._file, line, self._size)
      while written < len(line):
        written += os.pwrite(self._file, line[written:], self._size + written)
    except OSError as error:
      os.ftruncate(self._file, self._size)
      raise self._disk_error(error) from None

  def _read(self, place: int) -> Entry:
    line = os.pread(self._file, place & _LONGEST, place >> _LENGTH_BITS)
    return Entry(**json.loads(line))

  def _disk_error(self, error: OSError) -> errors.UserError:
    return errors.UserError(
      f"{self.path} cannot be written ({error.strerror}): make room and run again; "
      "what it holds is kept"
    )

  async def _flush(self) -> None:
    while self._waiters:
      waiters, self._waiters = self._waiters, []
      failure = None
      try:
        await asyncio.to_thread(os.fsync, self._file)
      except OSError as error:
        failure = self._disk_error(error)
      for waiter in waiters:
        if waiter.done():
          continue
        if failure is None:
          waiter.set_result(None)
        else:
          waiter.set_exception(failure)
    self._flusher = None

  def _lock(self) -> None:
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
      raise errors.UserError(
        f"{self.path} is in use by another process: wait for it, or choose another "
        "--workdir"
      ) from None

  def _read_index(self) -> None:
    """Indexes what is there; enters as lost what was out when a process died."""
    left = in_flight.left_behind(_beside(self.path))
    # A result may have landed just before the process died.
    landed = collections.deque[tuple[str, str]](maxlen=len(left) + 1)
    with open(self.path, "rb") as file:
      for number, line in enumerate(file, start=1):
        row = _parse(line)
        if row is None:
          self._check_torn(number, rest=file.read(1))
          os.ftruncate(self._file, self._size)
          break
        self._note(row, len(line))
        landed.append((row["id"], row.get("sent", "")))
    for row in left:
      if (row["id"], row["sent"]) not in landed:
        self._add_row(entries.row_of(_lost(row)))
    if left:
      os.fsync(self._file)
    _beside(self.path).unlink(missing_ok=True)

  def _check_torn(self, number: int, rest: bytes) -> None:
    """Only the last line can be torn by a crash; anything else is damage."""
    if rest:
      raise errors.UserError(_damaged(self.path, number))
    progress.say(f"{self.path} line {number} was torn by a crash and is dropped")

  def _note(self, row: Mapping[str, Any], length: int) -> int:
    place = self._size << _LENGTH_BITS | length
    self._size += length
    self.totals.add(row)
    if row["status"] in entries.OUTCOMES:
      self._where[row["id"]] = place
    return place


def _parse(line: bytes) -> dict[str, Any] | None:
  """Returns a row; None if the line is not a whole one."""
  try:
    row = json.loads(line)
  except ValueError:
    return None
  whole = line.endswith(b"\n") and isinstance(row, dict) and "id" in row
  return row if whole else None


def _damaged(path: pathlib.Path, number: int) -> str:
  return (
    f"{path} line {number} is damaged: delete that line and run again; its request is "
    "sent once more"
  )


def _beside(path: pathlib.Path) -> pathlib.Path:
  return path.with_suffix(".in_flight")


def _lost(row: Mapping[str, Any]) -> Entry:
  """Returns the entry of a request that was out when the process died."""
  message = "the process died before the answer came"
  more = {"status": entries.LOST, "error": message, "lost": True, "time": now()}
  return Entry(**row, client={}, params={}, dollars=0.0, **more)
