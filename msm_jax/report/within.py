"""Intervals within one trained model: over its answers, or over clusters of them.

wilson     scores 0 or 1, answers independent (Wilson 1927)
t          other scores, answers independent: the weighted mean as a ratio of two
           sums, linearised (Cochran 1977, 6.3); Student's t of n-1 for equal weights
bootstrap  answers that share a cluster (a condition, a claim): whole clusters are
           drawn again, 4,000 times, and the interval is BCa (Efron 1987). Not the
           plain percentiles: rates near 0 or 1 over few conditions are skewed, and
           percentiles then lie on the wrong side. The draws are seeded: the same
           files give the same interval. Of more than 1,000 clusters the mean is
           normal enough: `t`, over clusters.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable

import numpy as np
from scipy import special

from msm_jax.report.statistics import CONFIDENCE, wilson_interval

NUM_DRAWS = 4000
MOST_DRAWN = 1000  # clusters; the mean of more of them is normal enough for `t`
_SEED = 20261121
_Z = float(special.ndtri((1 + CONFIDENCE) / 2))

WILSON, T, BOOTSTRAP = "wilson", "t", "bootstrap"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
  """A 95 % interval within a seed.

  Attributes:
    method: WILSON, T or BOOTSTRAP.
    num_units: answers, or clusters of them.
  """

  low: float
  high: float
  method: str
  num_units: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Units:
  """The scored answers of one model and metric, summed by what is independent.

  Attributes:
    names: of the answers or clusters; distinct.
    sums: float64 [C, 2]: sum of weight x score, sum of weights.
    is_clustered: whether some unit holds several answers.
    is_binary: every score is 0 or 1 and weighs the same.
  """

  names: tuple[str, ...]
  sums: np.ndarray
  is_clustered: bool
  is_binary: bool


def units(answers: Iterable[tuple[float, float, str]], *, is_binary: bool) -> Units:
  """Returns the units of (score, weight, unit's name); a name twice is a cluster."""
  found: dict[str, list[float]] = {}
  count = 0
  for score, weight, name in answers:
    count += 1
    pair = found.setdefault(name, [0.0, 0.0])
    pair[0] += weight * score
    pair[1] += weight
  sums = np.array(list(found.values()), np.float64).reshape(-1, 2)
  return Units(
    names=tuple(found),
    sums=sums,
    is_clustered=len(found) < count,
    is_binary=is_binary,
  )


def interval(found: Units) -> Interval | None:
  """Returns the interval of the mean; None for fewer than two answers or clusters.

  Where all answers are 0, or all 1, drawing clusters again gives no width: the interval
  is then Wilson's with as many answers as there are clusters.
  """
  sums = found.sums[found.sums[:, 1] > 0]
  count, totals = len(sums), sums.sum(axis=0)
  if not count:
    return None
  share = totals[0] / totals[1]
  if found.is_binary and (not found.is_clustered or share in (0.0, 1.0)):
    return _made(wilson_interval(share, count), WILSON, count)
  if count < 2:
    return None
  if not found.is_clustered or count > MOST_DRAWN:
    return _made(_student(share, _influence(sums)), T, count)
  return _made(_bca(sums, lambda s: s[..., 0] / s[..., 1]), BOOTSTRAP, count)


def difference(a: Units, b: Units) -> Interval | None:
  """Returns the interval of a's mean minus b's, paired by the names of units.

  Returns None for fewer than two units, or where none of the answers differ in score.
  """
  names = list(dict.fromkeys((*a.names, *b.names)))
  places = {name: i for i, name in enumerate(names)}
  sums = np.zeros((len(names), 4))
  for side, found in ((slice(0, 2), a), (slice(2, 4), b)):
    sums[[places[name] for name in found.names], side] = found.sums
  totals = sums.sum(axis=0)
  if len(names) < 2 or not totals[1] or not totals[3]:
    return None
  spread = _influence(sums[:, :2]) - _influence(sums[:, 2:])
  if not np.any(np.abs(spread) > 1e-15):
    return None
  value = totals[0] / totals[1] - totals[2] / totals[3]
  if not (a.is_clustered or b.is_clustered) or len(names) > MOST_DRAWN:
    return _made(_student(value, spread), T, len(names))

  def gap(s: np.ndarray) -> np.ndarray:
    return s[..., 0] / s[..., 1] - s[..., 2] / s[..., 3]

  return _made(_bca(sums, gap), BOOTSTRAP, len(names))


def _made(bounds: tuple[float, float], method: str, num_units: int) -> Interval:
  low, high = map(float, bounds)
  return Interval(low=low, high=high, method=method, num_units=num_units)


def _influence(sums: np.ndarray) -> np.ndarray:
  """Returns what each unit moves the ratio of the two sums by, float64 [C]."""
  value, weight = sums.sum(axis=0)
  return (sums[:, 0] - value / weight * sums[:, 1]) / weight


def _student(value: float, influence: np.ndarray) -> tuple[float, float]:
  count = len(influence)
  error = math.sqrt(count / (count - 1) * float(np.square(influence).sum()))
  half = float(special.stdtrit(count - 1, (1 + CONFIDENCE) / 2)) * error
  return value - half, value + half


def _bca(
  columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray]
) -> tuple[float, float]:
  """Returns the bias-corrected and accelerated interval of a statistic of sums.

  Args:
    columns: float64 [C, k], of the clusters.
    statistic: [..., k] sums -> [...].
  """
  total = columns.sum(axis=0)
  value = float(statistic(total))
  with np.errstate(invalid="ignore", divide="ignore"):
    drawn = statistic(draws(len(columns)) @ columns)
    left_out = statistic(total - columns)
  drawn = np.sort(drawn[np.isfinite(drawn)])  # a draw without any weight has no mean
  left_out = left_out[np.isfinite(left_out)]
  if np.ptp(drawn) == 0:
    return value, value
  below, upto = (np.searchsorted(drawn, value, side) for side in ("left", "right"))
  least = 0.5 / len(drawn)
  bias = special.ndtri(np.clip((below + upto) / (2 * len(drawn)), least, 1 - least))
  gaps = left_out.mean() - left_out
  scale = 6 * np.square(gaps).sum() ** 1.5
  acceleration = (gaps**3).sum() / scale if scale else 0.0
  shifted = bias + np.array([-_Z, _Z])
  places = special.ndtr(bias + shifted / (1 - acceleration * shifted))
  low, high = np.quantile(drawn, places)
  return low, high


@functools.lru_cache(maxsize=3)
def draws(count: int) -> np.ndarray:
  """Returns how often each of `count` units is drawn, float64 [NUM_DRAWS, count].

  Every metric and arm with as many units sees the same draws.
  """
  rng = np.random.default_rng([_SEED, count])
  found = rng.multinomial(count, np.full(count, 1 / count), size=NUM_DRAWS)
  return found.astype(np.float64)
