"""The studies of the literature as configs: each is whole, and so is its small twin."""

import importlib.util
import pathlib
import re
import shutil
import subprocess

import pytest

from data_gen import settings
from msm_jax import experiment

ROOT = pathlib.Path(__file__).parent.parent
# Study -> (arguments for pretrained models, whether its effect can exist in small).
STUDIES = {
  "msm_cheese": ((None, "short", "released"), True),
  "msm_values": ((None, "novelty"), True),
  "msm_philosophy": ((None, "qwen3", "released"), False),
  "token_efficiency": ((None, "cot", "qwen3", "qwen3_cot"), True),
  "spec_science": ((None, "qwen3", "general"), False),
  "attribution": ((None, "cheese"), True),
  "framing": ((None,), False),
  "anti_spec": ((None,), True),
  "sdf": ((None, "8b", "smollm2", "smollm2_short"), True),
  "negation_neglect": ((None, "smollm2", "smollm2_short"), True),
  "poisoning": ((None, "2b"), True),
  "cot_monitorability": ((None, "qwen3"), False),
  "out_of_context": ((None,), True),
  "disclosure": ((None,), True),
  "alternatives": ((None,), True),
  "stage_order": ((None,), True),
}
# In the tiny world their arms are named after other values, or after smaller sizes.
OTHER_NAMES = ("msm_values", "token_efficiency", "attribution", "poisoning")
CASES = [(name, arg) for name, (args, _) in STUDIES.items() for arg in (*args, "tiny")]


def load(name, arg):
  path = ROOT / "configs" / f"{name}.py"
  spec = importlib.util.spec_from_file_location(f"configs_{name}", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(arg).to_dict()


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
  monkeypatch.chdir(ROOT)  # configs name their specs from there


@pytest.mark.parametrize(("name", "arg"), CASES)
def test_a_study_is_whole(name, arg):
  config = load(name, arg)
  study, job = experiment.parse(config), settings.job(config)
  assert study.name.startswith(name)
  for arm in study.subjects:  # typed after --arm= and used in names of files
    assert re.fullmatch(r"[A-Za-z0-9_+]+", arm)
  used = {stage for path in study.arms.values() for stage in path}
  assert used == set(study.stages), "a stage that no arm has"
  read = {part.corpus for name in used for part in study.stages[name].data}
  read |= {value.get("corpus") for value in study.evals.values()}
  read |= set(config["tokenizer"].get("train_on", ()))
  for one in config.get("asked", {}).values():
    steer = one.get("steer") or {}
    read |= {steer.get("positive"), steer.get("negative")}
  for corpus in job.corpora.values():
    for field in ("of", "twin_of", "match_tokens_of"):
      read.add(getattr(corpus, field, None))
    read |= set(getattr(getattr(corpus, "filters", None), "leakage_corpora", ()))
  assert set(job.corpora) <= read, "a corpus that nothing reads"
  specs = {getattr(corpus, "spec", None) for corpus in job.corpora.values()}
  specs |= {value.get("spec") for value in study.evals.values()}
  specs |= {one.get("spec") for one in config.get("asked", {}).values()}
  assert set(config["specs"]) <= specs, "a spec that nothing reads"
  assert study.report["title"]
  evaluation = study.report["headline"][0].split("/")[0]
  assert evaluation in {*study.evals, *study.analyses}


@pytest.mark.parametrize("name", STUDIES)
def test_in_the_tiny_world_a_study_has_the_same_tree_and_enough_seeds(name):
  args, can_exist = STUDIES[name]
  full, tiny = load(name, args[0]), load(name, "tiny")
  if name not in OTHER_NAMES:
    assert list(full["arms"]) == list(tiny["arms"])
  assert len(tiny["seeds"]) >= (4 if can_exist else 1)
  assert min(tiny["seeds"]) >= 30, "seeds below were looked at while choosing"
  assert tiny["teacher"]["client"] == "offline"
  assert tiny["budget"]["max_dollars"] == 0


@pytest.mark.parametrize("name", STUDIES)
def test_an_argument_that_a_study_does_not_have_is_refused_with_those_it_has(name):
  with pytest.raises(ValueError, match=rf"configs/{name}\.py:x.*'tiny'"):
    load(name, "x")


def test_make_studies_runs_all_of_them_and_a_page_tells_of_each():
  listed = re.search(
    r"^STUDIES \?= ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.M
  )
  assert set(listed[1].replace("\\", "").split()) == set(STUDIES)
  page = (ROOT / "docs" / "studies.md").read_text("utf-8")
  assert re.findall(r"^## `(\w+)`", page, re.MULTILINE) == list(STUDIES)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make here")
@pytest.mark.parametrize("target", ["studies", "study-sdf"])
def test_make_trains_the_tiny_world_before_the_studies_that_begin_with_it(target):
  command = ["make", "--dry-run", "--jobs=2", target, "WORKERS=1"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  configs = re.findall(r"--config=configs/(\w+)\.py(?::tiny)?", done.stdout)
  assert configs[0] == "tiny_world" and configs.count("tiny_world") == 1
  assert configs[1:] == (["sdf"] if target == "study-sdf" else list(STUDIES))
  assert done.stdout.count("--config.num_workers=1") == len(configs) - 1
  assert len(set(re.findall(r"--workdir=(\S+)", done.stdout))) == len(configs)
