"""What a run says while it goes: JSON lines with loss, throughput, MFU, goodput.

Metrics are handed over as device arrays and fetched one call late, so that writing them
never waits for the step that is running.
"""

import dataclasses
import json
import math
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import IO, Any

import jax
import numpy as np

from msm_jax import distributed, records
from msm_jax.errors import Stopped, UserError
from msm_jax.training.goodput import Goodput
from msm_jax.training.trackers import Trackers

# Dense bfloat16 FLOP/s per device, from the makers' data sheets, by the beginning of
# `device_kind`. A TPU7x has two devices to a chip.
PEAK_FLOPS = {
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5": 459e12,
  "TPU v6 lite": 918e12,
  "TPU7x": 2307e12 / 2,
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
}


def peak_flops(device: jax.Device) -> float | None:
  """Returns the device's peak FLOP/s, None where it is not known (a CPU, say)."""
  return peak_flops_of_kind(device.device_kind)


def peak_flops_of_kind(device_kind: str) -> float | None:
  """Returns the peak FLOP/s of a kind of device, as JAX names it; None if not known."""
  # The longest name wins: "TPU v5 lite" is not a "TPU v5".
  for name in sorted(PEAK_FLOPS, key=len, reverse=True):
    if device_kind.startswith(name):
      return PEAK_FLOPS[name]
  return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
  """What turns steps per second into figures that people compare."""

  batch_size: int
  seq_len: int
  flops_per_token: float

  @property
  def slots(self) -> int:
    """Returns the places for tokens in a batch."""
    return self.batch_size * self.seq_len


class Writer:
  """Writes `metrics.jsonl` of one run (process 0); lines after a restored step go.

  Args:
    run_dir: where.
    first_step: steps that are done already.
    log_every_steps: a line for every step that this divides, and for the last of a
      call.
    shape: of a batch and the model.
    goodput: the run's book of time.
    trackers: get the same lines.
    blame: called with the step when its figures are not finite, returns where to look.
  """

  def __init__(
    self,
    run_dir: pathlib.Path,
    *,
    first_step: int,
    log_every_steps: int,
    shape: Shape,
    goodput: Goodput,
    trackers: Trackers,
    blame: Callable[[int], str],
  ):
    self.path = pathlib.Path(run_dir) / "metrics.jsonl"
    self.log_every_steps = log_every_steps
    self.last_loss: float | None = None  # of the newest step that was fetched
    peak = peak_flops(jax.devices()[0])
    self._peak = None if peak is None else peak * jax.device_count()
    self._shape, self._goodput, self._blame = shape, goodput, blame
    self._trackers = trackers
    self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
    self._file = self._reopen(first_step)
    self._mark = (time.monotonic(), goodput.lost_s("data"))

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, kind, error, trace) -> None:
    try:
      if kind is None or issubclass(kind, Stopped):
        self.flush(to_disk=True)
    finally:
      try:
        self._file.close()  # raises on a full disk
      finally:
        self._trackers.close()

  def write(self, last_step: int, metrics: Mapping[str, jax.Array]) -> None:
    """Takes the metrics [k] of the k steps that end with `last_step`.

    Raises:
      UserError: figures of an earlier call were not finite, or it had no target.
    """
    self.flush()
    self._pending = (last_step, metrics)

  def flush(self, *, to_disk: bool = False) -> None:
    """Fetches and writes what was taken; raises as `write` does.

    `to_disk` outlasts the machine, too: what a checkpoint follows must be there.
    """
    if self._pending is not None:
      last_step, metrics = self._pending
      self._pending = None
      self._write(last_step, {name: np.asarray(v) for name, v in metrics.items()})
    if to_disk and self._file.name != os.devnull:
      os.fsync(self._file.fileno())

  def _write(self, last_step: int, values: Mapping[str, np.ndarray]) -> None:
    num_steps = len(values["loss"])
    perf = self._perf(values)
    for i in range(num_steps):
      step = last_step - num_steps + 1 + i
      figures = {name: float(value[i]) for name, value in values.items()}
      self._check(step, figures)
      if step % self.log_every_steps == 0 or step == last_step:
        line = {f"train/{name}": value for name, value in figures.items()} | perf
        self._file.write(json.dumps({"step": step, **line}) + "\n")
        self._trackers.log(step, line)
    self._file.flush()

  def _perf(self, values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Returns the speed since the call before, and the goodput of the whole run."""
    (then, waited), now = self._mark, time.monotonic()
    self._mark = (now, self._goodput.lost_s("data"))
    seconds, num_steps = max(now - then, 1e-9), len(values["loss"])
    slots_per_s = num_steps * self._shape.slots / seconds
    padding = 1 - values["num_tokens"].sum() / (num_steps * self._shape.slots)
    perf = {
      "perf/tokens_per_sec": round(slots_per_s, 1),
      "perf/target_tokens_per_sec": round(
        float(values["num_targets"].sum()) / seconds, 1
      ),
      "perf/padding": round(float(padding), 6),
      "perf/step_time_s": round(seconds / num_steps, 6),
      "perf/data_wait": round(min((self._mark[1] - waited) / seconds, 1.0), 4),
      "perf/goodput": round(self._goodput.share(), 4),
    }
    if self._peak is not None:
      perf["perf/mfu"] = slots_per_s * self._shape.flops_per_token / self._peak
    return perf

  def _check(self, step: int, figures: Mapping[str, float]) -> None:
    self.last_loss = figures["loss"]
    wrong = [name for name in ("loss", "grad_norm") if not math.isfinite(figures[name])]
    if wrong:
      said = " and ".join(f"the {name} is {figures[name]}" for name in wrong)
      raise UserError(
        f"{self.path.parent}: {said} at step {step}; {self._blame(step)}; if the rows "
        "are sound, lower optimizer.learning_rate or clip_norm and train the stage "
        "again"
      )
    if figures["num_targets"] <= 0:
      raise UserError(
        f"{self.path.parent}: no token of the batch of step {step} carries loss; "
        f"{self._blame(step)}"
      )

  def _reopen(self, first_step: int) -> IO[str]:
    """Opens the file for appending, without lines after `first_step`."""
    if not distributed.is_first():
      return open(os.devnull, "w", encoding="utf-8")
    kept = []
    if self.path.exists():
      for line in self.path.read_text("utf-8").splitlines():
        entry = _parse(line)
        if entry is not None and entry["step"] <= first_step:
          kept.append(line + "\n")
    records.write_file(self.path, "".join(kept).encode("utf-8"))
    return self.path.open("a", encoding="utf-8")


def _parse(line: str) -> dict[str, Any] | None:
  """Returns the entry of a line; None for one that a killed run left torn."""
  try:
    return json.loads(line)
  except ValueError:
    return None
