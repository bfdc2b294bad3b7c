"""The decoder: what may see what, and how large it is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msm_jax import losses, packing, sharding
from msm_jax.errors import UserError
from msm_jax.models import lora, remat, rope, transformer
from msm_jax.models.attention import dense
from msm_jax.models.config import (
  FULL,
  SLIDING,
  Compute,
  LoraConfig,
  ModelConfig,
  RopeScaling,
)
from msm_jax.packing import Piece

CFG = ModelConfig(
  vocab_size=40,
  embed_dim=24,
  mlp_dim=32,
  num_layers=3,
  num_heads=6,
  num_kv_heads=2,
  head_dim=4,
  max_seq_len=64,
)
# Qwen3-32B's shapes: nothing of it is ever computed here.
LARGE = ModelConfig(
  vocab_size=151936,
  embed_dim=5120,
  mlp_dim=25600,
  num_layers=64,
  num_heads=64,
  num_kv_heads=8,
  head_dim=128,
  max_seq_len=40960,
  tie_embeddings=False,
  qk_norm=True,
  family="qwen3",
  lora=LoraConfig(rank=64, alpha=128.0),
)


@pytest.fixture(scope="module")
def params():
  return transformer.init_params(CFG, jax.random.key(0))


def tokens(num_rows, length, seed=0):
  return jax.random.randint(jax.random.key(seed), (num_rows, length), 0, 40)


def test_a_position_depends_on_no_later_one(params):
  untied = dataclasses.replace(CFG, tie_embeddings=False)
  head = {"kernel": jnp.ones((24, 40))}

  def of_untied(embedding):
    changed = params | {"embed": {"embedding": embedding}, "lm_head": head}
    return transformer.logits(changed, untied, jnp.arange(10)[None])[0, 6].sum()

  grads = jax.grad(of_untied)(params["embed"]["embedding"])
  reached = np.flatnonzero(np.abs(grads).sum(1))
  np.testing.assert_array_equal(reached, np.arange(7))


def test_packed_documents_give_the_logits_of_separate_ones(params):
  rng = np.random.default_rng(0)
  pieces = [
    Piece(rng.integers(0, 40, n).astype(np.int32), np.ones(n, np.float32))
    for n in (9, 5, 12)
  ]
  row = packing.make_row(pieces, 32)
  batch = {name: jnp.asarray(value)[None] for name, value in row.items()}
  packed = transformer.logits(
    params, CFG, batch["inputs"], batch["positions"], batch["segment_ids"]
  )
  at = 0
  for piece in pieces:
    alone = transformer.logits(params, CFG, jnp.asarray(piece.ids[:-1])[None])
    np.testing.assert_allclose(
      packed[0, at : at + piece.num_slots], alone[0], atol=2e-6
    )
    at += piece.num_slots


def test_the_loss_of_a_row_is_the_sum_of_its_documents(params):
  rng = np.random.default_rng(1)
  pieces = [
    Piece(
      rng.integers(0, 40, n).astype(np.int32),
      (rng.random(n) < 0.5).astype(np.float32),
    )
    for n in (9, 5, 12)
  ]

  def sums(rows):
    batch = {name: np.stack([row[name] for row in rows]) for name in packing.FIELDS}
    return losses.next_token_nll(params, batch, cfg=CFG)

  together = sums([packing.make_row(pieces, 32)])
  # The last row is empty: it weighs nothing.
  each = [[piece] for piece in pieces]
  apart = sums([packing.make_row(some, 32) for some in (*each, [])])
  np.testing.assert_allclose(together, apart, rtol=1e-6)


@functools.partial(jax.jit, static_argnames="compute")
def gradient(params, batch, compute=Compute()):  # noqa: B008 (frozen)
  def loss(params):
    return losses.next_token_nll(params, batch, cfg=CFG, compute=compute)[0]

  return jax.grad(loss)(params)


@pytest.mark.parametrize(
  "changes",
  [
    *({"remat": policy} for policy in remat.POLICIES if policy != "none"),
    {"scan_layers": False, "remat": "full"},
    {"attention": "blocked", "remat": "dots"},
  ],
  ids=str,
)
def test_saving_memory_changes_no_gradient(params, changes):
  row = packing.make_row(
    [Piece(np.asarray(tokens(1, 30)[0]), np.ones(30, np.float32))], 32
  )
  batch = {name: jnp.asarray(value)[None] for name, value in row.items()}
  plain = gradient(params, batch)
  saving = gradient(params, batch, Compute(**changes))
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(saving), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4)


def test_attention_matches_a_plain_numpy_line():
  rng = np.random.default_rng(0)
  q, k, v = (rng.normal(size=(1, 5, heads, 4)).astype("f4") for heads in (4, 2, 2))
  mask = np.tril(np.ones((1, 5, 5), bool))
  ours = dense.attend(jnp.asarray(q), jnp.asarray(k), jnp.asarray(v), mask, scale=0.5)
  for head in range(4):
    scores = q[0, :, head] @ k[0, :, head // 2].T / 2
    scores = np.where(mask[0], scores, -np.inf)
    weights = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = weights @ v[0, :, head // 2]
    np.testing.assert_allclose(ours[0, :, head], expected, atol=1e-6)


def test_a_fresh_adapter_changes_nothing_and_merging_is_the_same_function(params):
  cfg = dataclasses.replace(CFG, lora=LoraConfig(rank=4, alpha=8.0))
  adapter, base = lora.split(transformer.init_params(cfg, jax.random.key(1)))
  plain = transformer.logits(base, CFG, tokens(2, 9))
  fresh = transformer.logits(lora.join(base, adapter), cfg, tokens(2, 9))
  np.testing.assert_array_equal(plain, fresh)
  moved = jax.tree.map(lambda x: x + 0.1, adapter)
  whole = lora.join(base, moved)
  merged = lora.merge(whole, scale=2.0)
  np.testing.assert_allclose(
    transformer.logits(merged, CFG, tokens(2, 9)),
    transformer.logits(whole, cfg, tokens(2, 9)),
    atol=2e-3,
    rtol=1e-4,
  )


def test_only_targeted_projections_have_adapters():
  cfg = dataclasses.replace(CFG, lora=LoraConfig(rank=2, alpha=2.0, targets=("q", "v")))
  adapter, _ = lora.split(transformer.abstract_params(cfg))
  assert set(adapter["layers"]) == {"attention"}
  assert set(adapter["layers"]["attention"]) == {"q", "v"}


def test_the_parameter_count_of_a_32b_model_without_computing_it():
  shapes = transformer.abstract_params(LARGE)
  adapter, base = lora.split(shapes)
  num_base = sum(leaf.size for leaf in jax.tree.leaves(base))
  assert num_base == LARGE.num_params() == 32_762_123_264
  assert sum(leaf.size for leaf in jax.tree.leaves(adapter)) == 536_870_912


def test_every_large_leaf_is_divided_on_a_pod():
  mesh_shape = {"data": 1, "fsdp": 64, "tensor": 4}
  shapes, axes = transformer.abstract_params(LARGE), transformer.logical_axes(LARGE)
  for path, leaf in jax.tree.leaves_with_path(shapes):
    node = axes
    for entry in path:
      node = node[entry.key]
    assert len(node) == leaf.ndim
    parts = [part for part in sharding.spec(node, leaf.shape, mesh_shape) if part]
    assert leaf.size < 10**6 or parts, (path, leaf.shape)


def test_a_dimension_that_its_axis_does_not_divide_is_replicated():
  mesh_shape = {"data": 1, "fsdp": 2, "tensor": 4}
  axes = ("layers", "embed", "heads", "head_dim")
  assert sharding.spec(axes, (3, 24, 6, 4), mesh_shape)[2] is None  # 6 heads over 4
  assert sharding.spec(axes, (3, 24, 8, 4), mesh_shape)[2] is not None


def test_llama3_frequencies_keep_the_fast_and_slow_the_slow():
  scaling = RopeScaling(
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=8192,
  )
  plain = rope.inverse_frequencies(128, 500000.0, None)
  scaled = rope.inverse_frequencies(128, 500000.0, scaling)
  np.testing.assert_allclose(scaled[0], plain[0])
  np.testing.assert_allclose(scaled[-1], plain[-1] / 8)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"num_kv_heads": 4}, "num_heads"),
    ({"head_dim": 5}, "must be even"),
    ({"activation": "swish"}, "swish"),
    ({"bias": ("q", "query")}, "query"),
    ({"layer_types": (FULL,)}, "names 1 layers"),
    ({"layer_types": ("local",) * 3, "sliding_window": 4}, "local"),
    ({"sliding_window": 4}, "do not agree"),
    ({"layer_types": (FULL, FULL, SLIDING)}, "do not agree"),
  ],
)
def test_sizes_that_cannot_be_are_refused(changes, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(CFG, **changes)


def test_a_mesh_that_does_not_cover_the_devices_is_refused():
  with pytest.raises(UserError, match="8 devices"):
    sharding.make_mesh(data=3)


def test_there_is_no_host_to_offload_to_on_a_cpu():
  policy, said = remat.choose("offload", "cpu")
  assert policy == "full" and "'offload'" in said
  assert remat.choose("offload", "tpu") == ("offload", None)
