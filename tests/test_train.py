"""The update and the loop: what must not change the result does not change it."""

import functools
import json
import os
import signal

import jax
import numpy as np
import pytest

from msm_jax import (
  checkpoint,
  input_pipeline,
  losses,
  metrics,
  optim,
  packing,
  records,
  sharding,
  train_state,
)
from msm_jax import train as train_lib
from msm_jax.errors import Stopped, UserError
from msm_jax.models import lora, transformer
from msm_jax.models.config import LoraConfig, ModelConfig
from msm_jax.packing import Piece
from msm_jax.training import loop, run_config

CFG = ModelConfig(
  vocab_size=64,
  embed_dim=32,
  mlp_dim=48,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=8,
  max_seq_len=32,
)
ADAM = optim.OptimConfig(learning_rate=1e-2, schedule="cosine", warmup_steps=2)
META = {"stage": "test"}


def pieces(num: int, seed: int = 0, max_len: int = 20) -> list[Piece]:
  rng = np.random.default_rng(seed)
  made = []
  for _ in range(num):
    n = int(rng.integers(3, max_len))
    ids = rng.integers(0, CFG.vocab_size, n).astype(np.int32)
    made.append(Piece(ids, (rng.random(n) < 0.7).astype(np.float32)))
  return made


def batch(num_rows: int = 8, seq_len: int = 32) -> dict[str, np.ndarray]:
  rows = list(packing.pack(pieces(60), seq_len))[:num_rows]
  return {name: np.stack([row[name] for row in rows]) for name in packing.FIELDS}


@pytest.fixture
def rows_dir(tmp_path):
  rows = map(packing.to_record, packing.pack(pieces(80), 32))
  records.write_dataset(tmp_path / "rows", rows, manifest={})
  return tmp_path / "rows"


def source(rows_dir, num_rows: int) -> input_pipeline.RowSource:
  size = records.read_manifest(rows_dir)["num_records"]
  return input_pipeline.open_rows([rows_dir], packing.row_order([size], [num_rows], 0))


def config(**changes) -> train_lib.TrainConfig:
  base = dict(
    num_train_steps=12, batch_size=8, seq_len=32, optimizer=ADAM, log_every_steps=1
  )
  return train_lib.TrainConfig(**(base | changes))


@functools.cache
def drawn(cfg: ModelConfig):
  """Returns parameters before training, in host memory: a run donates what it gets."""
  params = jax.jit(transformer.init_params, static_argnums=0)(cfg, jax.random.key(0))
  return jax.tree.map(np.asarray, params)


def run(
  tmp_path,
  rows_dir,
  name="run",
  mesh=None,
  cfg=CFG,
  meta=META,
  how=run_config.RunConfig(),  # noqa: B008 (frozen)
  **changes,
):
  settings = config(**changes)
  params = drawn(cfg)
  trainable, frozen = lora.split(params) if cfg.lora else (params, {})
  job = loop.Job(
    config=settings,
    cfg=cfg,
    mesh=mesh or sharding.make_mesh(data=8),
    run_dir=tmp_path / name,
    meta=meta,
    label=name,
    settings=how,
  )
  rows = source(rows_dir, settings.num_train_steps * settings.batch_size)
  return loop.train(job, params=trainable, frozen=frozen, source=rows)


def log(tmp_path, name="run"):
  text = (tmp_path / name / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("chunk_len", [None, 8, 32, 48, 512])
def test_logits_of_a_part_divide_a_row_or_are_all_of_it(chunk_len):
  train_lib.check(config(loss_chunk_len=chunk_len), sharding.make_mesh(data=8))


def test_a_part_of_a_row_that_does_not_divide_it_is_refused():
  with pytest.raises(UserError, match=r"loss_chunk_len \(24\) must divide seq_len"):
    train_lib.check(config(loss_chunk_len=24), sharding.make_mesh(data=8))


def one_update(mesh, num_microbatches: int):
  tx = optim.make_optimizer(ADAM, optim.make_schedule(ADAM, 10))
  params = transformer.init_params(CFG, jax.random.key(1))
  rows = batch(8)
  shape = (num_microbatches, 8 // num_microbatches)
  rows = {name: value.reshape(*shape, -1) for name, value in rows.items()}
  with jax.set_mesh(mesh):
    state = train_state.create(params, tx, CFG, mesh)
    rows = jax.device_put(rows, sharding.batch_sharding(mesh, 3, 1))
    step = functools.partial(
      train_lib.train_step,
      loss_fn=functools.partial(losses.next_token_nll, cfg=CFG),
      tx=tx,
      schedule=optim.make_schedule(ADAM, 10),
    )
    state, metrics = jax.jit(step)(state, {}, rows)
  return jax.device_get(state.params), jax.device_get(metrics)


@pytest.mark.parametrize(
  "shape",
  [
    pytest.param((8, 1, 1), marks=pytest.mark.slow),
    (2, 2, 2),
    pytest.param((1, 4, 2), marks=pytest.mark.slow),
  ],
)
def test_three_mesh_shapes_make_the_same_update(shape):
  reference, metrics = one_update(sharding.make_mesh(1, 1, 8), 1)
  params, found = one_update(sharding.make_mesh(*shape), 1)
  np.testing.assert_allclose(found["loss"], metrics["loss"], rtol=2e-6)
  np.testing.assert_allclose(found["grad_norm"], metrics["grad_norm"], rtol=1e-5)
  for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(reference), strict=True):
    # Adam's first step is sign-like: a gradient near zero may differ by float32 noise.
    assert np.mean(np.abs(a - b) > 1e-4) < 1e-3


@pytest.mark.parametrize(
  "num_microbatches", [pytest.param(2, marks=pytest.mark.slow), 4]
)
def test_m_microbatches_make_the_same_update_as_one(num_microbatches):
  mesh = sharding.make_mesh(2, 1, 4)
  _, reference = one_update(mesh, 1)
  _, metrics = one_update(mesh, num_microbatches)
  np.testing.assert_allclose(metrics["loss"], reference["loss"], rtol=2e-6)
  np.testing.assert_allclose(metrics["grad_norm"], reference["grad_norm"], rtol=1e-5)
  assert metrics["num_targets"] == reference["num_targets"]


def test_parameters_really_are_divided_over_the_mesh():
  mesh = sharding.make_mesh(1, 4, 2)
  placed = train_state.place(transformer.init_params(CFG, jax.random.key(0)), CFG, mesh)
  kernel = placed["layers"]["attention"]["q"]["kernel"]
  assert kernel.sharding.shard_shape(kernel.shape) == (2, 32 // 4, 4 // 2, 8)


def test_the_loss_falls_and_every_step_is_logged_once(tmp_path, rows_dir):
  run(tmp_path, rows_dir, num_train_steps=20)
  lines = log(tmp_path)
  assert [line["step"] for line in lines] == list(range(1, 21))
  assert lines[-1]["train/loss"] < lines[0]["train/loss"] - 0.2


def test_a_straight_run_equals_a_stopped_and_resumed_one_bit_for_bit(
  tmp_path, rows_dir, monkeypatch
):
  straight = run(tmp_path, rows_dir, "straight", checkpoint_every_steps=5)
  write = metrics.Writer.write

  def write_and_stop(self, step, metrics):
    write(self, step, metrics)
    if step == 7:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(metrics.Writer, "write", write_and_stop)
  with pytest.raises(Stopped, match="step 7"):
    run(tmp_path, rows_dir, "resumed", checkpoint_every_steps=5)
  monkeypatch.setattr(metrics.Writer, "write", write)
  resumed = run(tmp_path, rows_dir, "resumed", checkpoint_every_steps=5)
  for a, b in zip(jax.tree.leaves(straight), jax.tree.leaves(resumed), strict=True):
    np.testing.assert_array_equal(a, b)
  ours, theirs = log(tmp_path, "straight"), log(tmp_path, "resumed")
  assert [x["train/loss"] for x in ours] == [x["train/loss"] for x in theirs]


def test_several_steps_per_call_are_the_same_steps(tmp_path, rows_dir):
  run(tmp_path, rows_dir, "one")
  run(tmp_path, rows_dir, "five", steps_per_call=5)
  one = [line["train/loss"] for line in log(tmp_path, "one")]
  five = [line["train/loss"] for line in log(tmp_path, "five")]
  np.testing.assert_allclose(five, one, rtol=1e-5)


def test_adapters_train_and_the_base_stays(tmp_path, rows_dir):
  import dataclasses

  cfg = dataclasses.replace(CFG, lora=LoraConfig(rank=4, alpha=8.0))
  trained = run(tmp_path, rows_dir, cfg=cfg)
  names = {path[-1].key for path, _ in jax.tree.leaves_with_path(trained)}
  assert names == {"lora_a", "lora_b"}
  assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(trained))
  lines = log(tmp_path)
  assert lines[-1]["train/loss"] < lines[0]["train/loss"]


def test_a_batch_that_the_mesh_does_not_divide_is_refused(tmp_path, rows_dir):
  with pytest.raises(UserError, match=r"batch_size \(12\).*use 16"):
    run(tmp_path, rows_dir, batch_size=12)


def test_a_checkpoint_of_another_run_is_refused(tmp_path, rows_dir):
  run(tmp_path, rows_dir)
  with pytest.raises(UserError, match="another run: its stage is test"):
    run(tmp_path, rows_dir, meta={"stage": "other"})


# The library leaves its own loading coroutine unawaited when a file is missing.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_newest_checkpoint_is_passed_over_loudly(
  tmp_path, rows_dir, monkeypatch, capfd
):
  straight = run(tmp_path, rows_dir, "straight")
  run(tmp_path, rows_dir, "run", checkpoint_every_steps=6)
  newest = tmp_path / "run" / "checkpoints" / "12"
  for path in (newest / "params").rglob("*"):
    if path.is_file() and path.stat().st_size > 2000:
      path.unlink()
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  again = run(tmp_path, rows_dir, "run", checkpoint_every_steps=6)
  assert "12 is damaged" in capfd.readouterr().err
  # What lies on disk now is whole again.
  target = train_state.abstract(again, CFG, sharding.make_mesh(data=8))
  with checkpoint.Checkpointer(tmp_path / "run", read_only=True) as checkpointer:
    kept = checkpointer.restore_params(target, META, step=12).tree
  for found in (again, kept):
    for a, b in zip(jax.tree.leaves(straight), jax.tree.leaves(found), strict=True):
      np.testing.assert_array_equal(a, b)


def test_a_loss_that_is_not_finite_stops_the_run_and_names_the_step(tmp_path, rows_dir):
  bad = optim.OptimConfig(
    learning_rate=1e30, schedule="constant", warmup_steps=0, clip_norm=None
  )
  with pytest.raises(UserError, match="the grad_norm is nan at step 2"):
    run(tmp_path, rows_dir, optimizer=bad, checkpoint_every_steps=1)
  logged = {line["step"] for line in log(tmp_path)}
  with checkpoint.Checkpointer(tmp_path / "run", read_only=True) as checkpointer:
    assert set(checkpointer.steps()) <= logged  # none of a loss that was not finite
