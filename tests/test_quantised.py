"""A frozen base in int8 or nf4: what is held, what is computed, what is refused."""

import dataclasses
import functools
import importlib.util
import subprocess
import sys

import jax
import numpy as np
import planned
import pytest
import small_study
import test_train

from msm_jax import (
  experiment,
  exporting,
  losses,
  planning,
  quantised,
  sharding,
  train_state,
)
from msm_jax.errors import UserError
from msm_jax.hf import load
from msm_jax.models import lora, transformer
from msm_jax.models.config import PLAIN, Compute, LoraConfig

TOKENS = np.arange(40).reshape(2, 20) % 30
CFG = dataclasses.replace(small_study.CFG, embed_dim=64, mlp_dim=96, head_dim=16)
LORA = LoraConfig(rank=4, alpha=8.0, targets=("q", "down"))
ADAPTED = dataclasses.replace(CFG, lora=LORA)
ERRORS = {"int8": (0.004, 0.01), "nf4": (0.05, 0.12)}  # mean error / mean size

needs_qwix = pytest.mark.skipif(
  importlib.util.find_spec("qwix") is None, reason="needs the extra quant"
)


def drawn() -> tuple[dict, dict]:
  """Returns (adapter, base); no leaf is zero."""
  rng = np.random.default_rng(1)
  shapes = transformer.abstract_params(ADAPTED)
  return lora.split(
    jax.tree.map(lambda leaf: 0.1 * rng.standard_normal(leaf.shape, np.float32), shapes)
  )


def kernels(base) -> dict:
  """Returns the leaves that are quantised, by their path."""
  found = jax.tree.leaves_with_path(base, is_leaf=quantised.is_quantised)
  paths = ((tuple(entry.key for entry in path), leaf) for path, leaf in found)
  return {p: x for p, x in paths if p[0] == "layers" and p[-1] == "kernel"}


def num_bytes(tree) -> int:
  sizes = [(leaf.size, str(leaf.dtype)) for leaf in jax.tree.leaves(tree)]
  widths = {"uint4": 0.5, "int8": 1, "bfloat16": 2, "float32": 4}
  return sum(int(size * widths[dtype]) for size, dtype in sizes)


@needs_qwix
@pytest.mark.parametrize("kind", quantised.KINDS)
def test_kernels_are_quantised_in_tiles_and_the_rest_is_bfloat16(kind):
  import qwix

  base = drawn()[1]
  held = quantised.hold(base, kind)
  found = kernels(held)
  assert len(found) == 7
  for name, tile in (("gate", 64), ("down", 48), ("o", 16)):
    path = ("layers", "attention" if name == "o" else "mlp", name, "kernel")
    leaf, original = found[path], kernels(base)[path]
    again = quantised.floats(leaf, "float32")
    np.testing.assert_array_equal(again, qwix.dequantize(leaf))
    error = np.mean(np.abs(again - original)) / np.mean(np.abs(original))
    assert ERRORS[kind][0] < error < ERRORS[kind][1]
    assert leaf.scale.size * tile == original.size
    np.testing.assert_array_equal(quantised.one_layer(leaf, 1), again[1])
    width = {"int8": 1, "nf4": 0.5}[kind] + 4 / tile
    assert num_bytes(leaf) == width * original.size
  rest = lora.partition(held, lambda path: path in found)[1]
  assert {str(leaf.dtype) for leaf in jax.tree.leaves(rest)} == {"bfloat16"}
  twice = kernels(quantised.hold(held, kind))
  assert all(leaf is found[path] for path, leaf in twice.items())


def loss_of(adapter, base, batch, compute: Compute = PLAIN):
  params = lora.join(base, adapter)
  return losses.next_token_nll(params, batch, cfg=ADAPTED, compute=compute)[0]


def close(found, expected, tolerance: float) -> None:
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
    jax.device_get(found),
    jax.device_get(expected),
  )


@needs_qwix
def test_loss_and_gradients_are_those_of_the_dequantised_base():
  adapter, base = drawn()
  held, batch = quantised.hold(base, "int8"), test_train.batch()
  compute = Compute(scan_layers=False, remat="dots")
  fn = jax.jit(jax.value_and_grad(loss_of), static_argnums=3)
  expected = fn(adapter, quantised.hold(held, "float32"), batch, compute)
  close(fn(adapter, held, batch, compute), expected, 1e-5)


@pytest.mark.slow  # half a minute to compile on eight devices
@needs_qwix
def test_a_quantised_base_is_divided_over_a_mesh_and_gives_the_same_gradients():
  adapter, base = drawn()
  held, batch = quantised.hold(base, "nf4"), test_train.batch()
  fn = jax.jit(jax.value_and_grad(loss_of))
  expected = fn(adapter, quantised.hold(held, "float32"), batch)
  mesh = sharding.make_mesh(1, 2, 2, devices=jax.devices()[:4])
  placed = train_state.place(held, ADAPTED, mesh)
  for leaf in kernels(placed).values():
    assert leaf.qvalue.addressable_shards[0].data.size == leaf.qvalue.size // 4
  with jax.set_mesh(mesh):
    found = fn(train_state.place(adapter, ADAPTED, mesh), placed, batch)
  close(found, expected, 1e-4)


@needs_qwix
def test_the_backward_pass_keeps_no_kernel_as_floats():
  adapter, base = lora.split(transformer.abstract_params(ADAPTED))
  batch = test_train.batch(num_rows=1)

  def num_kept(dtype: str) -> int:
    held = jax.eval_shape(functools.partial(quantised.hold, dtype=dtype), base)
    # What the backward pass is handed, arguments included.
    _, backward = jax.eval_shape(
      lambda adapter, base: jax.vjp(lambda a: loss_of(a, base, batch), adapter),
      adapter,
      held,
    )
    return sum(
      leaf.size * leaf.dtype.itemsize
      for leaf in jax.tree.leaves(backward)
      if "float" in str(leaf.dtype)
    )

  as_floats = sum(4 * leaf.size for leaf in kernels(base).values())
  assert num_kept("float32") - num_kept("int8") > 0.9 * as_floats


@pytest.fixture(scope="module")
def study(tmp_path_factory):
  root = tmp_path_factory.mktemp("quantised")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(small_study, "CFG", CFG)
    small_study.write_model(root)
  config = small_study.config(root / "hf", base_dtype="nf4")
  config["mesh"] = {"data": 2, "fsdp": 2, "tensor": 2}
  config["stages"].pop("still")
  config["arms"] = {"base": (), "msm": ("msm",)}
  found = small_study.prepared(root / "w", config)
  found.train_all([0])
  return found


def logits(weights) -> np.ndarray:
  params = jax.device_get(weights.params)
  fn = jax.jit(transformer.logits, static_argnums=1)
  return np.asarray(fn(params, weights.cfg, TOKENS))


def original(study) -> dict:
  return load.load(study.start(0).source)[1]


@needs_qwix
def test_a_study_trains_adapters_beside_a_quantised_base(study):
  weights, begins = study.weights(("msm",), 0), study.begin(("msm",), 0)
  expected = quantised.hold(original(study), "nf4")
  for path, leaf in kernels(weights.base).items():
    jax.tree.map(np.testing.assert_array_equal, leaf, kernels(expected)[path])
  assert not np.array_equal(logits(weights), logits(begins))
  leaf = kernels(weights.base)["layers", "mlp", "gate", "kernel"]
  assert leaf.qvalue.addressable_shards[0].data.size == leaf.qvalue.size // 4
  assert set(study.trained_leaves(("msm",), 0)) == {"layers"}
  assert study.meta(("msm",), 0)["model"]["base_dtype"] == "nf4"


@needs_qwix
def test_a_merged_export_is_the_model_that_was_trained(study, tmp_path):
  weights = study.weights(("msm",), 0)
  out = tmp_path / "merged"
  exporting.export(study, "msm", 0, step=None, layout="merged", out=out)
  cfg, params = load.load(out)
  whole = quantised.hold(weights.base, "float32")
  expected = dataclasses.replace(weights, base=whole)
  found = np.asarray(jax.jit(transformer.logits, static_argnums=1)(params, cfg, TOKENS))
  np.testing.assert_allclose(found, logits(expected), atol=1e-4)
  np.testing.assert_allclose(logits(weights), logits(expected), atol=1e-5)
  assert "nf4" in (out / "README.md").read_text()


@needs_qwix
def test_an_adapter_export_names_the_original_model(study, tmp_path):
  out = tmp_path / "adapter"
  exporting.export(study, "msm", 0, step=None, layout="adapter", out=out)
  assert '"base_model_name_or_path": "org/tiny"' in (
    (out / "adapter_config.json").read_text()
  )
  config = small_study.config(
    study.start(0).source, base_dtype="int8", adapter_from=str(out), lora=None
  )
  config["stages"].pop("still")
  config["arms"] = {"base": (), "msm": ("msm",)}
  goes_on = small_study.prepared(tmp_path / "w", config).weights((), 0)
  before = study.weights(("msm",), 0).adapter
  jax.tree.map(np.testing.assert_array_equal, goes_on.adapter, before)


@needs_qwix
def test_a_study_that_begins_from_such_a_run_may_hold_the_base_in_floats(
  study, tmp_path
):
  run = str(study.run_dir(("msm",), 0))
  expected = logits(study.weights(("msm",), 0))
  for use, dtype in (("continue", "nf4"), ("merge", "float32")):
    config = small_study.config(run, base_model=None, base_dtype=dtype, adapter_use=use)
    config["arms"] = {"base": ()}
    found = small_study.prepared(tmp_path / use, config).weights((), 0)
    assert bool(found.adapter) == (use == "continue")
    np.testing.assert_allclose(logits(found), expected, atol=1e-4)


@needs_qwix
def test_plan_and_fit_count_what_is_held(study):
  cfg = study.cfg(("msm",), 0)
  adapter, base = lora.split(transformer.abstract_params(cfg))
  base = jax.eval_shape(lambda base: quantised.hold(base, "nf4"), base)
  need = num_bytes(base) + 4 * num_bytes(adapter)  # two moments, gradients
  counters = planning.num_bytes(study.experiment, study.workdir) - need
  assert 0 <= counters < 64
  text = "\n".join(planned.lines(study.experiment, study.workdir))
  assert "base in nf4, adapters and gradients in float32" in text


@needs_qwix
def test_a_kernel_that_no_tile_divides_is_refused_by_name(tmp_path):
  config = small_study.config(small_study.write_model(tmp_path), base_dtype="int8")
  study = small_study.prepared(tmp_path / "w", config)
  with pytest.raises(UserError, match=r"'int8': layers\.attention\.\w\.kernel has \d+"):
    study.weights((), 0)


@needs_qwix
@pytest.mark.parametrize(
  ("stage", "model", "message"),
  [
    (
      {"adaptation": "full"},
      {},
      r"stages.msm.adaptation is 'full', but config.model.b",
    ),
    (
      {"adapter_use": "merge"},
      {},
      r"stages.msm.adapter_use is 'merge', but config.mod",
    ),
    ({}, {"init_from": None, "base_model": None}, r"'nf4', but init_from is None"),
    ({}, {"base_dtype": "int4"}, r"base_dtype 'int4' is not one of .*'nf4'"),
  ],
)
def test_what_would_change_a_quantised_base_is_refused(stage, model, message):
  config = small_study.config("hf", base_dtype="nf4")
  config["model"] |= model
  config["stages"]["msm"] |= stage
  with pytest.raises(UserError, match=message):
    experiment.parse(config)


def test_a_package_that_is_absent_is_named_with_its_extra(monkeypatch):
  monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
  with pytest.raises(UserError, match=r"package qwix: pip install 'msm-jax\["):
    experiment.parse(small_study.config("hf", base_dtype="nf4"))
  experiment.parse(small_study.config("hf", base_dtype="bfloat16"))


def test_nothing_imports_qwix_unless_asked():
  code = "import launch, msm_jax.study, sys; assert 'qwix' not in sys.modules"
  subprocess.run([sys.executable, "-c", code], check=True)
