"""Intervals within a seed: against scipy, and what they cover."""

import numpy as np
import pytest
from scipy import stats

from msm_jax.report import statistics, within


def _clustered(scores: np.ndarray, clusters: np.ndarray, binary: bool) -> within.Units:
  answers = [(float(s), 1.0, str(c)) for s, c in zip(scores, clusters, strict=True)]
  return within.units(answers, is_binary=binary)


def _drawn(rng: np.random.Generator, num_clusters: int, level: float) -> within.Units:
  """Returns yes / no answers of clusters that have levels of their own."""
  leans = rng.beta(4 * level, 4 * (1 - level), num_clusters)
  clusters = np.repeat(np.arange(num_clusters), 20)
  return _clustered(rng.random(clusters.size) < leans[clusters], clusters, True)


@pytest.mark.parametrize("level", [0.05, 0.4])
def test_clusters_have_the_bca_interval_of_their_ratio(level: float):
  found = _drawn(np.random.default_rng(3), 27, level)
  interval = within.interval(found)
  expected = stats.bootstrap(
    tuple(found.sums.T),
    lambda a, b, axis=-1: a.sum(axis) / b.sum(axis),
    paired=True,
    n_resamples=20_000,
    method="BCa",
    rng=np.random.default_rng(1),
  ).confidence_interval
  assert (interval.method, interval.num_units) == ("bootstrap", 27)
  width = expected.high - expected.low
  assert interval.low == pytest.approx(expected.low, abs=0.05 * width)
  assert interval.high == pytest.approx(expected.high, abs=0.05 * width)


def test_the_bootstrap_covers_what_wilson_would_not():
  """Of 200 studies with 27 conditions; answers of a condition are alike."""
  rng, level = np.random.default_rng(0), 0.3
  covered = {"bootstrap": 0, "wilson": 0}
  for _ in range(200):
    found = _drawn(rng, 27, level)
    share = float(found.sums[:, 0].sum() / found.sums[:, 1].sum())
    interval = within.interval(found)
    covered["bootstrap"] += interval.low <= level <= interval.high
    low, high = statistics.wilson_interval(share, int(found.sums[:, 1].sum()))
    covered["wilson"] += low <= level <= high
  assert covered["bootstrap"] >= 178  # 89 %: 27 clusters are few
  assert covered["wilson"] <= 140


@pytest.mark.slow
@pytest.mark.parametrize(
  ("num_clusters", "level", "bca", "percentile", "wilson"),
  [
    (27, 0.3, 0.957, 0.948, 0.609),
    (27, 0.05, 0.918, 0.895, 0.614),
    (9, 0.3, 0.919, 0.905, 0.638),
    (9, 0.1, 0.890, 0.862, 0.628),
  ],
)
def test_docs_report_says_what_the_intervals_cover(
  num_clusters: int, level: float, bca: float, percentile: float, wilson: float
):
  rng = np.random.default_rng(11)
  bounds = {"bca": [], "percentile": [], "wilson": []}
  for _ in range(1000):
    found = _drawn(rng, num_clusters, level)
    value, weight = found.sums.sum(axis=0)
    interval = within.interval(found)
    bounds["bca"].append((interval.low, interval.high))
    bounds["wilson"].append(statistics.wilson_interval(value / weight, int(weight)))
    drawn = within.draws(num_clusters) @ found.sums
    bounds["percentile"].append(np.quantile(drawn[:, 0] / drawn[:, 1], [0.025, 0.975]))
  covered = {
    name: np.mean([low <= level <= high for low, high in pairs])
    for name, pairs in bounds.items()
  }
  expected = {"bca": bca, "percentile": percentile, "wilson": wilson}
  assert covered == pytest.approx(expected, abs=0.005)


def test_the_same_answers_give_the_same_interval_in_any_order():
  found = _drawn(np.random.default_rng(5), 9, 0.2)
  within.draws.cache_clear()
  first = within.interval(found)
  within.draws.cache_clear()
  assert within.interval(found) == first


@pytest.mark.parametrize("answer", [0, 1])
def test_clusters_that_all_agree_still_have_a_width(answer: int):
  clusters = np.repeat(np.arange(9), 30)
  found = within.interval(_clustered(np.full(clusters.size, answer), clusters, True))
  expected = statistics.wilson_interval(answer, 9)  # nine answers, not 270
  assert (found.low, found.high) == expected
  assert found.method == "wilson"


def test_scores_that_weigh_the_same_have_students_interval():
  scores = np.random.default_rng(1).normal(5, 2, 40)
  answers = [(float(s), 1.0, str(i)) for i, s in enumerate(scores)]
  found = within.interval(within.units(answers, is_binary=False))
  expected = stats.t.interval(0.95, 39, scores.mean(), stats.sem(scores))
  np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-12)


def test_weighted_scores_have_the_interval_of_a_ratio():
  """Against the spread of the ratio over many studies drawn anew."""
  rng = np.random.default_rng(2)

  def study() -> within.Units:
    weights = rng.integers(1, 100, 60)
    scores = rng.normal(1.5, 0.4, 60) + weights / 100
    pairs = zip(scores, weights, strict=True)
    answers = [(s, float(w), str(i)) for i, (s, w) in enumerate(pairs)]
    return within.units(answers, is_binary=False)

  values, halves = [], []
  for _ in range(400):
    found = study()
    values.append(found.sums[:, 0].sum() / found.sums[:, 1].sum())
    interval = within.interval(found)
    halves.append((interval.high - interval.low) / 2)
  assert np.mean(halves) / np.std(values) == pytest.approx(2.0, rel=0.1)


def test_clusters_of_one_answer_are_answers_and_very_many_are_not_drawn():
  yes = [(1.0, 1.0, "a"), (0.0, 1.0, "b"), (1.0, 1.0, "c")]
  assert within.interval(within.units(yes, is_binary=True)).method == "wilson"
  rng = np.random.default_rng(4)
  many = [(float(rng.random()), 1.0, str(i // 2)) for i in range(4000)]
  found = within.interval(within.units(many, is_binary=False))
  assert (found.method, found.num_units) == ("t", 2000)


def test_a_single_answer_or_cluster_has_no_interval():
  one = within.units([(0.4, 1.0, "a")], is_binary=False)
  assert within.interval(one) is None
  cluster = [(0.4, 1.0, "a"), (0.6, 1.0, "a")]
  found = within.units(cluster, is_binary=False)
  assert within.interval(found) is None


def test_a_difference_pairs_the_answers_of_both_models():
  rng = np.random.default_rng(7)
  hard, noise = rng.normal(0, 3, 50), rng.normal(0, 0.1, 50)
  sides = [
    within.units(
      [(float(s), 1.0, str(i)) for i, s in enumerate(scores)],
      is_binary=False,
    )
    for scores in (hard + 0.5 + noise, hard)
  ]
  found = within.difference(*sides)
  expected = stats.ttest_1samp(0.5 + noise, 0).confidence_interval(0.95)
  np.testing.assert_allclose((found.low, found.high), expected, rtol=1e-9)


def test_a_difference_of_clustered_models_has_one_draw_for_both():
  rng = np.random.default_rng(8)
  a = _drawn(rng, 12, 0.5)
  found = within.difference(a, _drawn(rng, 12, 0.1))
  assert found.method == "bootstrap" and found.low > 0
  assert within.difference(a, a) is None  # no answer differs: nothing to draw
