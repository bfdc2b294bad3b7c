"""The plan of a whole study: steps before generation, hours, graders, the total."""

import dataclasses
import json
import re

import planned
import pytest
import small_study

from configs import msm_cheese
from data_gen import settings, spending
from data_gen.planning import estimates, grading, tree
from data_gen.planning.volume import Volume
from msm_jax import experiment, graded, hardware, metrics, prepare, tokenizer
from msm_jax.errors import UserError
from msm_jax.evals import judge
from msm_jax.planning import hours, sizes


@dataclasses.dataclass
class Size:
  num_records: int
  volume: Volume


@pytest.mark.parametrize(
  ("fields", "name", "number", "peak"),
  [
    ({"slice": "v5p:2x2x1"}, "v5p:2x2x1", 4, 459e12),
    ({"slice": "v5litepod-16", "num_slices": 2}, "2 x v5e:4x4", 32, 197e12),
    ({"slice": "h100:8"}, "h100:8", 8, metrics.PEAK_FLOPS["NVIDIA H100"]),
    ({"slice": "a100"}, "a100", 1, metrics.PEAK_FLOPS["NVIDIA A100"]),
    ({"slice": "mine:2", "peak_flops_per_chip": 1e12}, "mine:2", 2, 1e12),
    ({"slice": "v6e:2x2", "peak_flops_per_chip": 1e12}, "v6e:2x2", 4, 1e12),
  ],
)
def test_hardware_is_named_as_people_name_it(fields, name, number, peak):
  chips = hardware.parse(fields).chips()
  assert (chips.name, chips.number, chips.peak_flops) == (name, number, peak)


@pytest.mark.parametrize(
  ("fields", "said"),
  [
    ({"slice": "v5p"}, "is a family: name one of its slices, as v5p:2x2x1"),
    ({"slice": "v5p:3x3x3"}, "config.hardware.slice=v5p:3x3x3: slices of v5p are"),
    ({"slice": "mine:2"}, "set config.hardware.peak_flops_per_chip too"),
    ({"slice": "h100:many"}, "config.hardware.slice=h100:many"),
    ({"slice": "h100:8", "mfu": 40}, r"mfu \(40\) must be above 0, and at most 1"),
    ({"slice": "h100:8", "dollars_per_chip_hour": -1}, "must be a number"),
    ({"slice": "h100:8", "num_slices": 0}, "num_slices .0. must be"),
    ({"slice": "h100:8", "mfuu": 1}, "mfuu is not a field .*'mfu'"),
  ],
)
def test_hardware_that_cannot_be_is_refused_with_the_field(fields, said):
  config = small_study.config("models/x") | {"hardware": fields}
  with pytest.raises(UserError, match=said):
    experiment.parse(config)


def test_hours_are_flops_over_what_the_chips_give():
  given = hardware.Hardware(slice="h100:2", mfu=0.5, decode_mfu=0.01)
  peak = 2 * metrics.PEAK_FLOPS["NVIDIA H100"]
  work = hours.Work(
    name="", about="", flops=peak * 1800, drawn_flops=peak * 36, drawn_tokens=7200
  )
  assert work.hours(given, given.chips()) == pytest.approx(2.0)
  measured = dataclasses.replace(given, eval_tokens_per_sec=2.0)
  assert work.hours(measured, given.chips()) == pytest.approx(2.0)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
  root = tmp_path_factory.mktemp("planned")
  config = small_study.config(small_study.write_model(root))
  return small_study.prepared(root / "w", config)


def test_steps_are_estimated_as_prepare_then_finds_them(prepared, tmp_path):
  tok = tokenizer.load(prepared.workdir / "tokenizer")
  texts = [row["text"] for row in small_study.documents(0)]
  mean = sum(len(tok.encode(text).ids) for text in texts) / len(texts)
  corpora = {"msm": Size(len(texts), Volume(tokens=mean, targets=mean))}
  stage = prepared.experiment.stages["msm"]
  found = sizes.length(stage, tmp_path, corpora)
  exact = prepare.read_rows_manifest(prepared.workdir, "msm")["num_train_steps"]
  assert not found.is_exact and abs(found.steps - exact) <= 1
  assert sizes.length(stage, prepared.workdir, corpora).steps == exact
  assert sizes.length(stage, prepared.workdir, corpora).is_exact
  assert sizes.length(stage, tmp_path, {}) is None


def test_a_dose_is_estimated_by_its_own_size_and_too_few_steps_are_told(tmp_path):
  config = small_study.config("models/x")
  data = {"corpus": "msm", "num_documents": 10}
  config["stages"]["msm"] |= {"data": (data,), "num_epochs": None, "min_steps": 5}
  stage = experiment.parse(config).stages["msm"]
  corpora = {"msm": Size(60, Volume(tokens=64.0, targets=64.0))}
  found = sizes.length(stage, tmp_path, corpora)
  assert found.steps == 3 and "3 optimizer steps are fewer than" in found.problem
  words = dataclasses.replace(stage.data[0], num_documents=None, num_target_tokens=320)
  part = dataclasses.replace(words, train_on="assistant")
  chats = {"msm": Size(60, Volume(tokens=64.0, targets=16.0))}
  found = sizes.length(dataclasses.replace(stage, data=(part,)), tmp_path, chats)
  assert found.steps == 5 and not found.problem


def test_training_hours_count_every_run_by_the_flops_of_the_mfu(prepared):
  given = prepared.experiment
  lengths = {
    name: sizes.length(stage, prepared.workdir, {})
    for name, stage in given.stages.items()
  }
  found = {w.name: w for w in hours.training(given, prepared.workdir, lengths)}
  cfg = prepared.cfg(("msm",), 0)
  per_token = cfg.flops_per_token(32, train_base=False)
  tokens = lengths["msm"].steps * 8 * 32
  assert found["msm"].flops == pytest.approx(tokens * per_token)
  assert "1 run x" in found["msm"].about and not found["msm"].mark


def test_a_fresh_plan_of_the_cheese_study_ends_with_a_whole(tmp_path, monkeypatch):
  for key in ("GEMINI_API_KEY", "GOOGLE_API_KEY"):
    monkeypatch.delenv(key, raising=False)
  config = msm_cheese.get_config().to_dict()
  config["hardware"] = {"slice": "v5p:2x2x1", "dollars_per_chip_hour": 4.2}
  job, given = settings.job(config), experiment.parse(config)
  workdir = tmp_path / "w"
  corpora = estimates.plan(job, workdir)
  costs = tree.whole(job, workdir, corpora)
  lines = planned.lines(given, workdir, corpora, costs)
  assert not workdir.exists()
  table = [line.split() for line in lines if re.match(r"\w+ +~?\d+ steps", line)]
  steps = {name: number for name, number, *_ in table}
  assert all(steps[name].startswith("~") for name in given.stages)
  assert 100 < int(steps["msm_aff"][1:]) < 400
  total = re.fullmatch(
    r"total: \$([\d.]+) for the teacher and graders, ~([\d.]+)M tokens of training, "
    r"~([\d.]+) h on v5p:2x2x1 \(4 chips\) at MFU 0.40: \$([\d.]+) at \$4.20 per "
    r"chip-hour",
    lines[-1],
  )
  api, tokens, took, rent = map(float, total.groups())
  assert api == pytest.approx(costs.dollars(), abs=0.01) and 100 < tokens < 400
  assert rent == pytest.approx(took * 4 * 4.2, rel=0.03)
  (fit,) = [line for line in lines if line.startswith("fit:")]
  assert "v5p:2x2x1 has 383 GiB" in fit and "--topology=v5p:2x2x1" in fit


def test_a_base_that_another_study_has_yet_to_train_is_said_and_the_plan_goes_on(
  tmp_path,
):
  base = str(tmp_path / "tiny" / "runs" / "pretrain" / "seed{seed}")
  given = experiment.parse(small_study.config(base, base_model=None))
  corpora = {"msm": Size(60, Volume(tokens=12.0, targets=12.0))}
  corpora["still"] = corpora["msm"]
  lines = planned.lines(given, tmp_path, corpora)
  assert any("is not there yet: parameters, memory and hours" in line for line in lines)
  assert lines[-1].startswith("total: $0.00 for the teacher and graders, ~0.0M tokens")


def analysed(tmp_path, max_extracted=7):
  config = small_study.config("models/x")
  config["judge"] = {"client": "openai", "model": "gpt-5-mini", "max_concurrency": 4}
  talk = {"type": "coherence", "items": "everyday", "max_items": 5, "num_samples": 1}
  talk |= {"max_new_tokens": 50, "batch_size": 4, "temperature": 0.0}
  config["evals"] = {"talk": talk}
  config["analyses"] = {
    "why": {
      "type": "reasoning_patterns",
      "evaluations": ("talk",),
      "start": None,
      "max_extracted": max_extracted,
      "max_patterns": 3,
    }
  }
  return experiment.parse(config), config


def test_what_analyses_ask_is_counted(tmp_path, monkeypatch):
  monkeypatch.setenv("OPENAI_API_KEY", "no real key")
  given, config = analysed(tmp_path)
  asked, unknown = graded.plan(given, config, tmp_path, {})
  assert not unknown
  found = {one.stage: one for one in asked if one.evaluation == "why (analysis)"}
  transcripts = len(given.arms) * 5
  assert found["pattern_present"].requests == transcripts
  assert found["pattern_reasons"].requests == 7
  assert found["pattern_groups"].requests == 1
  assert {one.answered for one in found.values()} == {0}
  for arm in given.arms:
    path = tmp_path / "evals" / f"why.{arm}.seed0.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("")
  asked, _ = graded.plan(given, config, tmp_path, {})
  assert all(one.answered == one.requests for one in asked if "why" in one.evaluation)


def test_without_a_limit_reasons_are_extracted_from_every_transcript(
  tmp_path, monkeypatch
):
  monkeypatch.setenv("OPENAI_API_KEY", "no real key")
  given, config = analysed(tmp_path, max_extracted=None)
  asked, _ = graded.plan(given, config, tmp_path, {})
  (reasons,) = [one for one in asked if one.stage == "pattern_reasons"]
  assert reasons.requests == len(given.arms) * 5


def test_what_the_ledger_has_of_an_unfinished_evaluation_is_not_paid_again(tmp_path):
  path = spending.grader_ledger(tmp_path)
  path.parent.mkdir(parents=True)
  rows = [
    {
      "stage": "coherence",
      "status": "ok",
      "client": {"model": "gpt-5-mini"},
      "usage": {"prompt_tokens": 9, "response_tokens": 1, "thought_tokens": 0},
      "prompt_hash": str(i // 2),  # each was asked again, as it could not be read
      "sample_index": i % 2,
    }
    for i in range(8)
  ]
  path.write_text("".join(json.dumps(row) + "\n" for row in rows))
  client = settings.ClientSettings(client="openai", model="gpt-5-mini")
  job = settings.Job(corpora={}, judge=client)

  def ask(name, requests, answered):
    return grading.Asked(
      evaluation=name,
      about="",
      role="judge",
      stage="coherence",
      directory=judge.PROMPTS,
      requests=requests,
      answered=answered,
      fields={},
      response_tokens=10,
    )

  asked = [ask("done", 1, 1), ask("begun", 2, 0), ask("next", 5, 0)]
  left = {cost.name: cost.requests for cost in grading.costs(job, tmp_path, asked)}
  assert left == {"done": 0, "begun": 0, "next": 4}


def test_small_figures_are_told_in_small_units():
  assert hours.hours_said(2.0) == "2.0 h" and hours.hours_said(0.5) == "30.0 min"
  assert hours.hours_said(0.001) == "3.6 s" and hours.flops_said(2e18) == "2 EFLOP"
