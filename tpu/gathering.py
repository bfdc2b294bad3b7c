"""What a host tells of its command: its log, and how far it is.

progress.json: at (what is done: 'train a+b seed 0'), phase (generate, prepare, train,
evaluate), step, of, unit, loss, tokens_per_sec, eta_s, attempt, host (whose process
speaks for all: any, see `msm_jax/distributed.py`), time (seconds since 1970, there).
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

from tpu.attempts import Point
from tpu.board import Board

MOST_LOG = 4 * 2**20  # bytes of a log on the board: the newest
_PHASES = ("prepare", "train", "evaluate")


class HostLog:
  """The log of a host: a file here, now and then copied to the board.

  What machines before this one left on the board stays there, in front of it. A file
  beside the log keeps that, for agents after this one.
  """

  def __init__(self, path: pathlib.Path, board: Board, step: str, host: int):
    self.path, self._board = path, board
    self._before = path.with_suffix(".before")
    self._step, self._host = step, host
    self._copied = -1
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()

  def note(self, line: str) -> None:
    """Appends a line of the agent itself."""
    with self.path.open("a") as file:
      file.write(f"[host {self._host}] {line}\n")

  def gather(self) -> None:
    """Copies what is new.

    Raises:
      Unreachable: the board does not answer.
    """
    if not self._before.exists():
      new = self._before.with_suffix(".new")
      new.write_bytes(self._board.log(self._step, self._host) or b"")
      new.replace(self._before)
    size = self.path.stat().st_size
    if size != self._copied:
      newest = _tail(self._before, self.path)
      self._board.put_log(self._step, self._host, newest)
      self._copied = size


def _tail(*paths: pathlib.Path) -> bytes:
  """Returns the last `MOST_LOG` bytes of files, from the beginning of a line."""
  data = b""
  for path in paths:
    with path.open("rb") as file:
      file.seek(max(file.seek(0, 2) - MOST_LOG - 1, 0))
      data += file.read()
  return data if len(data) <= MOST_LOG else data[-MOST_LOG - 1 :].partition(b"\n")[2]


class Told:
  """How far the command is, from the file that `msm_jax.progress` writes."""

  def __init__(self, path: pathlib.Path):
    self.path = path

  def forget(self) -> None:
    """Forgets what a command before this one told."""
    self.path.unlink(missing_ok=True)

  def read(self) -> dict[str, Any] | None:
    """Returns progress.json but `attempt` and `host`; None where another speaks."""
    try:
      found = json.loads(self.path.read_text())
    except (OSError, ValueError):
      return None
    at = found.pop("label")
    phase = next((each for each in _PHASES if at.startswith(each)), "generate")
    return {"at": at, "phase": phase, "step": found.pop("done"), **found}


def point_on(board: Board, step: str, attempt: int) -> Point:
  """Returns how far the command of an attempt came, as whoever spoke told last."""
  found = board.progress(step)
  if found is None or found["attempt"] != attempt:
    return Point()
  return Point(found["at"], found["step"])


def speaker(board: Board, steps: Sequence[str]) -> int:
  """Returns the host whose log has what process 0 says in the step that began last."""
  told = [found for step in steps if (found := board.progress(step)) is not None]
  return told[-1].get("host", 0) if told else 0
