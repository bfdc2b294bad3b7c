"""Will it fit on a TPU: names of slices, the order of tries, what is said and kept."""

import dataclasses
import importlib.util
import subprocess
import sys

import pytest
from small_study import CFG
from test_launch import CONFIG, ROOT, launch

from msm_jax import fit, records, xla_flags
from msm_jax.errors import UserError
from msm_jax.fit import compiling, estimate, report, search, topology
from msm_jax.fit.case import Case
from msm_jax.fit.compiling import GIB, Compiled
from msm_jax.models.config import LoraConfig, ModelConfig
from msm_jax.optim import OptimConfig
from msm_jax.train import TrainConfig

OPTIMIZER = OptimConfig(learning_rate=1e-3, schedule="constant", warmup_steps=0)
LLAMA = ModelConfig(
  vocab_size=128256,
  embed_dim=4096,
  mlp_dim=14336,
  num_layers=32,
  num_heads=32,
  num_kv_heads=8,
  head_dim=128,
  max_seq_len=8192,
  tie_embeddings=False,
  dtype="bfloat16",
)
MESH = {"data": 1, "fsdp": -1, "tensor": 1}


def case_of(cfg=LLAMA, batch_size=32, seq_len=4096, trains_all=True, **settings):
  config = TrainConfig(
    num_train_steps=10,
    batch_size=batch_size,
    seq_len=seq_len,
    optimizer=OPTIMIZER,
    loss_chunk_len=128,
    **settings,
  )
  return Case(
    stages=("msm",), cfg=cfg, config=config, trains_all=trains_all, base_dtype="float32"
  )


@pytest.mark.parametrize(
  ("text", "name", "num_chips", "num_hosts"),
  [
    ("v5e:4x4", "v5e:4x4", 16, 4),
    ("V5E-16", "v5e:4x4", 16, 4),
    ("v5litepod-16", "v5e:4x4", 16, 4),
    ("v5e:1x1", "v5e:1x1", 1, 1),
    ("v6e-8", "v6e:2x4", 8, 1),
    ("v5p-16", "v5p:2x2x2", 8, 2),  # two TensorCores to a chip
    ("v4-8", "v4:2x2x1", 4, 1),
    ("v5p:4x4x12", "v5p:4x4x12", 192, 48),
    ("tpu7x:2x2x1", "tpu7x:2x2x1", 4, 1),
  ],
)
def test_a_slice_is_known_by_each_of_its_names(text, name, num_chips, num_hosts):
  (found,) = topology.parse(text)
  assert (found.name, found.num_chips) == (name, num_chips)
  assert found.num_hosts == num_hosts


def test_a_family_is_all_its_slices_smallest_first():
  for family in topology.CHIPS:
    sizes = [found.num_chips for found in topology.parse(family)]
    assert sizes == sorted(set(sizes)) and len(sizes) > 5


def test_several_slices_are_that_many_times_the_chips():
  (found,) = topology.parse("v5e:2x4", num_slices=2)
  assert (found.name, found.num_chips, found.num_hosts) == ("2 x v5e:2x4", 16, 2)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("v5", "did you mean v5"),
    ("h100", "fit compiles for TPUs only"),
    ("gpu", "fit compiles for TPUs only"),
    ("cpu", "fit compiles for TPUs only"),
    ("v5e:3x5", "slices of v5e are 1x1, 2x2"),
    ("v5e:4x4x4", "slices of v5e are"),
    ("v5p:4x4", "slices of v5p are 2x2x1"),
    ("v5p-12", "the number counts TensorCores, two to a chip"),
    ("v6e-12", "the number counts chips"),
    ("v5e:", "--topology=v5e:"),
    ("v5e:xx", "--topology=v5e:xx"),
    ("", "--topology="),
  ],
)
def test_a_slice_that_is_none_is_refused_with_those_that_are(text, message):
  with pytest.raises(UserError) as caught:
    topology.parse(text)
  assert message in str(caught.value)


def test_the_mesh_is_the_configs_where_it_suits():
  (slices,) = topology.parse("v5e:4x4")
  assert search.choose_mesh(case_of(), slices, MESH) == (
    {"data": 1, "fsdp": 16, "tensor": 1},
    "",
  )


def test_too_few_rows_leave_the_rest_of_the_chips_to_tensor():
  (slices,) = topology.parse("v5e:4x4")
  mesh, note = search.choose_mesh(case_of(batch_size=8), slices, MESH)
  assert mesh == {"data": 1, "fsdp": 8, "tensor": 2}
  assert note == "config.mesh (data=1, fsdp=-1, tensor=1) does not suit v5e:4x4"


def test_slices_lie_along_data():
  (slices,) = topology.parse("v5e:4x4", 2)
  mesh, note = search.choose_mesh(case_of(batch_size=32), slices, MESH)
  assert mesh == {"data": 2, "fsdp": 16, "tensor": 1} and note
  own = {"data": 2, "fsdp": 16, "tensor": 1}
  assert search.choose_mesh(case_of(), slices, own) == (own, "")


def test_rows_that_cannot_be_divided_are_said():
  (slices,) = topology.parse("v5e:2x2", 3)
  mesh, note = search.choose_mesh(case_of(batch_size=8), slices, MESH)
  assert mesh is None and "batch_size 8 and 32 heads" in note


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
  assert found.at_least == int(held) + kept and found.kept == kept
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
    case = request.case
    self.asked.append((case.config.num_microbatches, case.config.remat, request.level))
    needed = estimate.estimate(case, request.topology, request.mesh).at_least
    needed += self.workspace * GIB / case.config.num_microbatches
    if request.level:
      needed *= self.quick
    status = "fits" if needed <= self.available * GIB else "exceeds"
    classes = dict.fromkeys(report.CLASSES, 0) | {"activations": int(needed)}
    return Compiled(status=status, needed=int(needed), classes=classes)


def run_search(case, name, compiler):
  (slices,) = topology.parse(name)
  found = search.begin(case, slices, MESH)
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
  assert list(report.best_lines(found, "")) == ["v5e:4x4 may or may not hold msm"]
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
  assert xla_flags.parse(xla_flags.text(flags)) == (flags, [])


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
  assert list(report.best_lines(found, "")) == ["v5e:2x2 does not hold msm"]
  row = list(report.table([found]))[1].split()
  assert row[4].startswith(">=") and row[5] == "no"
  assert not records.read_json(report.save(found, "", tmp_path))["fits"]


def test_the_case_is_the_same_whatever_the_search_varies_and_the_stage_is_called():
  one = case_of()
  assert one.identity() == one.vary(4, "offload").identity()
  assert one.identity() == dataclasses.replace(one, stages=("x", "y")).identity()
  assert one.identity() != case_of(seq_len=2048).identity()
  assert one.identity() != case_of(cfg=CFG).identity()


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


needs_compiler = pytest.mark.skipif(
  importlib.util.find_spec("libtpu") is None,
  reason="libtpu is not installed: pip install -c constraints.txt '.[tpu]'",
)
TOY = dataclasses.replace(
  CFG, embed_dim=128, mlp_dim=256, head_dim=32, vocab_size=256, dtype="bfloat16"
)


def compile_toy(name, mesh, num_slices=1, cfg=TOY, **settings):
  case = case_of(cfg, batch_size=16, seq_len=256, **settings)
  (slices,) = topology.parse(name, num_slices)
  request = compiling.Request(case, slices, mesh, compiling.FAST)
  return compiling.compile_step(request, 300)


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("trains_all", [True, False])
def test_the_step_compiles_and_its_memory_is_that_of_its_shardings(trains_all):
  cfg = (
    TOY if trains_all else dataclasses.replace(TOY, lora=LoraConfig(rank=8, alpha=8))
  )
  mesh = {"data": 1, "fsdp": 8, "tensor": 2}
  found = compile_toy("v5e:4x4", mesh, cfg=cfg, trains_all=trains_all, remat="full")
  assert found.fits, found.why
  assert found.unknown_flags == () and found.flags
  classes = found.classes
  assert sum(classes.values()) == found.needed
  trained = cfg.num_params() if trains_all else estimate.num_adapter_params(cfg)
  assert classes["parameters"] >= 4 * trained / 16
  assert 2 * classes["parameters"] <= classes["optimizer"]
  assert (classes["frozen"] == 0) == trains_all
  # Tiles of 8 x 128 round small arrays up.
  assert 0 <= classes["padding"] < classes["parameters"] + 2**20


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("name", ["v4:2x2x1", "v5p:2x2x1", "v6e:2x2", "tpu7x:2x2x1"])
def test_every_chip_takes_the_flags_that_training_sets(name):
  (slices,) = topology.parse(name)
  mesh = {"data": 1, "fsdp": slices.num_devices, "tensor": 1}
  found = compile_toy(name, mesh, remat="dots")
  assert found.fits and not found.unknown_flags, found.why


@pytest.mark.slow
@needs_compiler
def test_two_slices_compile():
  mesh = {"data": 2, "fsdp": 4, "tensor": 1}
  found = compile_toy("v5e:2x2", mesh, num_slices=2)
  assert found.fits, found.why
  assert found.unknown_flags == () and len(found.flags) == 7


@pytest.mark.slow
@needs_compiler
def test_too_much_is_an_answer_and_not_a_crash():
  cfg = dataclasses.replace(TOY, num_layers=4000, embed_dim=1024, mlp_dim=8192)
  found = compile_toy("v5e:2x2", {"data": 1, "fsdp": 4, "tensor": 1}, cfg=cfg)
  assert found.status == "exceeds", found.why
  assert found.needed > found.available == round(15.75 * GIB)


@pytest.mark.slow
@needs_compiler
def test_flags_that_the_compiler_does_not_know_are_named(monkeypatch):
  monkeypatch.setenv("LIBTPU_INIT_ARGS", "--xla_no_such_flag=1")
  found = compile_toy("v5e:2x2", {"data": 1, "fsdp": 4, "tensor": 1})
  assert found.fits and found.unknown_flags == ("xla_no_such_flag=1",)
  assert "NOT known: xla_no_such_flag=1" in report.flags_phrase(found)


@pytest.mark.slow
@needs_compiler
def test_fit_answers_from_the_command_line_and_plan_repeats_it(tmp_path):
  arguments = [CONFIG, f"--workdir={tmp_path}"]
  done = launch("fit", *arguments, "--topology=v5e:2x2", "--stage=pretrain")
  assert done.returncode == 0, done.stderr
  assert "v5e:2x2 holds pretrain: " in done.stdout
  done = launch("plan", *arguments)
  assert "fit: v5e:2x2 (4 chips) holds " in done.stdout, done.stdout
  done = launch("plan", *arguments, "--config.stages.pretrain.seq_len=32")
  assert "earlier results are of other settings" in done.stdout


@pytest.mark.slow
@needs_compiler
def test_the_memory_of_every_chip_is_what_the_compiler_says():
  code = """
import sys
import jax
from msm_jax.fit import compiling, topology
for name in topology.CHIPS:
  where = topology.parse(name)[-4]
  device = compiling._devices(where)[0]
  layout = jax.sharding.SingleDeviceSharding(device)
  huge = jax.ShapeDtypeStruct((2**20, 2**18), "float32", sharding=layout)
  try:
    jax.jit(lambda x: x + 1).lower(huge).compile()
  except jax.errors.JaxRuntimeError as error:
    available = compiling.read_shortage(str(error))[1] / compiling.GIB
    chip = where.chip
    assert abs(available * chip.devices_per_chip - chip.hbm_gib) < 0.05, (chip, error)
"""
  done = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    env={"PATH": "", "PYTHONPATH": str(ROOT), **compiling.ENVIRONMENT},
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert done.returncode == 0, done.stderr[-2000:]
