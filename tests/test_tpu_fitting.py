"""A slice that a study does not fit is refused before it is made."""

import datetime
import json

import pytest

from msm_jax import experiment
from msm_jax.errors import UserError
from msm_jax.fit import case
from tpu import fitting, slices, study

STUDY = "configs/msm_cheese.py"


@pytest.fixture(scope="module")
def config():
  return study.load(STUDY, [])


def said(config, slice_, workdir, arm=None):
  lines = []
  fitting.check(config, slices.parse(slice_), str(workdir), lines.append, arm)
  return lines


def test_of_one_arm_only_its_own_stages_are_asked_about(config):
  (line,) = said(config, "v5p-8", "", "aft")
  assert line.startswith("fit: aft on v5p:2x2x1: ")
  assert said(config, "v5e-1", "", "base") == ["fit: --arm=base trains nothing"]


def test_a_slice_that_is_too_small_is_refused_with_the_smallest_that_may_do(
  config, tmp_path
):
  with pytest.raises(
    UserError, match=r"v5e:1x1 does not hold .* at least 1.* of 15.8 "
  ):
    said(config, "v5e-1", tmp_path)
  with pytest.raises(UserError, match=r"take --slice=v5e-4, .*\(--skip_fit goes on"):
    said(config, "v5e-1", tmp_path)
  larger = study.load(STUDY, ["--config.mesh.fsdp=4"])
  assert any("nothing speaks against it" in line for line in said(larger, "v5e-4", ""))


def test_a_mesh_that_does_not_suit_the_slice_comes_with_the_flags_that_do(
  config, tmp_path
):
  with pytest.raises(UserError, match=r"add --config\.mesh") as caught:
    said(config, "v6e-16", tmp_path)
  flags = str(caught.value).partition(": add ")[2].split()
  assert said(study.load(STUDY, flags), "v6e-16", tmp_path)


def test_what_fit_found_in_the_workdir_counts(config, tmp_path):
  cases = case.find(experiment.parse(dict(config)), tmp_path)
  (tmp_path / "fit").mkdir()
  for number, each in enumerate(cases):
    found = {
      "identity": each.identity(),
      "topology": "v5p:2x2x1",
      "num_slices": 1,
      "fits": number > 0,
      "problem": None,
      "compiler": "libtpu 1",
      "made": datetime.datetime(2026, 11, 1).isoformat(),
    }
    (tmp_path / "fit" / f"{number}.json").write_text(json.dumps(found))
  with pytest.raises(UserError, match=r"as `fit` found on 2026-11-01 .*0.json"):
    said(config, "v5p-8", tmp_path)
  path = tmp_path / "fit" / "0.json"
  path.write_text(path.read_text().replace('"fits": false', '"fits": true'))
  lines = said(config, "v5p-8", tmp_path)
  assert len(lines) == len(cases)
  assert all("fits, as `fit` found on 2026-11-01 (libtpu 1)" in line for line in lines)
  # Of another slice they say nothing.
  other = study.load(STUDY, ["--config.mesh.fsdp=1"])
  assert all("nothing speaks against it" in line for line in said(other, "v6e-1", ""))
