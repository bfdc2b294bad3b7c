"""Kappa of two graders: by hand, at its ends, and with an interval that covers it."""

import numpy as np
import pytest

from msm_jax.evals import agreement


def of(first, second):
  return agreement.kappa(np.asarray(first, float), np.asarray(second, float))


def test_for_yes_and_no_it_is_cohens_kappa():
  # 20 both yes, 5 only the first, 10 only the second, 15 both no: agreed 35 / 50; by
  # chance 0.5 * 0.6 + 0.5 * 0.4.
  first = [1] * 25 + [0] * 25
  second = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
  assert of(first, second) == pytest.approx((0.7 - 0.5) / (1 - 0.5))


def test_for_ratings_it_weighs_by_the_square_of_the_difference():
  rng = np.random.default_rng(0)
  first, second = rng.integers(1, 11, (2, 40))
  ratings = np.arange(1, 11)
  weights = (ratings[:, None] - ratings) ** 2
  seen = np.zeros((10, 10))
  np.add.at(seen, (first - 1, second - 1), 1 / 40)
  chance = np.outer(seen.sum(1), seen.sum(0))
  expected = 1 - (weights * seen).sum() / (weights * chance).sum()
  assert of(first, second) == pytest.approx(expected)


def test_its_ends_are_agreement_contradiction_and_nothing_to_tell():
  assert of([1, 0, 1, 0], [1, 0, 1, 0]) == 1.0
  assert of([1, 0, 1, 0], [0, 1, 0, 1]) == -1.0
  assert of([1, 1], [1, 1]) is None
  assert abs(of(*np.random.default_rng(0).integers(0, 2, (2, 4000)))) < 0.05


def test_graders_that_contradict_each_other_are_told_with_an_interval():
  found = agreement.measure([(9, 1), (1, 9)] * 10, range(20), seed=0)
  assert found["kappa"] == pytest.approx(-1.0) and found["high"] < 0
  assert found["same"] == 0.0 and found["mean_difference"] == 8.0
  assert found["weights"] == "quadratic"


def test_answers_to_one_question_are_resampled_together():
  rng = np.random.default_rng(0)
  truth = rng.integers(0, 2, 30).repeat(4)
  pairs = [(t, t if rng.random() < 0.8 else 1 - t) for t in truth]
  alone = agreement.measure(pairs, range(120), seed=0)
  groups = agreement.measure(pairs, np.arange(30).repeat(4).tolist(), seed=0)
  assert alone["kappa"] == groups["kappa"] and groups["num_clusters"] == 30
  assert alone["low"] < alone["kappa"] < alone["high"]
  assert agreement.measure(pairs, range(120), seed=0) == alone


def test_without_answers_there_is_nothing_and_with_one_question_no_interval():
  assert agreement.measure([], [], seed=0)["kappa"] is None
  assert agreement.measure([(1, 1), (0, 1)], ["a", "a"], seed=0)["low"] is None


def test_more_items_keep_those_that_were_chosen_before():
  keys = [("base", 0, f"q{i}") for i in range(50)]
  few, more = (
    agreement.chosen(keys, agreement.AgreementConfig(max_items=n, seed=3))
    for n in (10, 20)
  )
  assert more[:10] == few and len(set(more)) == 20
  other = agreement.AgreementConfig(max_items=10, seed=4)
  assert agreement.chosen(keys, other) != few
