"""Will it fit on a TPU: the order of tries, and what is expected of them."""

import dataclasses

import pytest
from fit_cases import LLAMA, Compiler, case_of, cheese, run_search

from msm_jax import fit
from msm_jax.fit import (
  compiling,
  estimate,
  report,
  search,
  step,
  topology,
)
from msm_jax.fit.compiling import GIB, Compiled
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
  assert cfg.num_adapter_params() == 32 * 8 * (2 * 4096 + 14336 + 4096)
  assert LLAMA.num_adapter_params() == 0


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


def test_one_compilation_that_dies_does_not_end_the_search():
  compiler = Compiler()

  def dies_offloading(request, time_limit_s):
    if request.case.config.remat == "offload":
      return Compiled(status="failed", why="the compiler died with code -11: ")
    return compiler(request, time_limit_s)

  found = run_search(case_of(), "v5e:4x4", dies_offloading)
  assert found.best.candidate.settings == (1, "full")


def test_what_is_only_expected_to_be_too_much_is_called_so():
  hunt = search._Hunt(topology.parse("v5e:4x4")[0], Compiler(workspace_gib=30.0))
  mesh = {"data": 1, "fsdp": 16, "tensor": 1}
  found = {one.settings: one for one in search.candidates(case_of(), hunt.slices, mesh)}
  assert hunt._try(found[1, "full"]).compiled is not None
  assert "is expected to take" in hunt._try(found[1, "offload"]).why
  assert "takes at least" in hunt._try(found[1, "none"]).why


def test_an_estimate_that_was_met_exactly_is_remembered():
  hunt = search._Hunt(topology.parse("v5e:4x4")[0], Compiler(workspace_gib=0.0))
  mesh = {"data": 1, "fsdp": 16, "tensor": 1}
  one, *_ = search.candidates(case_of(), hunt.slices, mesh)
  hunt._compile(one, None)
  hunt.compile_step = Compiler(workspace_gib=8.0)
  hunt._compile(one, None)
  assert hunt.beyond == 0.0


def test_layers_compiled_one_by_one_free_what_they_kept_for_gradients():
  mesh = {"data": 1, "fsdp": 16, "tensor": 1}
  (slices,) = topology.parse("v5e:4x4")
  looped, unrolled = (
    estimate.estimate(case_of(scan_layers=scan), slices, mesh) for scan in (True, False)
  )
  gradients = step.held(case_of(), mesh)["gradients"]
  assert looped.at_least - unrolled.at_least == min(gradients, looped.kept) > 0


def test_what_compiled_and_still_exceeds_is_counted_and_explained():
  counted = {"needed": 3 * GIB, "classes": {"parameters": 3 * GIB}}
  found = compiling.verdict(counted, 2 * GIB)
  assert found["status"] == "exceeds" and "3.00 of 2.00 GiB" in found["why"]
  assert found["classes"] == counted["classes"]
  found = compiling.verdict(counted, 4 * GIB)
  assert found["status"] == "fits" and "why" not in found


def test_copies_of_the_parameters_are_the_first_thing_to_go():
  copies = {"data": -1, "fsdp": 1, "tensor": 1}
  found = run_search(case_of(), "v5e:4x4", Compiler(), copies)
  assert found.best is None
  helps = report.refusal(found).partition("what helps: ")[2]
  assert helps.startswith("--config.mesh.fsdp=-1 --config.mesh.data=1; more chips")
  again = search.begin_again(found)
  assert again.mesh == {"data": 1, "fsdp": 16, "tensor": 1} and not again.tried
  again = [*search.go_on(again, Compiler())][-1]
  lines = list(report.best_lines(again, ""))
  assert any("--config.mesh.data=1 --config.mesh.fsdp=16" in line for line in lines)
  assert search.begin_again(again) is None


def test_a_family_is_searched_beyond_a_mesh_that_only_copies(tmp_path, monkeypatch):
  monkeypatch.setattr(compiling, "check_installed", lambda: "1")
  monkeypatch.setattr(compiling, "compile_step", Compiler())
  given = dataclasses.replace(cheese(), mesh={"data": -1, "fsdp": 1, "tensor": 1})
  asked = fit.Question(topology="v5e", stage="msm_aff")
  lines = list(fit.run(given, tmp_path, asked))
  assert any(line.startswith("v5e:2x2 holds msm_aff") for line in lines), lines


@pytest.mark.parametrize(("seq_len", "said"), [(4096, 256), (128, 64), (1000, 250)])
def test_the_chunk_of_the_loss_that_is_suggested_divides_the_rows(seq_len, said):
  one = case_of(batch_size=4, seq_len=seq_len)
  config = dataclasses.replace(one.config, loss_chunk_len=None)
  found = run_search(dataclasses.replace(one, config=config), "v5e:2x2", Compiler())
  assert f"; loss_chunk_len={said};" in report.refusal(found)
