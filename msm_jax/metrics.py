"""What a run says while it goes: JSON lines, throughput, MFU.

Metrics are handed over as device arrays and fetched one call late, so that writing them
never waits for the step that is running.
"""

import json
import math
import os
import pathlib
import time
from collections.abc import Mapping
from typing import IO, Any

import jax
import numpy as np

from msm_jax.errors import Stopped, UserError

# Dense bfloat16 FLOP/s per device, from the makers' data sheets.
PEAK_FLOPS = {
  "TPU v4": 275e12,
  "TPU v5 lite": 197e12,
  "TPU v5": 459e12,
  "TPU v6 lite": 918e12,
  "NVIDIA A100": 312e12,
  "NVIDIA H100": 989e12,
  "NVIDIA H200": 989e12,
}


def peak_flops(device: jax.Device) -> float | None:
  """Returns the device's peak FLOP/s, None where it is not known (a CPU, say)."""
  # The longest name wins: "TPU v5 lite" is not a "TPU v5".
  for name in sorted(PEAK_FLOPS, key=len, reverse=True):
    if device.device_kind.startswith(name):
      return PEAK_FLOPS[name]
  return None


class Writer:
  """Writes `metrics.jsonl` of one run (process 0); lines after a restored step go."""

  def __init__(
    self,
    run_dir: pathlib.Path,
    *,
    first_step: int,
    log_every_steps: int,
    tokens_per_step: int,
    flops_per_step: float,
  ):
    self.path = pathlib.Path(run_dir) / "metrics.jsonl"
    self.log_every_steps = log_every_steps
    self.tokens_per_step = tokens_per_step
    self.last_loss: float | None = None  # of the newest step that was fetched
    peak = peak_flops(jax.devices()[0])
    self._flops_per_step = flops_per_step
    self._peak = None if peak is None else peak * jax.device_count()
    self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
    self._file = self._reopen(first_step)
    self._mark = (first_step, time.monotonic())

  def __enter__(self) -> "Writer":
    return self

  def __exit__(self, kind, error, trace) -> None:
    try:
      if kind is None or issubclass(kind, Stopped):
        self.flush()
    finally:
      self._file.close()

  def write(self, last_step: int, metrics: Mapping[str, jax.Array]) -> None:
    """Takes the metrics [k] of the k steps that end with `last_step`.

    Raises:
      UserError: the loss of an earlier call was not finite.
    """
    self.flush()
    self._pending = (last_step, metrics)

  def flush(self) -> None:
    """Fetches and writes what was taken; raises as `write` does."""
    if self._pending is None:
      return
    last_step, metrics = self._pending
    self._pending = None
    values = {name: np.asarray(value) for name, value in metrics.items()}
    num_steps = len(values["loss"])
    speed = self._speed(last_step)
    for i in range(num_steps):
      step = last_step - num_steps + 1 + i
      self._check(step, float(values["loss"][i]))
      if step % self.log_every_steps == 0 or step == last_step:
        line = {f"train/{name}": float(value[i]) for name, value in values.items()}
        self._file.write(json.dumps({"step": step, **line, **speed}) + "\n")
    self._file.flush()

  def _speed(self, last_step: int) -> dict[str, float]:
    before, then = self._mark
    now = time.monotonic()
    self._mark = (last_step, now)
    steps_per_s = (last_step - before) / max(now - then, 1e-9)
    speed = {"perf/tokens_per_sec": round(steps_per_s * self.tokens_per_step, 1)}
    if self._peak is not None:
      speed["perf/mfu"] = steps_per_s * self._flops_per_step / self._peak
    return speed

  def _check(self, step: int, loss: float) -> None:
    self.last_loss = loss
    if not math.isfinite(loss):
      raise UserError(
        f"{self.path.parent}: the loss is {loss} at step {step}; its checkpoints are "
        "of earlier steps: lower optimizer.learning_rate or clip_norm and train the "
        "stage again"
      )

  def _reopen(self, first_step: int) -> IO[str]:
    """Opens the file for appending, without lines after `first_step`."""
    if jax.process_index() > 0:
      return open(os.devnull, "w", encoding="utf-8")
    kept = []
    if self.path.exists():
      for line in self.path.read_text("utf-8").splitlines():
        entry = _parse(line)
        if entry is not None and entry["step"] <= first_step:
          kept.append(line + "\n")
    self.path.parent.mkdir(parents=True, exist_ok=True)
    self.path.write_text("".join(kept), "utf-8")
    return self.path.open("a", encoding="utf-8")


def _parse(line: str) -> dict[str, Any] | None:
  """Returns the entry of a line; None for one that a killed run left torn."""
  try:
    return json.loads(line)
  except ValueError:
    return None
