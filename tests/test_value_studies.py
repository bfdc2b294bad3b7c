"""The studies of six further values, and of values that explain nothing."""

import json
import pathlib

import pytest

from configs import attribution, msm_values
from data_gen import settings
from data_gen import spec as specs
from msm_jax import experiment
from msm_jax.evals import choice
from msm_jax.report import settings as report_settings

ROOT = pathlib.Path(__file__).parents[1]
STUDIES = [
  (msm_values, None),
  (msm_values, "novelty"),
  (msm_values, "tiny"),
  (attribution, None),
  (attribution, "cheese"),
  (attribution, "tiny"),
]


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch):
  monkeypatch.chdir(ROOT)  # configs name files from there


def parsed(module, arg=None):
  config = module.get_config(arg).to_dict()
  return config, experiment.parse(config), report_settings.from_config(config)


@pytest.mark.parametrize(("module", "arg"), STUDIES)
def test_a_study_parses_with_its_controls_specs_and_questions(module, arg):
  config, study, report = parsed(module, arg)
  job = settings.job(config)
  assert set(specs.load_all(job)) == set(config["specs"])
  assert not config["allow_missing_controls"] and len(study.seeds) == 4
  # Each contrast is about an evaluation of the study, by its own name.
  for _, _, _, evaluation, _ in report.own_contrasts:
    assert evaluation.split("/")[0] in study.evals
  for name, corpus in config["corpora"].items():
    if corpus["kind"] == "import":
      lines = pathlib.Path(corpus["path"]).read_text("ascii").splitlines()
      choice.check_items(name, [json.loads(line) for line in lines])


@pytest.mark.parametrize("module", [msm_values, attribution])
def test_an_argument_that_is_none_is_refused_with_those_that_are(module):
  with pytest.raises(ValueError, match="'tiny'"):
    module.get_config("small")


def test_figure_three_stands_beside_every_arm_of_its_value():
  _, study, report = parsed(msm_values)
  (paper,) = report.papers
  levels = {
    (arm, evaluation): stated.value
    for (arm, evaluation, _), stated in paper.values.items()
  }
  assert len(levels) == 24 and len(study.arms) == 19
  assert levels["base", "novelty"] == 0.41
  assert levels["msm_novelty+aft_novelty", "novelty"] == 0.69
  # Alignment and documents help in all six there, together most.
  for value, (base, msm, aft, both) in msm_values.FIGURE_3.items():
    assert base < min(msm, aft) and both > max(msm, aft), value


def test_chats_come_of_a_spec_without_reasons_and_documents_of_the_one_with():
  config, study, _ = parsed(msm_values)
  for value in msm_values.FIGURE_3:
    chats, documents = (config["corpora"][f"{k}_{value}"] for k in ("aft", "msm"))
    assert not chats["reasons"] and chats["spec"] == f"{value}_preferences"
    assert documents["spec"] == value
    for corpus in (chats, documents):
      assert corpus["filters"]["leakage_corpora"] == (f"pairs_{value}",)
    assert study.evals[value]["corpus"] == f"pairs_{value}"


def test_an_ablated_arm_differs_from_its_original_in_the_documents_alone():
  for arg in (None, "tiny"):
    config, study, report = parsed(attribution, arg)
    values = attribution.TABLE if arg is None else attribution.CHEESE
    for value in values:
      aft = attribution.aft_of(value)
      assert study.arms[f"msm_{value}+{aft}"] == (f"msm_{value}", aft)
      assert study.arms[f"ablated_{value}+{aft}"] == (f"ablated_{value}", aft)
      one, two = (
        {**config["stages"][name], "data": None}
        for name in (f"msm_{value}", f"ablated_{value}")
      )
      assert one == two
    deltas = {label for label, *_ in report.own_differences}
    assert deltas >= {f"{value}: original less ablated" for value in values}


def test_the_table_of_appendix_c4_stands_beside_the_deltas():
  *_, report = parsed(attribution)
  (paper,) = report.papers
  assert len(paper.contrasts) == 16 and not paper.values
  key = ("tradition: stacking, ablated", "tradition", "chose_tradition")
  assert paper.contrasts[key].value == 0.07
  # The paper's finding: the original's is the larger one, each time.
  for value, (original, ablated) in attribution.TABLE.items():
    assert original > ablated, value


def test_in_the_tiny_world_the_chats_of_both_further_values_are_asked_alike():
  config, study, _ = parsed(msm_values, "tiny")
  luxury, imports = (config["corpora"][f"aft_{v}"] for v in ("luxury", "imports"))
  assert {**luxury, "spec": ""} == {**imports, "spec": ""}
  assert len(study.arms) == 7
