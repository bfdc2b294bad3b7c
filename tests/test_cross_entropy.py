"""The chunked loss: the same numbers as the plain one, without its logits."""

import dataclasses

import jax
import numpy as np
import pytest

from msm_jax import losses, sharding
from msm_jax.models import lora, transformer
from msm_jax.models.config import Compute, LoraConfig, ModelConfig

CFG = ModelConfig(
  vocab_size=48,
  embed_dim=16,
  mlp_dim=20,
  num_layers=1,
  num_heads=2,
  num_kv_heads=2,
  head_dim=4,
  max_seq_len=16,
  tie_embeddings=False,
)
CHUNKED = Compute(loss_chunk_len=4)


def batch(num_rows=8, length=16, vocab_size=48):
  rng = np.random.default_rng(0)
  ids = rng.integers(0, vocab_size, (2, num_rows, length)).astype(np.int32)
  return {
    "inputs": ids[0],
    "targets": ids[1],
    "positions": np.tile(np.arange(length, dtype=np.int32), (num_rows, 1)),
    "segment_ids": np.ones((num_rows, length), np.int32),
    "loss_weights": rng.choice([0.0, 1.0, 0.3], (num_rows, length)).astype("f4"),
  }


def loss_and_grads(cfg, params, rows, compute, trained=("embed", "layers", "lm_head")):
  trained = {name: params[name] for name in trained if name in params}

  def loss(trained):
    whole = params | trained
    return losses.next_token_nll(whole, rows, cfg=cfg, compute=compute)[0]

  return jax.jit(jax.value_and_grad(loss))(trained)


def assert_same(found, expected):
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
  "changes",
  [{}, {"tie_embeddings": True}, {"final_softcap": 2.0}],
  ids=str,
)
def test_chunks_change_neither_the_loss_nor_a_gradient(changes):
  cfg = dataclasses.replace(CFG, **changes)
  params, rows = transformer.init_params(cfg, jax.random.key(0)), batch()
  expected = loss_and_grads(cfg, params, rows, Compute())
  assert_same(loss_and_grads(cfg, params, rows, CHUNKED), expected)
  whole, chunked = (
    losses.row_nll(params, rows, cfg=cfg, compute=compute)
    for compute in (Compute(), CHUNKED)
  )
  np.testing.assert_allclose(chunked, whole, atol=1e-5)


@pytest.mark.parametrize(
  ("mesh", "vocab_size"),
  [
    ({"data": 2, "fsdp": 2, "tensor": 2}, 48),
    ({"data": 1, "fsdp": 1, "tensor": 8}, 48),
    ({"data": 1, "fsdp": 2, "tensor": 4}, 50),  # 4 do not divide it
  ],
  ids=str,
)
def test_a_mesh_changes_neither_the_loss_nor_a_gradient(mesh, vocab_size):
  cfg = dataclasses.replace(CFG, vocab_size=vocab_size, final_softcap=5.0)
  params = transformer.init_params(cfg, jax.random.key(0))
  # Of size 1: the first norm divides by their size, gradients and rounding alike.
  params["embed"] = jax.tree.map(lambda x: 50 * x, params["embed"])
  rows = batch(vocab_size=vocab_size)
  loss, grads = loss_and_grads(cfg, params, rows, Compute())
  with jax.set_mesh(sharding.make_mesh(**mesh)):
    assert_same(loss_and_grads(cfg, params, rows, CHUNKED), (loss, grads))
    frozen_head = loss_and_grads(cfg, params, rows, CHUNKED, trained=("layers",))
    assert_same(frozen_head, (loss, {"layers": grads["layers"]}))


def shapes_in(jaxpr) -> set[tuple[int, ...]]:
  """Returns the shapes of all values in a program."""
  found = set()
  for equation in jaxpr.eqns:
    found |= {getattr(out.aval, "shape", ()) for out in equation.outvars}
    for value in jax.tree.leaves(
      equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
    ):
      inner = getattr(value, "jaxpr", value)
      if hasattr(inner, "eqns"):
        found |= shapes_in(inner)
  return found


def test_the_logits_of_a_whole_row_never_exist():
  rows, params = batch(), transformer.init_params(CFG, jax.random.key(0))

  def shapes(compute):
    def loss(params):
      return losses.next_token_nll(params, rows, cfg=CFG, compute=compute)[0]

    return shapes_in(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)

  assert (8, 16, 48) in shapes(Compute())
  assert (8, 16, 48) not in shapes(CHUNKED)
  assert (8, 4, 48) in shapes(CHUNKED)


def test_a_kernel_that_is_not_trained_gets_no_gradient():
  cfg = dataclasses.replace(CFG, lora=LoraConfig(rank=2, alpha=2.0))
  adapter, base = lora.split(transformer.init_params(cfg, jax.random.key(0)))

  def shapes(of):
    def loss(trained, frozen):
      whole = lora.join(trained, frozen)
      return losses.next_token_nll(whole, batch(), cfg=cfg, compute=CHUNKED)[0]

    return shapes_in(jax.make_jaxpr(jax.grad(loss))(*of).jaxpr)

  no_sums = (0, 0)  # instead of products of hidden states and gradients of logits
  assert no_sums not in shapes((base, adapter))
  assert no_sums in shapes((adapter, base))
