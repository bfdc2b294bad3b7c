"""The factorial studies of Specs and framings: all pairs, all numbers of the paper."""

import itertools

import pytest

from configs import framing, spec_science
from data_gen import settings
from msm_jax import experiment
from msm_jax.report import settings as report_settings

ARGUMENTS = list(spec_science.TITLES)


def parsed(found):
  """Returns what the report sees of a config, all of which is checked."""
  plain = found.to_dict()
  settings.job(plain)
  experiment.parse(plain)
  return report_settings.from_config(plain)


@pytest.mark.parametrize("arg", ARGUMENTS)
def test_all_specs_meet_in_all_pairs_with_and_without_thoughts(arg):
  report = parsed(spec_science.get_config(arg))
  labels = "gs" if arg and "general" in arg else ("r", "v", "rr")
  pairs = {
    (f"msm_{m}", f"aft_{a}{cot}")
    for m, a, cot in itertools.product(labels, labels, ("", "_cot"))
  }
  paths = set(report.arms.values())
  assert {path for path in paths if len(path) == 2} == pairs
  assert {path for path in paths if len(path) == 1} == {(s,) for p in pairs for s in p}
  # Every arm stands in a grid; those without alignment in both.
  placed = [p.arm for grid in report.grids for row in grid.cells for p in row]
  assert set(placed) == set(report.arms)
  assert len(placed) == 2 * (len(labels) + 1) ** 2


@pytest.mark.parametrize("arg", [arg for arg in ARGUMENTS if "tiny" not in str(arg)])
def test_the_paper_has_a_number_for_every_arm(arg):
  report = parsed(spec_science.get_config(arg))
  (paper,) = report.papers
  agents = {arm for arm, *column in paper.values if column == list(spec_science.AGENTS)}
  assert agents == set(report.arms)
  assert all(0 <= stated.value <= 1 for stated in paper.values.values())


def test_the_three_rule_specs_differ_in_what_they_are_and_not_in_size():
  corpora = spec_science.get_config().corpora
  assert [corpora[f"msm_{key}"].spec_type for key in ("r", "v", "rr")] == [
    "rules", "prose", "rules",
  ]  # fmt: skip
  for key in ("v", "rr"):
    assert corpora[f"msm_{key}"].match_tokens_of == "msm_r"
    assert corpora[f"msm_{key}"].match_types_of == "msm_r"


@pytest.mark.parametrize("arg", [None, "tiny"])
def test_every_framing_is_a_rewrite_of_the_same_documents(arg):
  found = framing.get_config(arg)
  report = parsed(found)
  assert len(report.arms) == 2 + 2 * len(framing.ARMS)
  for name in framing.FRAMINGS:
    assert found.corpora[name].of == "original"
  assert len(report.papers) == (arg is None)
  for paper in report.papers:
    assert {arm for arm, *_ in paper.values} == set(report.arms)


@pytest.mark.parametrize("module", [framing, spec_science])
def test_an_argument_that_is_none_is_refused(module):
  with pytest.raises(ValueError, match=r"configs/\w+.py:huge"):
    module.get_config("huge")
