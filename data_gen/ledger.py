"""Every attempt at a request, appended and flushed to disk as it lands.

The ledger is a JSONL file. A request that it holds an outcome for (an answer, or that
the service declined it) is never sent again, so a rerun pays for nothing twice; failed
attempts are entries too, and a rerun tries those requests again. Texts stay on disk;
the index in memory holds where each outcome lies.
"""

import asyncio
import dataclasses
import fcntl
import json
import os
import pathlib
from typing import Any

from data_gen.clients import protocol
from msm_jax import errors, progress

OK = "ok"
BLOCKED = protocol.Blocked.kind
FATAL_REQUEST = protocol.FatalRequest.kind
_OUTCOMES = (OK, BLOCKED, FATAL_REQUEST)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
  """One attempt.

  `status` is `ok` or the kind of a `ClientError`; `dollars` is None where the price of
  the model is not known.
  """

  id: str
  stage: str
  sample_index: int
  prompt_hash: str
  client: dict[str, str]
  params: dict[str, Any]
  attempt: int
  status: str
  time: str
  text: str = ""
  error: str = ""
  finish_reason: str | None = None
  model_version: str | None = None
  usage: dict[str, int] = dataclasses.field(default_factory=dict)
  dollars: float | None = None


def spent_in(path: pathlib.Path) -> float:
  """Returns the dollars that a ledger on disk records; 0 if there is none."""
  if not path.exists():
    return 0.0
  total = 0.0
  with open(path, "rb") as file:
    for line in file:
      if line.endswith(b"\n"):
        total += json.loads(line)["dollars"] or 0.0
  return total


class Ledger:
  """An append-only file of attempts; one process writes it at a time."""

  def __init__(self, path: pathlib.Path):
    """Opens or creates the ledger and repairs a torn last line.

    Raises:
      UserError: not writable, in use by another process, or damaged in the middle.
    """
    self.path = path
    self.spent = 0.0
    self._where: dict[str, tuple[int, int]] = {}
    self._failed: dict[str, Entry] = {}
    self._waiters: list[asyncio.Future[None]] = []
    self._flusher: asyncio.Task[None] | None = None
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
      raise errors.UserError(
        f"{path} cannot be written ({error.strerror}): choose another --workdir"
      ) from None
    try:
      self._lock()
      self._size = self._read_index()
    except BaseException:
      os.close(self._file)
      raise

  def __enter__(self) -> "Ledger":
    return self

  def __exit__(self, kind, error, trace) -> None:
    self.close()

  def close(self) -> None:
    """Flushes and closes the file."""
    os.fsync(self._file)
    os.close(self._file)

  def outcome(self, identity: str) -> Entry | None:
    """Returns how a request ended, or None if it is open."""
    if identity not in self._where:
      return None
    offset, length = self._where[identity]
    return Entry(**json.loads(os.pread(self._file, length, offset)))

  def __contains__(self, identity: str) -> bool:
    return identity in self._where

  def __len__(self) -> int:
    """The number of requests that have an outcome."""
    return len(self._where)

  def failure(self, identity: str) -> Entry | None:
    """Returns the last failed attempt that this process made at a request."""
    return self._failed.get(identity)

  async def append(self, entry: Entry) -> None:
    """Writes one attempt; returns when it is on disk.

    Attempts that land while the disk is busy share the next flush.

    Raises:
      UserError: the disk is full or gone; what was written before stays.
    """
    line = json.dumps(dataclasses.asdict(entry), ensure_ascii=False).encode() + b"\n"
    self._write(line)
    self._note(entry.id, entry.status, entry.dollars, self._size, len(line))
    if entry.status not in _OUTCOMES:
      self._failed[entry.id] = entry
    self._size += len(line)
    await self._flushed()

  def _write(self, line: bytes) -> None:
    try:
      written = os.pwrite(self._file, line, self._size)
      while written < len(line):
        written += os.pwrite(self._file, line[written:], self._size + written)
    except OSError as error:
      os.ftruncate(self._file, self._size)
      raise self._disk_error(error) from None

  def _disk_error(self, error: OSError) -> errors.UserError:
    return errors.UserError(
      f"{self.path} cannot be written ({error.strerror}): make room and run again; "
      "what it holds is kept"
    )

  async def _flushed(self) -> None:
    waiter = asyncio.get_running_loop().create_future()
    self._waiters.append(waiter)
    if self._flusher is None:
      self._flusher = asyncio.create_task(self._flush())
    await waiter

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

  def _read_index(self) -> int:
    """Indexes what is there and returns the size of its whole lines."""
    offset = 0
    with open(self.path, "rb") as file:
      for number, line in enumerate(file, start=1):
        try:
          row = json.loads(line)
          whole = line.endswith(b"\n") and isinstance(row, dict) and "id" in row
        except ValueError:
          whole = False
        if not whole:
          self._check_torn(number, rest=file.read(1))
          os.ftruncate(self._file, offset)
          break
        self._note(row["id"], row["status"], row["dollars"], offset, len(line))
        offset += len(line)
    return offset

  def _check_torn(self, number: int, rest: bytes) -> None:
    """Only the last line can be torn by a crash; anything else is damage."""
    if rest:
      raise errors.UserError(
        f"{self.path} line {number} is damaged: delete that line and run again; its "
        "request is sent once more"
      )
    progress.say(f"{self.path} line {number} was torn by a crash and is dropped")

  def _note(
    self, identity: str, status: str, dollars: float | None, offset: int, length: int
  ) -> None:
    self.spent += dollars or 0.0
    if status in _OUTCOMES:
      self._where[identity] = (offset, length)
