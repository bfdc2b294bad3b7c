"""How runs go, whatever they train: deadlines, trackers, profile (`config.run`)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from msm_jax import fields
from msm_jax.errors import UserError

# JAX ends a process by itself when another was silent for 100 s.
_MOST_PROCESS_DEADLINE_S = 90.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProfileConfig:
  """A profiler trace of `num_steps` updates after `start_step`; None: no trace."""

  start_step: int | None = None
  num_steps: int = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
  """None of it changes a result, but for the rounding of `population`.

  A process ends with exit code 75 when no update was finished for `step_deadline_s`
  seconds (compiling, restoring and saving counted in; None: never), or when another
  process was not heard of for `process_deadline_s`. At most `population` runs of the
  same shapes are trained as one program (None: one on a CPU, elsewhere as many as fill
  the devices; see `population.py`).
  """

  step_deadline_s: float | None = 1800.0
  process_deadline_s: float = 60.0
  population: int | None = None
  trackers: tuple[str, ...] = ()
  profile: ProfileConfig = dataclasses.field(default_factory=ProfileConfig)

  def __post_init__(self):
    if self.step_deadline_s is not None and self.step_deadline_s <= 0:
      raise UserError(
        f"config.run.step_deadline_s ({self.step_deadline_s}) must be above 0, or None"
      )
    if not 1 <= self.process_deadline_s <= _MOST_PROCESS_DEADLINE_S:
      raise UserError(
        f"config.run.process_deadline_s ({self.process_deadline_s}) must be from 1 to "
        f"{_MOST_PROCESS_DEADLINE_S:g}"
      )
    if self.population is not None and self.population < 1:
      raise UserError(
        f"config.run.population ({self.population}) must be at least 1, or None"
      )
    start = self.profile.start_step
    if self.profile.num_steps < 1 or (start is not None and start < 0):
      raise UserError(
        f"config.run.profile {dataclasses.asdict(self.profile)}: start_step must be at "
        "least 0 (or None), num_steps at least 1"
      )


def parse(section: Mapping[str, Any]) -> RunConfig:
  """Returns `config.run`; a UserError names what is unknown or out of range."""
  given = dict(section)
  if "profile" in given:
    given["profile"] = fields.build(
      ProfileConfig, dict(given["profile"]), "config.run.profile"
    )
  if "trackers" in given:
    given["trackers"] = tuple(given["trackers"])
  return fields.build(RunConfig, given, "config.run")
