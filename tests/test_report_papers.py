"""Ours minus a number of a paper, with the paper's own standard error or without."""

from typing import Any

import numpy as np
import pytest
from scipy import special

from msm_jax.report import paper, paper_settings, statistics, wording


def _pair(sem: float | None, num_seeds: int | None = None, **more) -> paper.Pair:
  ours = statistics.estimate({0: 0.5, 1: 0.6, 2: 0.55})
  stated = paper_settings.Stated(value=0.4, sem=sem)
  fields: dict[str, Any] = {"name": "a", "evaluation": "e", "metric": "m"}
  return paper.Pair(**fields, paper=stated, ours=ours, num_seeds=num_seeds, **more)


def test_the_papers_error_adds_in_squares_and_none_adds_nothing():
  bare, exact = _pair(None).difference, _pair(0.0).difference
  assert exact.interval == pytest.approx(bare.interval)
  half = (bare.interval[1] - bare.interval[0]) / 2
  for num_seeds, quantile in (
    (None, special.ndtri(0.975)),
    (4, special.stdtrit(3, 0.975)),
  ):
    low, high = _pair(0.03, num_seeds).difference.interval
    assert (high - low) / 2 == pytest.approx(np.hypot(half, quantile * 0.03))
    assert (high + low) / 2 == pytest.approx(0.15)


def test_an_interval_that_is_not_even_stays_uneven_beside_an_error():
  ours = statistics.Estimate(
    values={0: 0.02}, mean=0.02, sd=None, interval=(0.01, 0.09), unit="answers"
  )
  stated = paper_settings.Stated(value=0.0, sem=0.01)
  pair = paper.Pair(name="a", evaluation="e", metric="m", paper=stated, ours=ours)
  low, high = pair.difference.interval
  assert 0.02 - low < high - 0.02 and low < 0.01 and high > 0.09


@pytest.mark.slow
@pytest.mark.parametrize(("ours", "theirs"), [(4, 4), (4, 30), (8, 4)])
def test_the_interval_of_a_difference_to_a_paper_holds_the_truth(
  ours: int, theirs: int
):
  rng = np.random.default_rng(0)
  held = 0
  for _ in range(4000):
    own, other = rng.normal(0.5, 0.05, ours), rng.normal(0.5, 0.05, theirs)
    sem = other.std(ddof=1) / np.sqrt(theirs)
    pair = paper.Pair(
      name="a", evaluation="e", metric="m", num_seeds=theirs,
      paper=paper_settings.Stated(value=float(other.mean()), sem=float(sem)),
      ours=statistics.estimate(dict(enumerate(own))),
    )  # fmt: skip
    held += pair.difference.includes_zero
  assert 0.94 < held / 4000 < 0.985


def test_what_is_beside_a_paper_is_counted():
  block = paper.Block(
    column=("e", "m"),
    is_contrast=False,
    is_share=True,
    pairs=(_pair(None), _pair(0.3), _pair(None, is_measured=True)),
  )
  drawn = paper.Drawn(paper=paper_settings.Paper(source="s"), blocks=(block,))
  assert drawn.counts == (3, 3, 1)
  assert wording.beside(drawn) == (
    "3 of 3 numbers are measured here; the difference includes zero for 1 of 3; "
    "levels differ by 15.0 points on average."
  )
