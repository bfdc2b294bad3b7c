"""Runs that are trained as one program are the runs that they would be alone."""

import dataclasses
import functools
import json
import math
import os
import signal

import jax
import numpy as np
import pytest
import small_study

from msm_jax import (
  checkpoint,
  input_pipeline,
  losses,
  metrics,
  optim,
  packing,
  records,
  sharding,
  start,
  study,
  train_state,
)
from msm_jax import train as train_lib
from msm_jax.errors import Stopped, UserError
from msm_jax.fit import step as fit_step
from msm_jax.models import lora, transformer
from msm_jax.models.attention import cudnn
from msm_jax.models.config import Compute, LoraConfig, ModelConfig
from msm_jax.packing import Piece
from msm_jax.training import loop, member

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
ADAPTED = dataclasses.replace(CFG, lora=LoraConfig(rank=4, alpha=8.0))
ADAM = optim.OptimConfig(learning_rate=1e-3, schedule="cosine", warmup_steps=2)
NUM_STEPS, NUM_ROWS = 5, 4
# Sums of floats in another order, and Adam's division of small by small.
NOISE = 1e-5


@pytest.fixture(scope="module")
def rows_dir(tmp_path_factory):
  rng = np.random.default_rng(0)
  made = []
  for _ in range(80):
    ids = rng.integers(0, CFG.vocab_size, int(rng.integers(3, 20))).astype(np.int32)
    made.append(Piece(ids, np.ones(len(ids), np.float32)))
  rows = map(packing.to_record, packing.pack(made, 32))
  path = tmp_path_factory.mktemp("population") / "rows"
  records.write_dataset(path, rows, manifest={})
  return path


ONE, FOUR = {"data": 1}, {"data": 2, "tensor": 2}


def mesh(sizes):
  devices = jax.devices()[: math.prod(sizes.values())]
  return sharding.make_mesh(**sizes, devices=devices)


@functools.cache
def drawn(cfg, seed: int):
  """Returns parameters as they are before training, on no mesh in particular."""
  params = start.fresh(cfg, seed, mesh(ONE))
  return jax.tree.map(np.asarray, params)


def members(root, rows_dir, cfg=ADAPTED, num=3, sizes=FOUR, **changes):
  """Returns (runs of seeds 0, 1, ... in root/seed<k>, what is frozen)."""
  config = train_lib.TrainConfig(
    num_train_steps=NUM_STEPS,
    batch_size=NUM_ROWS,
    seq_len=32,
    optimizer=ADAM,
    log_every_steps=1,
    checkpoint_every_s=None,
    **changes,
  )
  size = records.read_manifest(rows_dir)["num_records"]
  base = lora.split(drawn(cfg, 9))[1]
  found = []
  for seed in range(num):
    params = drawn(cfg, seed)
    job = loop.Job(
      config=config,
      cfg=cfg,
      mesh=mesh(sizes),
      run_dir=root / f"seed{seed}",
      meta={"seed": seed},
      label=f"seed {seed}",
    )
    order = packing.row_order([size], [NUM_STEPS * NUM_ROWS], seed)
    rows = input_pipeline.open_rows([rows_dir], order)
    trained = params if cfg.lora is None else lora.split(params)[0]
    found.append(loop.Member(job, trained, lambda trained=trained: trained, rows))
  return found, base if cfg.lora is not None else {}


def alone(found, frozen):
  return [
    loop.train(each.job, params=each.leaves, frozen=frozen, source=each.source)
    for each in found
  ]


@pytest.fixture(scope="module")
def separate(tmp_path_factory, rows_dir):
  """Returns two runs on one device, each trained by itself."""
  root = tmp_path_factory.mktemp("alone")
  found, frozen = members(root, rows_dir, sizes=ONE, num=2)
  alone(found, frozen)
  return found


def log(run):
  text = (run.job.run_dir / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def saved(run, step=NUM_STEPS):
  """Returns the state on disk and what it says about itself."""
  target = train_lib.make_step(
    run.job.config, run.job.cfg, run.leaves, run.job.mesh
  ).state
  with checkpoint.Checkpointer(run.job.run_dir, read_only=True) as checkpointer:
    state = checkpointer.restore(target, run.job.meta)
    return state, checkpointer.read_meta(step), checkpointer.steps()


def assert_same(one, other):
  """Asserts that two runs wrote the same, but for noise."""
  lines, others = log(one), log(other)
  assert [line["step"] for line in lines] == [line["step"] for line in others]
  assert [set(line) for line in lines] == [set(line) for line in others]
  for name in ("train/loss", "train/grad_norm", "train/num_targets"):
    values = [[line[name] for line in each] for each in (lines, others)]
    np.testing.assert_allclose(*values, rtol=NOISE)
  (state, meta, steps), (found, other_meta, other_steps) = saved(one), saved(other)
  assert steps == other_steps
  assert {**meta, "digests": 0, "sha256": 0} == {
    **other_meta,
    "digests": 0,
    "sha256": 0,
  }
  assert jax.tree.structure(state) == jax.tree.structure(found)
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(found), strict=True):
    assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
    np.testing.assert_allclose(a, b, atol=1e-5)


def stop_at(monkeypatch, step: int, run_dir) -> None:
  """Lets SIGTERM come when `step` of a run is written."""
  write = metrics.Writer.write

  def write_then_stop(self, end, values):
    write(self, end, values)
    if end == step and self.path.parent == run_dir:
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(metrics.Writer, "write", write_then_stop)


def test_seeds_together_are_the_seeds_alone(tmp_path, rows_dir, separate):
  together, frozen = members(tmp_path, rows_dir, sizes=ONE, num=2)
  found = loop.train_together(together, frozen)
  for one, other, params in zip(separate, together, found, strict=True):
    assert_same(one, other)
    for a, b in zip(
      jax.tree.leaves(saved(one)[0].params), jax.tree.leaves(params), strict=True
    ):
      np.testing.assert_allclose(a, b, atol=1e-5)
  losses_of_seeds = {log(each)[-1]["train/loss"] for each in together}
  assert len(losses_of_seeds) == len(together)


@pytest.mark.parametrize(
  ("cfg", "sizes"),
  [pytest.param(ADAPTED, FOUR, marks=pytest.mark.slow), (CFG, ONE)],
  ids=["lora on a mesh", "full"],
)
def test_an_update_of_all_is_an_update_of_each(tmp_path, rows_dir, cfg, sizes):
  found, frozen = members(
    tmp_path, rows_dir, cfg, num=3, sizes=sizes, steps_per_call=2, num_microbatches=2
  )
  job, init = found[0].job, found[0].leaves
  batches = [next(member.Run(each, None).batches([2])) for each in found]
  with jax.set_mesh(job.mesh):
    one = train_lib.make_step(job.config, cfg, init, job.mesh)
    of_all = train_lib.make_step(job.config, cfg, init, job.mesh, len(found))
    frozen = train_state.place(frozen, cfg, job.mesh)
    state = of_all.population.join(of_all.init(each.first()) for each in found)
    state, figures = of_all.update(state, frozen, batches)
    for place, each in enumerate(found):
      own, expected = one.update(one.init(each.first()), frozen, [batches[place]])
      for name in ("loss", "grad_norm", "num_tokens"):
        np.testing.assert_allclose(figures[place][name], expected[0][name], rtol=NOISE)
      part = of_all.population.part(state, place)
      assert jax.tree.structure(part) == jax.tree.structure(own)
      for a, b in zip(jax.tree.leaves(part), jax.tree.leaves(own), strict=True):
        assert (a.shape, a.dtype, a.sharding) == (b.shape, b.dtype, b.sharding)
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_population_that_was_stopped_is_finished_run_by_run(
  tmp_path, rows_dir, separate, monkeypatch
):
  together, frozen = members(tmp_path / "together", rows_dir, sizes=ONE, num=2)
  with monkeypatch.context() as patch:
    stop_at(patch, 3, together[1].job.run_dir)
    with pytest.raises(Stopped, match="seed 0 and 1 more: stopped at step 3"):
      loop.train_together(together, frozen)
  for each in together:
    with checkpoint.Checkpointer(each.job.run_dir, read_only=True) as checkpointer:
      assert checkpointer.steps() == [3]
  alone(together, frozen)
  for one, other in zip(separate, together, strict=True):
    assert [line["step"] for line in log(other)] == list(range(1, NUM_STEPS + 1))
    one_state, other_state = saved(one)[0], saved(other)[0]
    for a, b in zip(
      jax.tree.leaves(one_state), jax.tree.leaves(other_state), strict=True
    ):
      np.testing.assert_allclose(a, b, atol=1e-5)


def test_runs_at_different_steps_are_trained_apart_loudly(
  tmp_path, rows_dir, separate, monkeypatch, capfd
):
  together, frozen = members(tmp_path / "together", rows_dir, sizes=ONE, num=2)
  with monkeypatch.context() as patch:
    stop_at(patch, 3, together[1].job.run_dir)
    with pytest.raises(Stopped, match="seed 1: stopped at step 3"):
      alone(together[1:2], frozen)
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  loop.train_together(together, frozen)
  said = capfd.readouterr().err
  assert "seed 0 is at step 0, seed 1 is at step 3:" in said
  assert "trained apart" in said
  for one, other in zip(separate, together, strict=True):
    lines, others = log(one), log(other)
    values = [[line["train/loss"] for line in each] for each in (lines, others)]
    np.testing.assert_allclose(*values, rtol=NOISE)


def test_a_loss_that_is_not_finite_names_the_run(tmp_path, rows_dir):
  together, frozen = members(tmp_path, rows_dir, sizes=ONE, num=2)
  broken = jax.tree.map(lambda leaf: leaf + np.nan, together[1].leaves)
  together[1] = dataclasses.replace(together[1], first=lambda: broken)
  with pytest.raises(
    UserError, match=r"seed1: the loss is nan .* at step 1; its rows"
  ) as caught:
    loop.train_together(together, frozen)
  said = "the other runs of its program (1) go on by --config.run.population=1"
  assert said in str(caught.value)


def test_the_frozen_base_is_held_once():
  config = train_lib.TrainConfig(
    num_train_steps=4, batch_size=1, seq_len=32, optimizer=ADAM
  )
  one = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  adapter, base = lora.split(transformer.abstract_params(ADAPTED))

  def arguments(num_runs):
    with jax.set_mesh(one):
      step = train_lib.make_step(config, ADAPTED, adapter, one, num_runs)
      rows = train_lib.abstract_batch(config, one)
      frozen = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
          leaf.shape, leaf.dtype, sharding=sharding.replicated(one)
        ),
        base,
      )
      batch = rows if num_runs == 1 else (rows,) * num_runs
      compiled = step.fn.lower(step.population.state, frozen, batch).compile()
    found = compiled.memory_analysis().argument_size_in_bytes
    return found, fit_step.bytes_per_device((step.state, rows)), frozen

  (single, own, frozen), (of_all, _, _) = arguments(1), arguments(5)
  base_bytes = fit_step.bytes_per_device(frozen)
  assert base_bytes > own
  assert single == pytest.approx(base_bytes + own, rel=0.02)
  assert of_all == pytest.approx(base_bytes + 5 * own, rel=0.02)


@pytest.mark.parametrize(
  ("backend", "scan_layers", "sizes"),
  [
    ("dense", False, ONE),
    pytest.param("blocked", True, FOUR, marks=pytest.mark.slow),
  ],
)
def test_every_way_to_compute_takes_a_population_axis(backend, scan_layers, sizes):
  compute = Compute(
    attention=backend, remat="dots", scan_layers=scan_layers, loss_chunk_len=8
  )
  fn = functools.partial(losses.next_token_nll, cfg=ADAPTED, compute=compute)
  rng = np.random.default_rng(1)
  shape = (3, 4, 32)
  tokens = rng.integers(0, CFG.vocab_size, (*shape[:2], 33)).astype(np.int32)
  batch = {
    "inputs": tokens[..., :-1],
    "targets": tokens[..., 1:],
    "positions": np.broadcast_to(np.arange(32, dtype=np.int32) % 16, shape),
    "segment_ids": np.broadcast_to(1 + np.arange(32, dtype=np.int32) // 16, shape),
    "loss_weights": np.ones(shape, np.float32),
  }
  trees = [drawn(ADAPTED, seed) for seed in range(3)]
  noise = lambda leaf: leaf + 0.02 * rng.normal(size=leaf.shape).astype(np.float32)  # noqa: E731
  adapters = [jax.tree.map(noise, lora.split(tree)[0]) for tree in trees]
  base = lora.split(trees[0])[1]

  def gradient(adapter, batch):
    total = lambda adapter: fn(lora.join(adapter, base), batch)[0]  # noqa: E731
    return jax.value_and_grad(total)(adapter)

  with jax.set_mesh(mesh(sizes)):
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *adapters)
    together = jax.jit(jax.vmap(gradient))(stacked, batch)
    last = {name: value[-1] for name, value in batch.items()}
    separate = jax.jit(gradient)(adapters[-1], last)
  for a, b in zip(jax.tree.leaves(separate), jax.tree.leaves(together), strict=True):
    np.testing.assert_allclose(a, b[-1], rtol=1e-4, atol=1e-4)


def test_cudnn_takes_the_rows_of_all_runs_as_one_batch():
  rng = np.random.default_rng(2)
  P, B, T, N, K, H = 3, 2, 16, 4, 2, 8
  shapes = [(P, B, T, heads, H) for heads in (N, K, K)]
  qkv = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
  segments = np.sort(rng.integers(1, 4, (P, B, T)).astype(np.int32))

  def outcome(attend):
    def total(qkv, segment_ids_BT):
      # The last two: a window, and XLA's implementation of the same call.
      out = jax.checkpoint(lambda *qkv: attend(*qkv, segment_ids_BT, 0.3, 5, "xla"))
      return jax.numpy.sum(jax.numpy.sin(out(*qkv)))

    return jax.value_and_grad(total)

  found = jax.jit(jax.vmap(outcome(cudnn.attend_together)))(qkv, segments)
  for place in range(P):
    own = [x[place] for x in qkv], segments[place]
    alone = jax.jit(outcome(cudnn.attend))(*own)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(found), strict=True):
      np.testing.assert_allclose(a, b[place], rtol=1e-5, atol=1e-5)


def tree_of(root, model, most, name):
  """Returns a study with two siblings and a stage that follows one of them."""
  config = small_study.config(model, seeds=(0, 1))
  config["stages"]["msm2"] = small_study.stage("msm", 1e-3)
  config["stages"]["msm"] = small_study.stage("msm", 1e-3)
  config["stages"]["still"] = small_study.stage("still", 1e-3)
  config["arms"]["msm2"] = ("msm2",)
  config["run"] = {"population": most}
  found = small_study.prepared(root / name, config)
  found.__dict__["mesh"] = mesh(ONE)  # what it would make of one device
  return found


def test_siblings_and_seeds_of_a_study_are_one_program(tmp_path, monkeypatch, capfd):
  model = small_study.write_model(tmp_path)
  separate = tree_of(tmp_path, model, 1, "separate")
  separate.train_all([0])
  monkeypatch.setenv("MSM_JAX_QUIET", "0")
  together = tree_of(tmp_path, model, 8, "together")
  together.train_all([0, 1])
  said = capfd.readouterr().err
  assert "4 runs as one program: msm seed 0, msm seed 1, msm2 seed 0, msm2" in said
  assert "2 runs as one program: msm+still seed 0, msm+still seed 1" in said
  for path in separate.experiment.paths():
    done = [
      records.read_json(each.run_dir(path, 0) / study.DONE) | {"wall_s": 0}
      for each in (separate, together)
    ]
    assert done[0] == done[1]
    one, other = (each.weights(path, 0).adapter for each in (separate, together))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5)
