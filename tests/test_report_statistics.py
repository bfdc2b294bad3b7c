"""Intervals and paired differences against scipy."""

import numpy as np
import pytest
from scipy import stats

from msm_jax.report import statistics, wording


@pytest.mark.parametrize("n", [2, 3, 6, 30])
def test_the_interval_over_seeds_is_students_t(n: int):
  values = np.random.default_rng(n).normal(0.4, 0.2, n)
  found = statistics.estimate(dict(enumerate(values)))
  expected = stats.t.interval(0.95, n - 1, values.mean(), stats.sem(values))
  np.testing.assert_allclose(found.interval, expected, rtol=1e-12)
  assert found.sd == pytest.approx(values.std(ddof=1))


def test_one_seed_has_a_mean_and_no_interval():
  found = statistics.estimate({4: 0.25})
  assert (found.mean, found.sd, found.interval) == (0.25, None, None)
  assert found.includes_zero is None
  assert wording.interval(found, is_share=True) == "n=1, no interval"


def test_no_seed_has_nothing():
  found = statistics.estimate({})
  assert (found.mean, found.interval, found.num_seeds) == (None, None, 0)


@pytest.mark.parametrize(("successes", "n"), [(0, 5), (3, 7), (48, 48), (50, 96)])
def test_the_interval_within_a_seed_is_wilsons(successes: int, n: int):
  expected = stats.binomtest(successes, n).proportion_ci(0.95, "wilson")
  found = statistics.wilson_interval(successes / n, n)
  np.testing.assert_allclose(found, (expected.low, expected.high), atol=1e-12)


def test_differences_are_paired_by_seed_and_skip_what_one_side_lacks():
  found = statistics.paired_difference({0: 0.9, 1: 0.5, 3: 0.1}, {0: 0.2, 1: 0.6, 2: 0})
  assert found.values == pytest.approx({0: 0.7, 1: -0.1})
  assert (found.num_positive, found.num_negative) == (1, 1)
  expected = stats.ttest_1samp([0.7, -0.1], 0).confidence_interval(0.95)
  np.testing.assert_allclose(found.interval, expected, rtol=1e-9)


def test_rounding_is_neither_a_sign_nor_a_difference_from_zero():
  same = {seed: (0.1 + 0.2) - 0.3 for seed in range(3)}
  found = statistics.estimate(same)
  assert (found.num_positive, found.includes_zero) == (0, True)
