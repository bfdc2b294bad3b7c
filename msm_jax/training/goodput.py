"""Where the time of a run goes, over its whole life: `goodput.json`.

Goodput is the share of wall time in which updates were made that count: not reading,
compiling, restoring or saving, and no update that a restart had to make again. The
file also remembers the newest checkpoint that was complete, so that one that is gone
is noticed.
"""

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

from msm_jax import distributed, records

_FILE = "goodput.json"
_WRITE_EVERY_S = 10.0
_LOST = ("restore_s", "compile_s", "data_s", "save_s", "redone_s")


class Goodput:
  """The book of one run, continued by every process that goes on with it."""

  def __init__(self, run_dir: pathlib.Path):
    self.path = pathlib.Path(run_dir) / _FILE
    self._totals: dict[str, Any] = {
      "starts": 0,
      "step": 0,
      "saved_step": 0,
      "num_steps": 0,
      "wall_s": 0.0,
    } | dict.fromkeys(_LOST, 0.0)
    if self.path.exists():
      known = records.read_json(self.path)  # and `goodput`, which is worked out
      self._totals |= {name: known[name] for name in self._totals if name in known}
    self._totals["starts"] += 1
    self._mark = self._written = time.monotonic()

  @property
  def saved_step(self) -> int:
    """Returns the newest step of which there was a complete checkpoint, 0 if none."""
    return self._totals["saved_step"]

  @contextlib.contextmanager
  def lost(self, kind: str) -> Iterator[None]:
    """Counts the time in its block as lost to `restore`, `compile`, `data`, `save`."""
    started = time.monotonic()
    try:
      yield
    finally:
      self._totals[f"{kind}_s"] += time.monotonic() - started

  def begin(self, step: int) -> None:
    """Notes from where this process goes on: later steps were made in vain."""
    totals = self._totals
    again = max(totals["step"] - step, 0)
    if again:
      totals["redone_s"] += again * self._step_s()
    totals["step"] = step
    self.write()

  def advance(self, step: int) -> None:
    """Notes that `step` updates are done."""
    self._totals["num_steps"] += step - self._totals["step"]
    self._totals["step"] = step

  def saved(self, step: int) -> None:
    """Notes that the checkpoint of `step` is complete (0: there is none yet)."""
    if step not in (0, self._totals["saved_step"]):
      self._totals["saved_step"] = step
      self.write()

  def lost_s(self, kind: str) -> float:
    """Returns the seconds lost so far to one kind."""
    return self._totals[f"{kind}_s"]

  def share(self) -> float:
    """Returns the goodput so far, between 0 and 1."""
    self._count()
    lost = sum(self._totals[name] for name in _LOST)
    return max(1 - lost / max(self._totals["wall_s"], 1e-9), 0.0)

  def write(self, *, only_if_old: bool = False) -> None:
    """Writes the file, from process 0."""
    self._count()
    if only_if_old and time.monotonic() - self._written < _WRITE_EVERY_S:
      return
    self._written = time.monotonic()
    if distributed.is_first():
      share = {"goodput": round(self.share(), 4)}
      shown = {
        k: round(v, 3) if k.endswith("_s") else v for k, v in self._totals.items()
      }
      records.write_json(self.path, share | shown)

  def _count(self) -> None:
    now = time.monotonic()
    self._totals["wall_s"] += now - self._mark
    self._mark = now

  def _step_s(self) -> float:
    """Returns the mean time of an update so far, losses not counted."""
    lost = sum(self._totals[name] for name in _LOST)
    return max(self._totals["wall_s"] - lost, 0.0) / max(self._totals["num_steps"], 1)
