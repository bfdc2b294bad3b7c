"""Contrasts on evaluations of their own, grids of two factors, numbers of papers."""

import json
import pathlib
from typing import Any

import numpy as np
import pytest
import report_factors

from msm_jax import report
from msm_jax.errors import UserError
from msm_jax.report import (
  contrasts,
  factorial,
  grid_plots,
  results,
  settings,
  statistics,
)

_ENV = report_factors.VALUES["env"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  directory = report_factors.make(tmp_path_factory.mktemp("factors"))
  report.build(directory)
  return directory


@pytest.fixture(scope="module")
def config() -> settings.Settings:
  return settings.from_config(report_factors.config())


@pytest.fixture(scope="module")
def found(study: pathlib.Path, config: settings.Settings) -> results.Results:
  return results.load(study, config)


@pytest.fixture(scope="module")
def summary(study: pathlib.Path) -> dict[str, Any]:
  return json.loads((study / "report" / "summary.json").read_text())


@pytest.fixture(scope="module")
def page(study: pathlib.Path) -> str:
  return (study / "report" / "index.html").read_text("utf-8")


# Contrasts on evaluations of their own


def test_an_own_contrast_is_the_general_one_on_its_column(found, config):
  own = {each.label: each for each in contrasts.own(found, config)}
  one = own["env: stacking on values"]
  a, b = (found.by_seed(arm, *_ENV) for arm in (one.a, one.b))
  assert one.estimate.values == pytest.approx({s: a[s] - b[s] for s in range(4)})
  assert (one.evaluation, one.metric, one.is_share) == (*_ENV, True)
  general = report_factors.config()
  general["report"]["contrasts"] = [["same", one.a, one.b]]
  general["report"]["differences"] = general["report"]["paper"] = []
  (same,) = contrasts.compare(found, settings.from_config(general), *_ENV)
  assert same.estimate == one.estimate


def test_differences_of_own_contrasts_are_paired_on_their_columns(found, config):
  own = {each.label: each for each in contrasts.own(found, config)}
  values = {label: each.estimate.values for label, each in own.items()}
  added = own["env: what attribution adds"]
  for seed in range(4):
    by_hand = values["env: stacking on values"][seed]
    by_hand -= values["env: stacking on rules"][seed]
    assert added.estimate.values[seed] == pytest.approx(by_hand)
  assert added.evaluation == "preference/env" and added.is_difference
  both = own["two values"]
  assert both.evaluation == "preference/env - preference/new"
  # A general contrast is taken where the own one is.
  mixed = own["own and general"]
  on_env = found.difference("aft_rules", "base", *_ENV).values
  expected = {s: values["env: stacking on values"][s] - on_env[s] for s in range(4)}
  assert mixed.estimate.values == pytest.approx(expected)
  assert mixed.evaluation == "preference/env"


def test_own_contrasts_are_said_shown_and_kept_once_each(found, config, summary, page):
  sentences = summary["headline"]["sentences"]
  assert sentences[0].startswith("On harm, decided: aft_rules ")
  (said,) = [s for s in sentences if "Env: stacking on values (" in s]
  assert said.startswith("On preference/env, chose_env: Env: stacking on values (")
  rows = [r for r in summary["contrasts"] if r["label"] == "env: stacking on rules"]
  assert [(r["evaluation"], r["metric"]) for r in rows] == [_ENV]
  assert len([r for r in summary["contrasts"] if r["label"] == "alignment"]) == 3
  assert "<h3>On evaluations of their own</h3>" in page
  assert "preference/env, chose_env</small>" in page
  assert config.controls == tuple(
    arm for arm in config.arms if "values" not in arm and "rules" not in arm
  )[1:] + tuple(
    arm
    for arm in config.arms
    if arm in ("aft_values", "msm_rules+aft_values", "msm_values+aft_values")
  )


def test_a_study_of_own_contrasts_alone_has_a_headline_and_folds_many(
  tmp_path: pathlib.Path,
):
  directory = report_factors.make(tmp_path, num_seeds=1)
  study = report_factors.config(1)
  study["report"] = {
    "headline": list(_ENV),
    "contrasts": [
      ["elsewhere", "aft_rules", "base", *report_factors.HARM],
      ["environment", "msm_values", "base", *_ENV],
      *([f"again {i}", "msm_rules", "base", *_ENV] for i in range(12)),
    ],
    "grids": study["report"]["grids"][2:],
    "paper": {"source": "s", "contrasts": [["environment", *_ENV, 0.05, 0.02]]},
  }
  text = report.build(directory, study=study).read_text("utf-8")
  written = json.loads((directory / "report" / "summary.json").read_text())
  first, *others = written["headline"]["sentences"]
  assert first.startswith("On preference/env, chose_env: msm_values ")
  starts = [line.split(":")[0] for line in others]
  assert starts == ["On harm, decided", *["On preference/env, chose_env"] * 13]
  assert "The config names no contrasts" not in text
  assert "<summary>3 more findings</summary>" in text
  # One seed: intervals within it for arms and contrasts, none for means of arms.
  (pair,) = written["paper"]
  low, high = pair["ours"]["interval"]
  assert pair["ours"]["unit"] == "answers"
  assert pair["difference_interval"][0] < low - 0.05 < high - 0.05
  assert written["grids"][0]["interaction"]["interval"] is None
  assert "(one seed has no interval for either)" in text


def test_a_difference_without_a_unit_is_refused(found):
  study = report_factors.config()
  report_section = study["report"]
  report_section["contrasts"].append(["loss", "msm_rules", "base", "held", "nats"])
  report_section["differences"] = [["odd", "env: stacking on values", "loss"]]
  report_section["paper"] = []
  odd = results.Results(values=dict(found.values), metrics=dict(found.metrics))
  odd.metrics["held"] = ["nats"]
  with pytest.raises(UserError, match=r"'odd'.*only one is a share"):
    contrasts.own(odd, settings.from_config(study))


# Grids


def test_a_grid_has_levels_means_and_effects_paired_by_seed(found, config, summary):
  drawn = factorial.read(config.grids[0], found, config)

  def level(msm: str, aft: str) -> dict[int, float]:
    return found.by_seed(report_factors.arm(msm, aft), *report_factors.HARM)

  levels = np.array(
    [
      [
        [
          found.by_seed(report_factors.arm(m, a), "harm", "decided")[s]
          for s in range(4)
        ]
        for a in report_factors.AFT
      ]
      for m in report_factors.MSM
    ]
  )  # rows, columns, seeds
  assert [cell.estimate.mean for cell in drawn.cells[1]] == pytest.approx(
    levels[1].mean(axis=-1)
  )
  values = drawn.rows["MSM values"]
  by_seed = levels[2].mean(axis=0)
  assert list(values.mean.values.values()) == pytest.approx(by_seed)
  effect = statistics.estimate(dict(enumerate(by_seed - levels[0].mean(axis=0))))
  assert values.effect.mean == pytest.approx(effect.mean)
  assert values.effect.interval == pytest.approx(effect.interval)
  column = drawn.columns["AFT rules"]
  assert column.effect.mean == pytest.approx((levels[:, 1] - levels[:, 0]).mean())
  assert drawn.rows["MSM none"].effect is None and drawn.interaction is None
  written = summary["grids"][0]
  assert written["row_marginals"]["MSM values"]["effect"]["mean"] == values.effect.mean
  assert written["cells"][0][0]["paper"] == 0.68
  assert written["cells"][0][1]["paper"] is None


def test_two_by_two_has_an_interaction(found, config, summary, page):
  drawn = factorial.read(config.grids[2], found, config)
  (a, b), (c, d) = (
    [np.array([*cell.estimate.values.values()]) for cell in row] for row in drawn.cells
  )
  expected = statistics.estimate(dict(enumerate((d - c) - (b - a))))
  assert drawn.interaction.mean == pytest.approx(expected.mean)
  assert drawn.interaction.interval == pytest.approx(expected.interval)
  assert summary["grids"][2]["interaction"]["mean"] == drawn.interaction.mean
  assert "Interaction, (MSM rules &minus; alone) with AFT rules minus (" in page


def test_cells_that_are_empty_or_not_measured_count_in_nothing(found, page):
  study = report_factors.config()
  grid = study["report"]["grids"][2]
  grid["cells"][0][1] = None
  config = settings.from_config(study)
  holed = factorial.read(config.grids[2], found, config)
  assert holed.interaction is None and holed.cells[0][1] is None
  assert holed.rows["alone"].num_cells == 1
  effect = holed.rows["MSM rules"].effect
  direct = found.difference("msm_rules", "base", *report_factors.HARM)
  assert effect.mean == pytest.approx(direct.mean)
  assert holed.rows["MSM rules"].num_pairs == 1
  gone = factorial.read(config.grids[1], found, config)
  assert not gone.cells[0][2].is_measured and gone.cells[0][2].paper.value == 0.4
  assert gone.rows["base"].num_cells == 2 and gone.columns["gone"].num_cells == 0
  assert gone.columns["gone"].mean.mean is None
  assert gone.to_json()["columns"][2] == "gone"
  assert page.count("not measured here") == 5 and "over 2 of 3" in page


def test_cells_without_a_common_unit_have_no_means(found):
  study = report_factors.config()
  grid = study["report"]["grids"][1]
  grid["cells"][0][0] = ["base", "held", "nats"]
  config = settings.from_config(study)
  odd = results.Results(values=dict(found.values), metrics=dict(found.metrics))
  odd.metrics["held"] = ["nats"]
  drawn = factorial.read(config.grids[1], odd, config)
  assert not drawn.has_unit and not drawn.is_measured and drawn.rows == {}


def test_a_wide_grid_is_turned_in_its_figure(found):
  study = report_factors.config()
  wide = {
    "title": "Wide", "evaluation": "harm", "metric": "decided",
    "rows": ["first row", "second row"], "columns": [f"column {i}" for i in range(6)],
    "cells": [["base"] * 6, ["msm_rules"] * 6],
  }  # fmt: skip
  for columns in (6, 5):
    wide["columns"] = wide["columns"][:columns]
    wide["cells"] = [row[:columns] for row in wide["cells"]]
    study["report"]["grids"] = [wide]
    config = settings.from_config(study)
    drawn = factorial.read(config.grids[0], found, config)
    svg = grid_plots.grid_plot("wide", drawn).svg
    # Labels of the axis stand before the legend's.
    assert (svg.index("column 0") < svg.index("first row")) == (columns == 6)


def test_a_seed_that_one_cell_lacks_is_out_of_the_means(found, config):
  holed = results.Results(
    values={
      key: value
      for key, value in found.values.items()
      if key[:2] != ("msm_rules", 2)
    },
    metrics=found.metrics,
  )  # fmt: skip
  drawn = factorial.read(config.grids[0], holed, config)
  assert list(drawn.rows["MSM rules"].mean.values) == [0, 1, 3]
  assert list(drawn.rows["MSM values"].effect.values) == [0, 1, 2, 3]
  assert list(drawn.columns["AFT none"].mean.values) == [0, 1, 3]


# Papers


def test_several_papers_stand_beside_levels_and_contrasts(found, config, summary, page):
  pairs = summary["paper"]
  assert [pair.get("arm", pair.get("contrast")) for pair in pairs] == [
    *("base", "msm_values+aft_rules", "base"),
    *("env: what attribution adds", "new: what attribution adds"),
    *("alignment", "alignment"),
  ]
  own = {each.label: each for each in contrasts.own(found, config)}
  added = own["env: what attribution adds"].estimate
  assert pairs[3]["difference"] == pytest.approx(added.mean - 0.11)
  assert pairs[3]["ours"]["interval"] == list(added.interval)
  assert pairs[3]["paper_sem"] == 0.03
  general = found.difference("aft_rules", "base", "harm", "decided")
  assert pairs[5]["difference"] == pytest.approx(general.mean + 0.05)
  assert [p["is_measured"] for p in pairs] == [
    True,
    True,
    False,
    True,
    True,
    True,
    False,
  ]
  assert pairs[2]["difference"] is None
  assert "<h3>Figure 14</h3>" in page and "<h3>App. C.4</h3>" in page
  assert "2 of 3 numbers are measured here" in page
  assert "<small> &plusmn; 2.0</small>" in page
  assert "Student&#39;s t for its 4 seeds" in page


# What a config can get wrong


def _grid(**fields) -> dict[str, Any]:
  return {"grids": [report_factors.config()["report"]["grids"][2] | fields]}


def _paper(**fields) -> dict[str, Any]:
  return {"paper": {"source": "s", "values": [["base", "e", "m", 1]]} | fields}


@pytest.mark.parametrize(
  ("section", "message"),
  [
    (
      {"contrasts": [["x", "base", "aft_rules", "harm"]]},
      "an evaluation and metric of",
    ),
    ({"contrasts": [["x", "base", "nobody", "e", "m"]]}, "names the arm 'nobody'"),
    (_grid(rows=["a"]), r"cells has 2 rows, but .*\.rows has 1 labels"),
    (_grid(columns=["a", "a"]), r"columns has 'a' twice"),
    (_grid(columns=["a", "b", "c"]), "row 'alone' is .*: give 3 cells"),
    (_grid(cells=[["base", "x"], [None, None]]), "names the arm 'x'"),
    (_grid(cells=[["base", ["base", "e"]], [None, None]]), r"it is an arm, \(arm"),
    (_grid(metric=None), "both evaluation and metric, or neither"),
    (_grid(metric=None, evaluation=None), "the grid has no evaluation and metric"),
    (_grid(title="t", rows=[]), r"rows is empty"),
    (_grid(row=1), r"grids\[0\]\.row .* did you mean 'rows'"),
    (_paper(num_seeds=1), "num_seeds is 1: how many seeds, two or more"),
    (_paper(values=[["base", "e", "m", 1, -0.1]]), "standard error -0.1 is below zero"),
    (_paper(values=[["base", "e", "m", 1]] * 2), "two numbers on e m"),
    (_paper(values=[]), "neither values nor contrasts"),
    (_paper(contrasts=[["x", "e", "m", 1]]), "names the contrast 'x'"),
    (
      _paper(contrasts=[["env: stacking on rules", "harm", "decided", 1]]),
      "is about harm decided, but that contrast is on preference/env chose_env alone",
    ),
  ],
)
def test_a_wrong_field_is_named(section: dict, message: str):
  study = report_factors.config()
  if "contrasts" in section:
    study["report"] |= {"differences": [], "paper": []}
  study["report"] |= section
  with pytest.raises(UserError, match=message):
    settings.from_config(study)
