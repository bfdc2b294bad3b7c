"""Means, intervals and paired differences over seeds.

The seed is the unit: answers of one trained model share that model, so they say how
well that model is measured and nothing about the next seed. Between seeds the interval
is Student's t; `within` has those within a seed. A study of one seed has no other, and
then says so (`unit`).
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import special

CONFIDENCE = 0.95
SEEDS, ANSWERS = "seeds", "answers"
_ROUNDING = 1e-12  # differences of shares that are equal in exact arithmetic


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimate:
  """A mean over seeds with what is needed to judge it.

  Attributes:
    values: seed -> value, in order of seed.
    mean: None without any seed.
    sd: sample standard deviation (n - 1); None with fewer than two seeds.
    interval: (low, high) at 95 %; None with fewer than two seeds, unless it is one
      within the seed.
    unit: what the interval is over: SEEDS, or ANSWERS of the only seed.
  """

  values: dict[int, float]
  mean: float | None
  sd: float | None
  interval: tuple[float, float] | None
  unit: str = SEEDS

  @property
  def num_seeds(self) -> int:
    return len(self.values)

  @property
  def num_positive(self) -> int:
    return sum(value > _ROUNDING for value in self.values.values())

  @property
  def num_negative(self) -> int:
    return sum(value < -_ROUNDING for value in self.values.values())

  @property
  def includes_zero(self) -> bool | None:
    """Whether the interval holds zero; None when there is no interval."""
    if self.interval is None:
      return None
    low, high = self.interval
    return low <= _ROUNDING and high >= -_ROUNDING

  def to_json(self) -> dict[str, object]:
    """Returns the estimate as plain JSON values, without the per-seed ones."""
    return {
      "mean": self.mean,
      "sd": self.sd,
      "interval": None if self.interval is None else list(self.interval),
      "num_seeds": self.num_seeds,
      "unit": None if self.interval is None else self.unit,
    }


def estimate(values: Mapping[int, float]) -> Estimate:
  """Returns mean, sd and 95 % t-interval (n - 1 degrees of freedom) over seeds."""
  by_seed = dict(sorted(values.items()))
  numbers = np.array(list(by_seed.values()), dtype=np.float64)
  if not numbers.size:
    return Estimate(values=by_seed, mean=None, sd=None, interval=None)
  mean = float(numbers.mean())
  if numbers.size == 1:
    return Estimate(values=by_seed, mean=mean, sd=None, interval=None)
  sd = float(numbers.std(ddof=1))
  quantile = float(special.stdtrit(numbers.size - 1, (1 + CONFIDENCE) / 2))
  half = quantile * sd / math.sqrt(numbers.size)
  return Estimate(values=by_seed, mean=mean, sd=sd, interval=(mean - half, mean + half))


def paired_difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate:
  """Returns the estimate of `a - b` over the seeds that both have."""
  return estimate({seed: a[seed] - b[seed] for seed in a.keys() & b.keys()})


def within_one(found: Estimate, bounds: Any) -> Estimate:
  """Returns the estimate of a study's only seed with an interval within that seed.

  Args:
    found: of one seed.
    bounds: has `low` and `high`; None: there is no interval.
  """
  if bounds is None:
    return found
  interval = (bounds.low, bounds.high)
  return dataclasses.replace(found, interval=interval, unit=ANSWERS)


def wilson_interval(share: float, n: int) -> tuple[float, float]:
  """Returns Wilson's 95 % score interval of a share of `n` independent answers."""
  z = float(special.ndtri((1 + CONFIDENCE) / 2))
  denominator = 1 + z * z / n
  center = (share + z * z / (2 * n)) / denominator
  half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / denominator
  return max(0.0, center - half), min(1.0, center + half)
