"""Will it fit on a TPU: what is one case, what is kept, and what the plan repeats."""

import dataclasses
import json

import jax
from fit_cases import TOY, Compiler, case_of, cheese, run_search
from planned import lines as plan_lines

from msm_jax import records
from msm_jax.fit import (
  case,
  estimate,
  report,
  search,
  step,
  topology,
)
from msm_jax.hf import config as hf_config
from msm_jax.models.config import LoraConfig


def test_what_is_found_is_said_and_kept_for_plan(tmp_path):
  found = run_search(case_of(), "v5e:4x4", Compiler())
  lines = list(report.best_lines(found, "libtpu 1"))
  assert lines[0].startswith("v5e:4x4 holds msm: ")
  assert any("--config.stages.msm.remat=full" in line for line in lines)
  assert any("not a measurement" in line for line in lines)
  saved = records.read_json(report.save(found, "libtpu 1", tmp_path))
  assert saved["fits"] and saved["tried"][-1]["remat"] == "full"
  assert saved["settings"] == ["--config.stages.msm.remat=full"]
  row = list(report.table([found]))[1].split()
  assert row[:2] == ["v5e:4x4", "16"] and row[5] == "yes"


def test_what_does_not_fit_is_said(tmp_path):
  found = run_search(case_of(batch_size=4), "v5e:2x2", Compiler())
  said = report.refusal(found)
  assert said.startswith("v5e:2x2 does not hold msm: what helps: more chips")
  assert "adaptation='lora'" in said and "bfloat16" not in said
  row = list(report.table([found]))[1].split()
  assert row[4].startswith(">=") and row[5] == "no"
  assert not records.read_json(report.save(found, "", tmp_path))["fits"]


def planned(given, workdir):
  return [line for line in report.plan_lines(given, workdir)]


def of_stages(mesh=None, population=None, **settings):
  """Returns the cheese study with settings of its stages changed."""
  given = cheese()
  stages = {
    name: dataclasses.replace(stage, **settings.get(name, {}))
    for name, stage in given.stages.items()
  }
  run = dataclasses.replace(given.run, population=population)
  return dataclasses.replace(given, stages=stages, run=run, mesh=mesh or given.mesh)


def test_the_plan_says_what_the_config_as_it_is_lacks(tmp_path):
  (one,) = case.find(cheese(), tmp_path, stage="aft")
  found = run_search(one, "v5e:2x4", Compiler(), cheese().mesh)
  num_microbatches, policy = found.best.candidate.settings
  report.save(found, "", tmp_path)
  chosen = {"num_microbatches": num_microbatches, "remat": policy}
  (line,) = planned(of_stages(aft=chosen), tmp_path)
  assert "holds aft" in line and "--config" not in line
  other = {"num_microbatches": num_microbatches, "remat": "offload"}
  (line,) = planned(of_stages(aft=other), tmp_path)
  assert f"(--config.stages.aft.remat={policy})" in line


def test_a_changed_mesh_is_other_settings_unless_it_is_what_was_found(tmp_path):
  (one,) = case.find(cheese(), tmp_path, stage="msm_aff")
  copies = {"data": -1, "fsdp": 1, "tensor": 1}
  found = search.begin_again(run_search(one, "v5e:2x2", Compiler(), copies))
  found = [*search.go_on(found, Compiler())][-1]
  report.save(found, "", tmp_path)
  (line,) = planned(of_stages(copies), tmp_path)
  assert "--config.mesh.data=1 --config.mesh.fsdp=4 --config.mesh.tensor=1" in line
  (line,) = planned(of_stages(found.mesh), tmp_path)
  assert "holds" in line and "config.mesh" not in line
  (line,) = planned(of_stages({"data": 1, "fsdp": 2, "tensor": 2}), tmp_path)
  assert "1 earlier results are of other settings" in line


def test_stages_that_differ_in_what_is_searched_are_one_case_with_flags_of_each(
  tmp_path,
):
  names = case.find(cheese(), tmp_path)[1].stages
  changed = of_stages(**{names[1]: {"remat": "offload"}})
  cases = case.find(changed, tmp_path)
  assert [one.stages for one in cases] == [
    one.stages for one in case.find(cheese(), tmp_path)
  ]
  found = run_search(cases[1], "v5p:2x2x1", Compiler(available_gib=95.0))
  assert found.best.candidate.settings[1] != "offload"
  flags = report.as_json(found, "")["settings"]
  policy = found.best.candidate.settings[1]
  assert f"--config.stages.{names[1]}.remat={policy}" in flags
  stages_told = {flag.split(".")[2] for flag in flags if ".remat=" in flag}
  own = cheese().stages
  assert stages_told == {n for n in names if own[n].remat != policy} | {names[1]}


def test_runs_trained_as_one_program_are_counted_or_said_not_to_be(tmp_path):
  (alone,) = case.find(of_stages(population=1), tmp_path, stage="aft")
  assert alone.num_runs == 1 and "one run" not in report.case_line(alone)
  (default,) = case.find(cheese(), tmp_path, stage="aft")
  said = report.case_line(default)
  assert default.num_runs == 1 and "one run is counted" in said
  assert "config.run.population=1" in said
  (four,) = case.find(of_stages(population=4), tmp_path, stage="aft")
  (many,) = case.find(of_stages(population=10_000), tmp_path, stage="aft")
  assert four.num_runs == 4 < many.num_runs < 100
  assert "4 runs as one program" in report.case_line(four)
  assert four.identity() != default.identity() == alone.identity()


def test_what_runs_of_one_program_hold_is_that_of_each_on_one_base():
  lora = LoraConfig(rank=4, alpha=4.0)
  cfg = dataclasses.replace(TOY, lora=lora, max_seq_len=128)
  one = case_of(cfg, 2, 128, trains_all=False)
  three = dataclasses.replace(one, num_runs=3)
  mesh = {"data": 1, "fsdp": 1, "tensor": 1}
  held = step.held(one, mesh)
  expected = {name: 3 * size for name, size in held.items()}
  assert step.held(three, mesh) == expected | {"frozen": held["frozen"]}
  (slices,) = topology.parse("v5e:1x1")
  kept = [estimate.estimate(each, slices, mesh).kept for each in (one, three)]
  assert kept[1] == 3 * kept[0]
  _, parts = step.lower(one, mesh, jax.devices()[:1])
  _, together = step.lower(three, mesh, jax.devices()[:1])
  assert together["rows"] == 3 * parts["rows"]
  assert together["parameters"] == 3 * parts["parameters"]


def test_the_case_is_the_same_whatever_the_search_varies_and_the_stage_is_called():
  one = case_of()
  assert one.identity() == one.vary(4, "offload").identity()
  assert one.identity() == dataclasses.replace(one, stages=("x", "y")).identity()
  assert one.identity() != case_of(seq_len=2048).identity()
  assert one.identity() != case_of(cfg=TOY).identity()


def test_the_plan_says_in_what_a_stage_is_held_and_that_it_counts_one_copy(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(hf_config.to_hf(TOY, "float32")))
  model = {"init_from": str(tmp_path), "base_model": "org/new"}
  given = cheese(**model, base_dtype="bfloat16")

  def line(**settings):
    stages = {
      name: dataclasses.replace(stage, seq_len=64, loss_chunk_len=None, **settings)
      for name, stage in given.stages.items()
    }
    lines = plan_lines(dataclasses.replace(given, stages=stages), tmp_path)
    (found,) = (line for line in lines if "GiB over the mesh" in line)
    return found

  said = line(adaptation="full")
  assert "weights in bfloat16, gradients in float32, moments in float32" in said
  assert "one copy" in said
  assert "base in bfloat16, adapters and gradients in float32" in line()
