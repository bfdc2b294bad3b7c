"""Will it fit on a TPU: what is counted and what is asked."""

import dataclasses
import importlib.util
import json

import jax
import pytest
from fit_cases import TOY, case_of, cheese
from test_launch import CONFIG, launch

from msm_jax import fit
from msm_jax.errors import UserError
from msm_jax.fit import (
  case,
  compiling,
  estimate,
  released,
  step,
)
from msm_jax.fit.compiling import GIB
from msm_jax.hf import config as hf_config
from msm_jax.models.config import LoraConfig


def test_shortage_is_read_off_the_compilers_message():
  text = (
    "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total "
    "memory required for HLO temporaries (150.41G) exceeds available HBM (15.75G)."
  )
  assert compiling.read_shortage(text) == (round(150.41 * GIB), round(15.75 * GIB))
  text = "Ran out of memory in memory space hbm. Used 2.00T of 95.73G hbm. Exceeded"
  assert compiling.read_shortage(text) == (2048 * GIB, round(95.73 * GIB))
  assert compiling.read_shortage("INVALID_ARGUMENT: No such compile option") is None


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
