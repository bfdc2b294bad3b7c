"""Completions on disk as they land, so that a stopped evaluation asks nothing twice.

    WORKDIR/evals/transcripts/<evaluation>.<arm>.seed<k>.jsonl

The first line says of what (a digest of model, settings and items), every other one is
a completion. A line that a crash tore is dropped; its question is asked again.
"""

import dataclasses
import json
import os
import pathlib
import time
from typing import Any

from msm_jax import distributed, progress, records
from msm_jax.evals.subject import Completion

_FLUSH_S = 1.0  # of answers are lost at most; syncing each would cost more than some


class Transcripts:
  """The completions of one evaluation of an arm and seed, by question."""

  def __init__(self, path: pathlib.Path, identity: str):
    """Reads what is there; what another model or other settings gave is dropped."""
    self.path = path
    self._found: dict[str, tuple[str, Completion]] = {}
    self._waiting: list[bytes] = []
    self._flushed = time.monotonic()
    with distributed.together():  # nobody reads before that
      if distributed.is_first():
        self._repair(identity)
    lines = path.read_bytes().splitlines()
    for line in lines[1:]:
      self._note(json.loads(line))

  def get(self, name: str, prompt: Any) -> Completion | None:
    """Returns the completion of a question, None if it was not asked in these words."""
    asked, completion = self._found.get(name, (None, None))
    return completion if asked == _key(prompt) else None

  def add(self, name: str, prompt: Any, completion: Completion) -> None:
    """Keeps a completion; process 0 has it on disk after a second, or `flush`."""
    row = {"id": name, "prompt": _key(prompt), **dataclasses.asdict(completion)}
    self._note(row)
    if distributed.is_first():
      self._waiting.append(_line(row))
    if time.monotonic() - self._flushed > _FLUSH_S:
      self.flush()

  def flush(self) -> None:
    """Writes what was added."""
    if self._waiting:
      with self.path.open("ab") as file:
        file.write(b"".join(self._waiting))
        file.flush()
        os.fsync(file.fileno())
    self._waiting, self._flushed = [], time.monotonic()

  def remove(self) -> None:
    """Lets go of them once the answers lie elsewhere."""
    with distributed.together():
      if distributed.is_first():
        self.path.unlink()
        self._waiting = []

  def _note(self, row: dict[str, Any]) -> None:
    fields = {key: row[key] for key in ("text", "reasoning", "finish", "num_tokens")}
    self._found[row["id"]] = row["prompt"], Completion(**fields)

  def _repair(self, identity: str) -> None:
    """Leaves whole lines of this identity only."""
    head, data = _line({"identity": identity}), b""
    if self.path.exists():
      data = self.path.read_bytes()
      if not data.startswith(head):
        progress.say(f"{self.path} is of another model or other settings: begun anew")
    whole = data[: data.rfind(b"\n") + 1] if data.startswith(head) else head
    if whole != data:
      records.write_file(self.path, whole)


def _key(prompt: Any) -> str:
  return records.sha256_json(prompt)[:16]


def _line(row: dict[str, Any]) -> bytes:
  return json.dumps(row).encode("utf-8") + b"\n"
