"""A profiler trace of some updates, for TensorBoard (xprof) or Perfetto."""

import pathlib

import jax

from msm_jax import distributed, progress
from msm_jax.training.run_config import ProfileConfig


class Profile:
  """A trace of the updates that `config.run.profile` names, if it names any."""

  def __init__(self, wanted: ProfileConfig, directory: pathlib.Path, first_step: int):
    self._start = wanted.start_step
    if self._start is not None:
      self._end = self._start + wanted.num_steps
      # A process that goes on after these updates has nothing to trace.
      self._start = max(self._start, first_step) if first_step < self._end else None
    self._directory = directory
    if distributed.num_processes() > 1:
      self._directory /= f"process-{distributed.process_index()}"
    self._traces = False

  def __enter__(self) -> "Profile":
    return self

  def __exit__(self, kind, error, trace) -> None:
    self._stop(None)

  def end(self, metrics: object) -> None:
    """Ends the trace, if there is one, after the last call, which made `metrics`."""
    self._stop(metrics)

  def before(self, end: int, metrics: object) -> None:
    """Begins or ends the trace before the call that ends with step `end`.

    `metrics` are those of the call before, which must be in the trace.
    """
    if self._start is None:
      return
    if self._traces and end > self._end:
      self._stop(metrics)
    elif not self._traces and end > self._start:
      jax.profiler.start_trace(str(self._directory))
      self._traces = True

  def _stop(self, metrics: object) -> None:
    if not self._traces:
      return
    self._traces, self._start = False, None
    jax.block_until_ready(metrics)
    jax.profiler.stop_trace()
    progress.say(f"profile: {self._directory} (TensorBoard, or Perfetto)")
