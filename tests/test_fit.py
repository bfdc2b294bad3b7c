"""Will it fit on a TPU: the order of tries, what is counted, said and kept."""

import dataclasses
import importlib.util
import json

import jax
import pytest
from fit_cases import LLAMA, MESH, TOY, case_of
from test_launch import CONFIG, ROOT, launch

from msm_jax import experiment, fit, records, xla_flags
from msm_jax.errors import UserError
from msm_jax.fit import (
  case,
  compiling,
  estimate,
  released,
  report,
  search,
  step,
  topology,
)
from msm_jax.fit.compiling import GIB, Compiled
from msm_jax.hf import config as hf_config
from msm_jax.models.config import LoraConfig


def test_candidates_cover_microbatches_and_remat_and_the_fastest_is_first():
  (slices,) = topology.parse("v5p:2x2x2")
  mesh = {"data": 1, "fsdp": 8, "tensor": 1}
  found = search.candidates(case_of(), slices, mesh)
  policies = ("none", "dots", "full", "offload")
  assert {one.settings for one in found} == {
    (m, p) for m in (1, 2, 4) for p in policies
  }
  seconds = [one.estimate.seconds for one in found]
  assert seconds == sorted(seconds)
  assert found[0].settings == (1, "none")
  cost = {one.settings: one.estimate for one in found}
  for m in (1, 2, 4):
    assert cost[m, "dots"].seconds < cost[m, "full"].seconds
    assert cost[m, "full"].at_least < cost[m, "dots"].at_least
    assert cost[m, "offload"].at_least < cost[m, "full"].at_least
  # Weights are gathered for every microbatch: it matters where rows are few.
  assert cost[4, "full"].seconds >= cost[1, "full"].seconds
  few = [
    estimate.estimate(case_of(seq_len=256).vary(m, "full"), slices, mesh).seconds
    for m in (1, 4)
  ]
  assert few[1] > 2 * few[0]


def test_the_estimate_counts_what_a_full_fine_tune_holds():
  (slices,) = topology.parse("v5e:4x4")
  mesh = {"data": 1, "fsdp": 16, "tensor": 1}
  one = case_of(batch_size=16, remat="full")
  found = estimate.estimate(one, slices, mesh)
  held = 16 * LLAMA.num_params() / 16
  kept = 2 * 4096 * 32 * 4096  # bfloat16 [T, D] of 32 layers
  assert found.kept == kept
  assert 0 <= found.at_least - held - kept < 2**22  # scales of norms are not divided
  # 8 FLOPs per weight and token at 197 TFLOP/s a chip.
  assert found.seconds > 8 * 7.5e9 * 4096 / 197e12


def test_adapters_are_counted():
  lora = LoraConfig(rank=8, alpha=16.0, targets=("q", "down"))
  cfg = dataclasses.replace(LLAMA, lora=lora)
  assert estimate.num_adapter_params(cfg) == 32 * 8 * (2 * 4096 + 14336 + 4096)
  assert estimate.num_adapter_params(LLAMA) == 0


class Compiler:
  """Says what a step needs by a rule, and keeps what it was asked."""

  def __init__(self, workspace_gib=1.0, available_gib=15.75, quick=1.0):
    self.workspace, self.available, self.quick = workspace_gib, available_gib, quick
    self.asked = []

  def __call__(self, request, time_limit_s):
    one = request.case
    self.asked.append((one.config.num_microbatches, one.config.remat, request.level))
    needed = estimate.estimate(one, request.topology, request.mesh).at_least
    needed += self.workspace * GIB / one.config.num_microbatches
    if request.level:
      needed *= self.quick
    status = "fits" if needed <= self.available * GIB else "exceeds"
    classes = dict.fromkeys(report.CLASSES, 0) | {"activations": int(needed)}
    return Compiled(status=status, needed=int(needed), classes=classes)


def run_search(one, name, compiler):
  (slices,) = topology.parse(name)
  found = search.begin(one, slices, MESH)
  return [found, *search.go_on(found, compiler)][-1]


def test_the_fastest_that_fits_is_compiled_with_the_usual_effort_and_ends_the_search():
  compiler = Compiler()
  found = run_search(case_of(), "v5e:4x4", compiler)
  assert found.best.candidate.settings == (1, "full")
  assert compiler.asked[-1] == (1, "full", None)
  settings = [tried.candidate.settings for tried in found.tried]
  assert settings[:2] == [(1, "none"), (1, "dots")]
  assert all(tried.compiled is None for tried in found.tried[:2])


def test_one_that_turns_out_too_large_is_passed_over_with_those_as_large():
  compiler = Compiler(workspace_gib=9.0)
  found = run_search(case_of(), "v5e:4x4", compiler)
  assert found.best.candidate.settings == (2, "full")
  assert [level for *_, level in compiler.asked].count(None) <= 2


def test_what_nothing_can_hold_takes_one_compilation():
  compiler = Compiler(workspace_gib=100.0)
  found = run_search(case_of(), "v5e:4x4", compiler)
  assert found.best is None and compiler.asked == [(2, "offload", compiling.FAST)]
  compiler = Compiler()
  found = run_search(case_of(batch_size=4), "v5e:2x2", compiler)
  assert found.best is None and not compiler.asked
  assert all("takes at least" in tried.why for tried in found.tried)


def test_the_least_effort_does_not_decide_near_the_limit():
  need = estimate.estimate(
    case_of(remat="full"),
    topology.parse("v5e:4x4")[0],
    {"data": 1, "fsdp": 16, "tensor": 1},
  ).at_least
  close = 15.7 - need / GIB
  found = run_search(case_of(), "v5e:4x4", Compiler(close, quick=1.1))
  assert found.best.candidate.settings == (1, "full")
  found = run_search(case_of(), "v5e:4x4", Compiler(close + 0.2, quick=0.9))
  assert found.best.candidate.settings == (1, "offload")


def test_a_compiler_that_dies_or_takes_too_long_is_no_answer():
  def dies(request, time_limit_s):
    return Compiled(status="failed", why="the compiler died with code -9: ")

  found = run_search(case_of(batch_size=16), "v5e:4x4", dies)
  assert found.best is None and found.problem
  assert report.refusal(found).startswith("v5e:4x4 may or may not hold msm: the comp")
  said = report.tried_line(found.tried[-1], found.topology)
  assert "not known: the compiler died with code -9" in said


def test_shortage_is_read_off_the_compilers_message():
  text = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total "
    "memory required for HLO temporaries (150.41G) exceeds available HBM (15.75G)."
  )
  assert compiling.read_shortage(text) == (round(150.41 * GIB), round(15.75 * GIB))
  text = "Ran out of memory in memory space hbm. Used 2.00T of 95.73G hbm. Exceeded"
  assert compiling.read_shortage(text) == (2048 * GIB, round(95.73 * GIB))
  assert compiling.read_shortage("INVALID_ARGUMENT: No such compile option") is None


def test_flags_are_of_the_chip_and_the_slices():
  one = xla_flags.of_kind("TPU v5 lite")
  two = xla_flags.of_kind("TPU v5 lite", num_slices=2)
  assert set(one) < set(two)
  assert "xla_tpu_scoped_vmem_limit_kib" in xla_flags.of_kind("TPU v6 lite")
  fused = "xla_tpu_enable_async_collective_fusion_fuse_all_gather"
  assert fused in one and fused not in xla_flags.of_kind("TPU v5")
  assert all(name.startswith("xla_") for name in two)


def test_flags_of_the_environment_are_read():
  text = "--xla_a=true --megascale_abort_on_hangs=true --xla_b=98304"
  flags, others = xla_flags.parse(text)
  assert flags == {"xla_a": "true", "xla_b": "98304"}
  assert others == ["--megascale_abort_on_hangs=true"]


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


def test_the_case_is_the_same_whatever_the_search_varies_and_the_stage_is_called():
  one = case_of()
  assert one.identity() == one.vary(4, "offload").identity()
  assert one.identity() == dataclasses.replace(one, stages=("x", "y")).identity()
  assert one.identity() != case_of(seq_len=2048).identity()
  assert one.identity() != case_of(cfg=TOY).identity()


@pytest.mark.parametrize(
  ("name", "num_params"),
  [
    ("meta-llama/Llama-3.1-8B", 8_030_261_248),
    ("meta-llama/Meta-Llama-3.1-70B-Instruct", 70_553_706_496),
    ("meta-llama/Llama-3.2-3B", 3_212_749_824),
    ("HuggingFaceTB/SmolLM2-135M", 134_515_008),
    ("mistralai/Mistral-7B-Instruct-v0.3", 7_248_023_552),
    ("Qwen/Qwen2.5-7B", 7_615_616_512),
    ("Qwen/Qwen3-8B-Base", 8_190_735_360),
    ("Qwen/Qwen3-32B", 32_762_123_264),
    ("google/gemma-2-9b-it", 9_241_705_984),
    ("google/gemma-3-1b-pt", 999_885_952),
  ],
)
def test_a_released_model_has_as_many_parameters_as_its_card_says(name, num_params):
  assert released.find(name).num_params() == num_params


def test_a_model_that_is_not_known_is_none_that_is():
  assert all(released.find(name) is not None for name in released.names())
  unknown = (None, "", "mistralai/Mistral-7B-v0.1", "x/Distill-Llama-3.1-8B")
  assert [released.find(name) for name in unknown] == [None] * 4


def cheese(**model):
  spec = importlib.util.spec_from_file_location("c", ROOT / "configs/msm_cheese.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  config = module.get_config().to_dict()
  return experiment.parse(config | {"model": config["model"] | model})


def test_sizes_are_known_without_the_model(tmp_path):
  given = case.model(cheese(), tmp_path)
  assert "'models/llama-3.1-8b' is not there yet: sizes are those of" in given.note
  assert dataclasses.replace(given.cfg, dtype="float32") == released.find(
    "Llama-3.1-8B"
  )
  assert given.adapters.rank == 64
  assert [one.name for one in case.find(cheese(), tmp_path, stage="aft")] == ["aft"]
  alike = case.find(cheese(), tmp_path)
  assert [len(one.stages) for one in alike] == [1, 6]


def test_config_json_alone_tells_the_sizes(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(hf_config.to_hf(TOY, "float32")))
  given = case.model(cheese(init_from=str(tmp_path), base_model="org/new"), tmp_path)
  assert given.note == "" and given.cfg.num_params() == TOY.num_params()


def test_a_model_that_nothing_tells_of_is_refused_with_the_file_that_would(tmp_path):
  with pytest.raises(UserError) as caught:
    case.model(cheese(base_model="org/new"), tmp_path)
  said = str(caught.value)
  assert "https://huggingface.co/org/new/blob/main/config.json" in said
  assert "qwen3-32b" in said
  with pytest.raises(UserError, match="only it tells the model's sizes"):
    case.model(cheese(init_from="w/runs/aft/seed{seed}"), tmp_path)


def test_rows_longer_than_the_models_context_are_refused(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps(hf_config.to_hf(TOY, "float32")))
  with pytest.raises(UserError, match=r"seq_len \(4096\) is longer than the .* \(64\)"):
    case.find(cheese(init_from=str(tmp_path)), tmp_path, stage="msm_aff")


@pytest.mark.parametrize(("trains_all", "remat"), [(True, "none"), (False, "full")])
def test_the_estimates_flops_are_those_that_xla_counts(trains_all, remat):
  lora = None if trains_all else LoraConfig(rank=4, alpha=4.0)
  cfg = dataclasses.replace(
    TOY, lora=lora, num_layers=4, vocab_size=2048, max_seq_len=256
  )
  one = case_of(
    cfg,
    batch_size=2,
    seq_len=256,
    trains_all=trains_all,
    remat=remat,
    attention="dense",
    scan_layers=False,  # XLA counts the body of a loop once
  )
  one = dataclasses.replace(
    one, config=dataclasses.replace(one.config, loss_chunk_len=None)
  )
  mesh = {"data": 1, "fsdp": 1, "tensor": 1}
  lowered, _ = step.lower(one, mesh, jax.devices()[:1])
  counted = lowered.cost_analysis()["flops"]
  # Rows twice as long: dense attention makes the half that causality hides, too.
  twice = dataclasses.replace(one.config, seq_len=512)
  found = 2 * 256 * estimate.flops_per_token(dataclasses.replace(one, config=twice))
  assert 0.8 < found / counted < 1.1, found / counted


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (["fit", CONFIG], "--topology=... is needed"),
    (["fit", CONFIG, "--topology=a100"], "fit compiles for TPUs only"),
    (["fit", CONFIG, "--topology=v5e:5x5"], "slices of v5e are"),
    (["fit", CONFIG, "--topology=v5e", "--num_slices=0"], "num_slices"),
  ],
)
def test_what_cannot_be_asked_is_one_line_and_exit_2(arguments, message):
  done = launch(*arguments)
  assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
  assert message in done.stderr


def test_without_the_compiler_the_extra_is_named(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"pip install 'msm-jax\[tpu\]'") as caught:
    next(fit.run(None, None, fit.Question(topology="v5e:2x2")))
  assert "JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1" in str(caught.value)
