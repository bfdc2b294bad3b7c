"""How far two graders agree on the same answers: kappa, beyond what chance gives.

One formula serves both kinds of score: quadratically weighted kappa,

    1 - mean (a_i - b_i)^2 / mean over all pairs (a_i - b_j)^2

which for scores of 0 and 1 is Cohen's kappa. (Cohen 1960, 1968)
"""

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from msm_jax import fields as fields_lib
from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.evals import judge

JUDGE, SECOND = ROLES = ("judge", "second_judge")  # sections of the config
_RESAMPLES = 2000
_MOST = 1e-12  # of a difference that is none


@dataclasses.dataclass(frozen=True, kw_only=True)
class AgreementConfig:
  """How many answers a second grader reads (`config.agreement`).

  Attributes:
    max_items: of each evaluation, over all arms and seeds.
    seed: of the choice, and of the interval.
  """

  max_items: int
  seed: int


def settings(config: Mapping[str, Any]) -> AgreementConfig | None:
  """Returns how two graders are compared; None: there is one.

  Raises:
    UserError: one of the two sections is missing or wrong, or both graders are one.
  """
  second, value = config.get(SECOND), config.get("agreement")
  if (second is None) != (value is None):
    there, absent = ("agreement", SECOND)
    if value is None:
      there, absent = absent, there
    raise UserError(
      f"config.{there} is set and config.{absent} is not: a second grader needs its "
      "client (config.second_judge) and config.agreement with max_items and seed"
    )
  if value is None:
    return None
  found = fields_lib.build(AgreementConfig, value, "config.agreement")
  if not isinstance(found.max_items, int) or found.max_items < 2:
    raise UserError(
      f"config.agreement.max_items is {found.max_items!r}: a whole number, 2 or more"
    )
  if len({judge.identity(config, role, (), None) for role in ROLES}) == 1:
    raise UserError(
      "config.second_judge is the same grader as config.judge: it would agree with "
      "itself; set another model (or seed)"
    )
  return found


def chosen(keys: Sequence[Hashable], config: AgreementConfig) -> list[Hashable]:
  """Returns at most `max_items` keys by the hash of each; more items keep the first."""
  ranked = sorted(keys, key=lambda key: records.sha256_json([config.seed, key]))
  return ranked[: config.max_items]


def kappa(first: np.ndarray, second: np.ndarray) -> float | None:
  """Returns the weighted kappa of two graders; None where nobody's scores vary.

  Args:
    first, second: float [N] scores of the same answers.
  """
  by_chance = first.var() + second.var() + (first.mean() - second.mean()) ** 2
  if by_chance < _MOST:
    return None
  return float(1 - ((first - second) ** 2).mean() / by_chance)


def measure(
  pairs: Sequence[tuple[float, float]], clusters: Sequence[Hashable], seed: int
) -> dict[str, Any]:
  """Returns what the report says of two graders on one metric.

  Args:
    pairs: both scores of every answer.
    clusters: one for each; answers to one question are resampled together.
    seed: of the bootstrap.
  """
  found = np.asarray(pairs, np.float64).reshape(-1, 2)
  value = kappa(found[:, 0], found[:, 1]) if len(found) else None
  difference = np.abs(found[:, 0] - found[:, 1])
  is_binary = bool(np.isin(found, (0, 1)).all())
  low, high = (None, None) if value is None else _interval(found, clusters, seed)
  return {
    "n": len(found),
    "num_clusters": len(set(clusters)),
    "weights": "none" if is_binary else "quadratic",
    "kappa": value,
    "low": low,
    "high": high,
    "same": float((difference < _MOST).mean()) if len(found) else None,
    "mean_difference": float(difference.mean()) if len(found) else None,
    "mean_first": float(found[:, 0].mean()) if len(found) else None,
    "mean_second": float(found[:, 1].mean()) if len(found) else None,
  }


def _interval(
  found: np.ndarray, clusters: Sequence[Hashable], seed: int
) -> tuple[float | None, float | None]:
  """Returns the 95 % percentile interval of kappa over resampled clusters."""
  numbers: dict[Hashable, list[int]] = {}
  for i, cluster in enumerate(clusters):
    numbers.setdefault(cluster, []).append(i)
  members = [np.asarray(group) for group in numbers.values()]
  if len(members) < 2:
    return None, None
  rng = np.random.default_rng(seed)
  values = []
  for _ in range(_RESAMPLES):
    drawn = rng.integers(len(members), size=len(members))
    rows = found[np.concatenate([members[i] for i in drawn])]
    values.append(kappa(rows[:, 0], rows[:, 1]))
  varied = [value for value in values if value is not None]
  low, high = np.percentile(varied, (2.5, 97.5)) if varied else (None, None)
  return (None, None) if low is None else (float(low), float(high))
