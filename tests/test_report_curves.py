"""Doses, equivalent data, Pareto fronts and a paper's numbers."""

import math

import numpy as np
import pytest
import report_doses

from msm_jax.errors import UserError
from msm_jax.report import curve_plots, curves, paper, pareto, settings, statistics
from msm_jax.report.curve_settings import Axis, Pareto
from msm_jax.report.paper_settings import Stated
from msm_jax.report.results import Results


def _line(levels: dict[float, list[float]]) -> list[curves.Point]:
  """Returns points of doses -> level by seed."""
  return [
    curves.Point(
      arm=f"arm{dose}",
      dose=dose,
      estimate=statistics.estimate(dict(enumerate(values))),
    )
    for dose, values in levels.items()
  ]


def test_the_ratio_is_the_shift_of_a_line_on_a_log_axis():
  """Both rise by 0.1 a doubling; the line with is 3 doublings ahead."""
  doses = [1000 * 2**i for i in range(8)]
  without = _line({d: [0.1 * math.log2(d / 1000)] * 3 for d in doses})
  with_ = _line({d: [0.1 * (math.log2(d / 1000) + 3)] * 3 for d in doses[:4]})
  found = curves.equivalent(with_, without, higher=True)
  assert [ratio.status for ratio in found] == ["found"] * 4
  assert [ratio.value for ratio in found] == pytest.approx([8.0] * 4)
  assert all(ratio.interval == pytest.approx((8.0, 8.0)) for ratio in found)


def test_lower_may_be_better():
  without = _line({1000.0: [0.8] * 3, 4000.0: [0.4] * 3})
  with_ = _line({1000.0: [0.6] * 3})
  (found,) = curves.equivalent(with_, without, higher=False)
  assert (found.status, found.level) == ("found", pytest.approx(0.6))
  assert found.value == pytest.approx(2.0)  # half way in the log


def test_a_level_that_no_dose_reaches_is_not_reached_and_has_a_lower_bound():
  without = _line({1000.0: [0.2] * 3, 16000.0: [0.5] * 3})
  (found,) = curves.equivalent(_line({2000.0: [0.9] * 3}), without, higher=True)
  assert (found.status, found.value) == ("not reached", 8.0)
  assert found.share_reached == 0 and found.interval == (math.inf, math.inf)
  assert found.to_json()["interval"] == [None, None]
  assert curve_plots.ratio_text(found) == "not reached: more than 8 times"


def test_a_level_that_the_smallest_dose_or_none_has_gives_an_upper_bound():
  for zero in ({}, {0.0: [0.95] * 3}):
    without = _line(zero | {1000.0: [0.9 - 0.5 * bool(zero)] * 3, 2000.0: [1.0] * 3})
    (found,) = curves.equivalent(_line({4000.0: [0.5] * 3}), without, higher=True)
    assert (found.status, found.value) == ("below", 0.25)


def test_draws_that_never_reach_the_level_are_in_the_interval():
  without = _line({1000.0: [0.1] * 4, 9000.0: [0.2, 0.9, 0.8, 0.9]})
  (found,) = curves.equivalent(_line({1000.0: [0.6] * 4}), without, higher=True)
  assert found.status == "found" and 0 < found.share_reached < 1
  assert found.interval[1] == math.inf and found.interval[0] > 1
  assert "not reached]" in curve_plots.bounds_text(found)


def test_two_seeds_have_a_ratio_and_no_interval():
  without = _line({1000.0: [0.1, 0.2], 9000.0: [0.9, 0.8]})
  (found,) = curves.equivalent(_line({1000.0: [0.6, 0.5]}), without, higher=True)
  assert found.value is not None and found.interval is None
  assert curve_plots.bounds_text(found) == "no interval (2 of 3 seeds)"


def test_seeds_that_one_arm_lacks_do_not_count_and_no_seed_gives_no_result():
  without = _line({1000.0: [0.1, 0.2, 0.1], 9000.0: [0.9, 0.8]})
  (found,) = curves.equivalent(_line({1000.0: [0.5] * 3}), without, higher=True)
  assert found.num_seeds == 2
  (none,) = curves.equivalent(_line({1000.0: [0.5] * 3}), _line({}), higher=True)
  assert (none.status, none.value) == ("no result", None)


def test_the_first_crossing_counts_where_a_line_goes_up_and_down():
  doses = np.array([0.0, 1.0, 10.0, 100.0, 1000.0])
  lines = np.array([[0.0, 0.1, 0.7, 0.2, 0.9]])
  found = curves.first_dose(doses, lines, np.array([0.4]))
  assert found[0] == pytest.approx(10**0.5)


def test_doses_are_read_from_the_rows_of_an_arms_stages():
  config = settings.from_config(report_doses.config())
  part = {"corpus": "chats", "num_tokens": 100, "epochs": 2.5, "count": 40}
  rows = {"aft_1000": {"components": [part, part | {"corpus": "replay"}]}}
  rows["msm"] = {"components": []}

  def dose(arm: str, unit: str) -> float | None:
    return curves.dose_of(arm, unit, ("chats",), config, rows)

  assert (dose("aft_1000", "tokens"), dose("aft_1000", "rows")) == (250, 40)
  assert (dose("base", "tokens"), dose("msm", "tokens")) == (0, 0)
  assert dose("msm+aft_1000", "tokens") == 250
  assert dose("aft_4000", "tokens") is None  # not prepared
  assert dose("aft_1000", "target_tokens") is None  # not counted


def test_an_arm_is_on_the_front_unless_another_is_no_worse_on_both():
  plot = Pareto(title="t", x=Axis(better="lower"), y=Axis(better="higher"))
  values = {"a": (1, 5), "b": (2, 5), "c": (3, 9), "d": (1, 5), "e": (None, 9)}
  sides = {
    arm: tuple(pareto.Side(value=v, interval=None) for v in pair)
    for arm, pair in values.items()
  }
  beaten = {arm: pareto.beaten_by(plot, arm, sides) for arm in values}
  assert beaten == {"a": (), "b": ("a", "d"), "c": (), "d": (), "e": ()}
  lost = pareto.Place(arm="e", x=sides["e"][0], y=sides["e"][1], beaten_by=())
  assert not lost.is_on_front


def test_ours_minus_the_papers_keeps_our_interval():
  ours = statistics.estimate({0: 0.5, 1: 0.6, 2: 0.55})
  stated = Stated(value=0.4)
  pair = paper.Pair(name="a", evaluation="e", metric="m", paper=stated, ours=ours)
  found = pair.difference
  assert found.mean == pytest.approx(0.15)
  assert found.interval == pytest.approx(tuple(b - 0.4 for b in ours.interval))
  assert pair.to_json()["includes_paper"] is False
  config = settings.from_config(report_doses.config())
  (drawn,) = (paper.read(each, Results(), config) for each in config.papers)
  assert [pair.difference.mean for pair in drawn.pairs] == [None, None]
  assert not any(pair.is_measured for pair in drawn.pairs)


def _changed(section: str, **fields) -> dict:
  config = report_doses.config()
  first = config["report"][section]
  (first if isinstance(first, dict) else first[0]).update(fields)
  return config


@pytest.mark.parametrize(
  ("section", "fields", "message"),
  [
    ("curves", {"metrik": 1}, r"curves\[0\]\.metrik .* did you mean 'metric'"),
    ("curves", {"better": "up"}, r"better is 'up': say 'higher' or 'lower'"),
    ("curves", {"lines": [["a", ["aft_9"]]]}, "line 'a' names the arm 'aft_9'"),
    ("curves", {"compare": ["x", "AFT alone"]}, "names the line 'x', it has MSM"),
    ("curves", {"corpora": []}, r"has no doses: give \(arm, dose\)"),
    ("curves", {"unit": "steps"}, "unit is 'steps': rows are counted in tokens"),
    ("pareto", {"arms": ["nobody"]}, r"pareto\[0\] names the arm 'nobody'"),
    ("pareto", {"y": {"better": "lower", "metric": "m"}}, "both evaluation and metric"),
    ("paper", {"values": [["base", "harm", 0.1]]}, "each needs 4 or 5 parts"),
    ("paper", {"values": [["base", "harm", "decided", None]]}, "None is no number"),
  ],
)
def test_a_wrong_field_is_named(section: str, fields: dict, message: str):
  with pytest.raises(UserError, match=message):
    settings.from_config(_changed(section, **fields))


def test_a_typo_and_an_unknown_reference_are_named():
  config = report_doses.config()
  config["report"]["curve"] = ()
  with pytest.raises(UserError, match=r"config\.report\.curve .* 'curves'"):
    settings.from_config(config)
  config = report_doses.config()
  config["report"]["reference"] = "bass"
  with pytest.raises(UserError, match="reference names the arm 'bass'"):
    settings.from_config(config)
