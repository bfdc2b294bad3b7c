"""What is in memory while a stage is trained: the state and the rows, nothing twice."""

import jax
import numpy as np
import small_study

from msm_jax import metrics, optim, sharding, train_state
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig

CFG = ModelConfig(
  vocab_size=64,
  embed_dim=16,
  mlp_dim=24,
  num_layers=1,
  num_heads=2,
  num_kv_heads=2,
  head_dim=8,
  max_seq_len=32,
)


def num_bytes(leaves) -> int:
  return sum(leaf.nbytes for leaf in leaves)


def test_a_state_that_is_donated_leaves_the_parameters_as_they_are():
  mesh = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  config = optim.OptimConfig(learning_rate=1e-3, schedule="constant", warmup_steps=0)
  tx = optim.make_optimizer(config, optim.make_schedule(config, 10))
  params = train_state.place(transformer.init_params(CFG, jax.random.key(0)), CFG, mesh)
  before = jax.tree.map(np.array, params)
  state = train_state.create(params, tx, CFG, mesh)
  places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves((state, params))]
  assert len(set(places)) == len(places)
  change = jax.jit(
    lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0
  )
  changed = change(state)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
  for leaf, old, new in zip(
    *map(jax.tree.leaves, (params, before, changed.params)), strict=True
  ):
    np.testing.assert_array_equal(leaf, old)
    np.testing.assert_array_equal(new, old + 1)


def test_full_training_holds_its_state_and_no_other_parameters(tmp_path, monkeypatch):
  config = small_study.config(small_study.write_model(tmp_path))
  stage = small_study.stage("msm", 1e-3, "full")
  stage |= {"num_train_steps": 2, "num_epochs": None, "checkpoint_at": ()}
  config["stages"] = {"msm": stage}
  config["arms"] = {"msm": ("msm",)}
  study = small_study.prepared(tmp_path / "work", config)
  study.__dict__["mesh"] = sharding.make_mesh(data=1, devices=jax.devices()[:1])
  before, held = {id(array) for array in jax.live_arrays()}, []
  write = metrics.Writer.write

  def measure(self, end, values):
    live = [array for array in jax.live_arrays() if id(array) not in before]
    held.append(num_bytes(live))
    write(self, end, values)

  monkeypatch.setattr(metrics.Writer, "write", measure)
  study.train(("msm",), 0)
  leaves = study.trained_leaves(("msm",), 0)
  params = num_bytes(
    jax.tree.leaves(jax.tree.map(lambda x: np.empty(x.shape, x.dtype), leaves))
  )
  rows = 4 * 5 * 8 * 32  # int32 and float32
  assert max(held) < 3 * params + 3 * rows + 1024
