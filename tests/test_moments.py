"""Moments and parameters in few bits: what is kept, what it costs, where it lies."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from msm_jax import (
  checkpoint,
  moments,
  optim,
  packing,
  sharding,
  train,
)
from msm_jax.errors import UserError
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig
from msm_jax.packing import Piece

CFG = ModelConfig(
  vocab_size=128,
  embed_dim=64,
  mlp_dim=96,
  num_layers=2,
  num_heads=4,
  num_kv_heads=2,
  head_dim=16,
  max_seq_len=32,
)
ADAM = optim.OptimConfig(learning_rate=3e-3, schedule="constant", warmup_steps=0)
NARROW = ("bfloat16", "float8")
# The largest step between neighbours, of the smaller one: 7 and 3 bits of mantissa.
STEP = {"bfloat16": 2**-7, "float8": 2**-3}
NUMBERS = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (1000, 7)]  # of step and leaf


@functools.partial(jax.jit, static_argnames="dtype")
def kept(x, nu, dtype, count=0):
  """Returns moments as they are after they were kept in `dtype`."""
  state = optax.ScaleByAdamState(jnp.int32(count), {"w": x}, {"w": nu})
  narrow = moments._narrowed(state, dtype)
  return moments._widened(narrow.mu)["w"], moments._widened(narrow.nu)["w"]


def drawn(shape, octaves, seed=0):
  """Returns numbers whose sizes spread over so many powers of two."""
  rng = np.random.default_rng(seed)
  x = rng.choice([-1.0, 1.0], shape) * 2.0 ** rng.uniform(-octaves, 0, shape)
  return jnp.asarray(x, jnp.float32)


def test_moments_in_float32_are_those_of_optax_to_the_bit():
  params = {"w": drawn((64, 128), 8)}
  ours, theirs = (
    moments.scale_by_adam(0.9, 0.98, 1e-8, "float32"),
    optax.scale_by_adam(0.9, 0.98, 1e-8),
  )
  found, wanted = ours.init(params), theirs.init(params)
  assert jax.tree.structure(found) == jax.tree.structure(wanted)
  for seed in range(3):
    grads = {"w": drawn((64, 128), 8, seed)}
    update, found = ours.update(grads, found)
    expected, wanted = theirs.update(grads, wanted)
    jax.tree.map(np.testing.assert_array_equal, (update, found), (expected, wanted))


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("shape", [(64, 128), (3, 40, 4, 12), (4099, 1)])
def test_what_is_kept_is_a_neighbour_of_what_was_there(dtype, shape):
  x = drawn(shape, 12)
  mu, nu = kept(x, x * x, dtype)
  np.testing.assert_array_less(np.abs(mu - x), STEP[dtype] * np.abs(x))
  np.testing.assert_array_less(np.abs(nu - x * x), STEP[dtype] * x * x)


@pytest.mark.parametrize("dtype", NARROW)
def test_rounding_is_right_on_average(dtype):
  x = drawn((4096,), 4)
  many = jax.vmap(lambda count: kept(x, x * x, dtype, count)[0])(jnp.arange(500))
  # The mean of 500 draws that are at most STEP apart.
  error = np.abs(np.mean(np.asarray(many), 0) - x) / np.abs(x)
  assert error.max() < 5 * STEP[dtype] / 2 / np.sqrt(500)


def test_what_is_kept_already_stays_as_it_is():
  mu, nu = kept(drawn((64, 128), 12), drawn((64, 128), 12) ** 2, "float8")
  again = kept(mu, nu, "float8", count=1)
  np.testing.assert_array_equal(again[0], mu)
  np.testing.assert_array_equal(again[1], nu)


def test_a_second_moment_never_becomes_zero_and_zero_stays_zero():
  nu = jnp.ones((64, 128)).at[:, ::2].set(1e-30).at[:, ::3].set(0.0)
  mu = jnp.full((64, 128), 1e-30).at[:, 1].set(1.0)
  found_mu, found_nu = kept(mu, nu, "float8")
  np.testing.assert_array_equal(found_nu == 0, nu == 0)
  np.testing.assert_allclose(found_nu[:, 2], 2.0**-31, rtol=0.2)
  assert np.all(np.asarray(found_mu[:, :32] != 0) == (np.arange(32) == 1))
  np.testing.assert_allclose(found_mu[:, 32:], 1e-30, rtol=STEP["float8"])


@pytest.mark.parametrize("dtype", NARROW)
def test_an_average_follows_although_it_moves_by_a_thousandth_per_step(dtype):
  tx = moments.scale_by_adam(0.9, 0.999, 1e-8, dtype)
  grads = {"w": jnp.full((4096,), 0.1)}
  wide = optax.scale_by_adam().init(grads)._replace(nu={"w": jnp.ones(4096)})

  def step(i, state):
    return tx.update(grads, state)[1]

  after = jax.lax.fori_loop(0, 2000, step, moments._narrowed(wide, dtype))
  wanted = 0.01 + (1 - 0.01) * 0.999**2000
  nu = np.asarray(moments._widened(after.nu)["w"])
  np.testing.assert_allclose(nu.mean(), wanted, rtol=0.02)
  # Noise adds up to a spread of the root (what divides the update) of that much.
  assert np.std(np.sqrt(nu)) < {"bfloat16": 0.06, "float8": 0.25}[dtype] * wanted**0.5


def rows(seed):
  rng = np.random.default_rng(seed)
  ids = (np.arange(400) * 7 + rng.integers(0, 128)) % 128
  pieces = [
    Piece(ids[i : i + 30].astype(np.int32), np.ones(30, np.float32))
    for i in range(0, 360, 30)
  ]
  found = list(packing.pack(pieces, 32))[:8]
  return {name: np.stack([row[name] for row in found]) for name in packing.FIELDS}


def step_of(optimizer, params, mesh):
  config = train.TrainConfig(
    num_train_steps=100, batch_size=8, seq_len=32, optimizer=optimizer
  )
  return train.make_step(config, CFG, params, mesh)


@functools.cache
def trained(dtype, params_dtype="float32", num_steps=40, mesh_shape=(1, 1, 1)):
  """Returns (losses, state) of a run of `num_steps`."""
  mesh = sharding.make_mesh(*mesh_shape, jax.devices()[: math.prod(mesh_shape)])
  init = jax.jit(transformer.init_params, static_argnums=0)
  params = init(CFG, jax.random.key(0))
  params = jax.tree.map(lambda leaf: leaf.astype(params_dtype), params)
  step = step_of(dataclasses.replace(ADAM, moments_dtype=dtype), params, mesh)
  with jax.set_mesh(mesh):
    state, found = step.init(params), []
    for seed in range(num_steps):
      batch = {name: value[None, None] for name, value in rows(seed).items()}
      state, metrics = step.fn(state, {}, batch)
      found.append(float(metrics["loss"][0]))
  return np.asarray(found), state


@pytest.mark.parametrize(
  "dtype", [pytest.param("bfloat16", marks=pytest.mark.slow), "float8"]
)
def test_a_model_learns_with_kept_moments_as_with_float32(dtype):
  wanted, found = trained("float32")[0], trained(dtype)[0]
  assert wanted[-1] < wanted[0] / 3  # there is something to learn
  # Rounding is right on average, so that losses differ by a small part of the way that
  # they have come.
  tolerance = {"bfloat16": 0.005, "float8": 0.01}[dtype] * wanted[0]
  np.testing.assert_allclose(found, wanted, atol=tolerance)


@pytest.mark.parametrize(
  ("dtype", "num_bytes"), [("float32", 8), ("bfloat16", 4), ("float8", 2 + 1 / 16)]
)
def test_bytes_are_what_is_said(dtype, num_bytes):
  params = {"w": jnp.zeros((64, 1024))}
  tx = moments.scale_by_adam(0.9, 0.999, 1e-8, dtype)
  state = jax.eval_shape(tx.init, params)
  held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
  assert held - 4 == num_bytes * 64 * 1024  # the count


def test_kept_moments_lie_where_their_parameters_do():
  mesh = sharding.make_mesh(1, 4, 2)
  params = transformer.abstract_params(CFG)
  state = step_of(dataclasses.replace(ADAM, moments_dtype="float8"), params, mesh).state
  gate = state.params["layers"]["mlp"]["gate"]["kernel"]
  nu = next(one.nu for one in state.opt_state if hasattr(one, "nu"))
  packed = nu["layers"]["mlp"]["gate"]["kernel"]
  assert packed.codes.shape == gate.shape == (2, 64, 96)
  assert packed.codes.sharding == gate.sharding
  assert gate.sharding.shard_shape(gate.shape) == (2, 16, 48)
  assert packed.exponents.shape == (2, 64, 3)
  assert packed.exponents.sharding.shard_shape((2, 64, 3)) == (2, 16, 3)


def test_random_bits_are_even_and_do_not_repeat():
  leaf = jnp.zeros((64, 1024))
  drawn = [moments._noise(0, jnp.int32(step), index, leaf) for step, index in NUMBERS]
  drawn += [moments._noise(1, jnp.int32(0), 0, leaf)]
  found = np.stack([np.asarray(bits).ravel() for both in drawn for bits in both])
  found = found.astype(np.float64) / 2**16
  assert np.abs(found.mean(1) - 0.5).max() < 5 / np.sqrt(12 * leaf.size)
  counts = [np.histogram(bits, 256, (0, 1))[0] for bits in found]
  chi = np.sum((np.asarray(counts) - 256) ** 2 / 256, axis=1)
  assert np.all(np.abs(chi - 255) < 5 * np.sqrt(2 * 255))
  correlated = np.abs(np.corrcoef(found) - np.eye(len(found))).max()
  next_ones = max(abs(np.corrcoef(bits[:-1], bits[1:])[0, 1]) for bits in found)
  assert max(correlated, next_ones) < 5 / np.sqrt(leaf.size)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NARROW)
def test_another_mesh_draws_the_same_random_bits(dtype):
  # Sums in another order may push a number over to its neighbour.
  found = trained(dtype, num_steps=6, mesh_shape=(1, 4, 2))[0]
  np.testing.assert_allclose(found, trained(dtype)[0][:6], rtol=2e-3)


@pytest.mark.slow
def test_bfloat16_parameters_learn_although_updates_are_small():
  wanted, (found, state) = trained("float32")[0], trained("float32", "bfloat16")
  assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {
    jnp.dtype("bfloat16")
  }
  floats = {x.dtype for x in jax.tree.leaves(state.opt_state) if x.ndim}
  assert floats == {jnp.dtype("float32")}
  np.testing.assert_allclose(found, wanted, atol=0.03 * wanted[0])


@pytest.mark.parametrize(
  ("dtype", "params_dtype"),
  [
    ("float8", "float32"),
    pytest.param("bfloat16", "float32", marks=pytest.mark.slow),
    pytest.param("float32", "bfloat16", marks=pytest.mark.slow),
  ],
)
def test_a_checkpoint_brings_all_back_bit_for_bit(tmp_path, dtype, params_dtype):
  _, state = trained(dtype, params_dtype)
  with checkpoint.Checkpointer(tmp_path) as checkpointer:
    checkpointer.save(40, state, {"stage": "test"}, wait=True)
  optimizer = dataclasses.replace(ADAM, moments_dtype=dtype)
  elsewhere = step_of(optimizer, state.params, sharding.make_mesh(1, 4, 2)).state
  with checkpoint.Checkpointer(tmp_path, read_only=True) as checkpointer:
    found = checkpointer.restore(elsewhere, {"stage": "test"})
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
    assert a.dtype == b.dtype
    np.testing.assert_array_equal(a, b)


def test_updates_below_the_precision_of_bfloat16_add_up():
  tx = optax.scale(-1.0)
  params = {"w": jnp.ones(4096, jnp.bfloat16)}
  grads = {"w": jnp.full(4096, 2.0**-12)}  # a sixteenth of the step below 1

  def step(i, params):
    return optim.update(tx, grads, tx.init(params), params, i)[0]

  after = jax.lax.fori_loop(0, 1000, step, params)["w"].astype(jnp.float32)
  np.testing.assert_allclose(np.mean(after), 1 - 1000 * 2.0**-12, rtol=1e-2)
  assert np.asarray(params["w"] - grads["w"].astype(jnp.bfloat16) == 1).all()


def test_numbers_that_are_not_finite_stay_so():
  x = jnp.asarray([jnp.nan, jnp.inf, -jnp.inf, 1.0] * 2048)
  for dtype in NARROW:
    mu, _ = kept(x, jnp.abs(x), dtype)
    np.testing.assert_array_equal(np.isfinite(mu[:3]), [False] * 3)
  rounded = moments.rounded_like({"w": x}, {"w": x.astype(jnp.bfloat16)}, jnp.int32(0))
  np.testing.assert_array_equal(rounded["w"].astype(jnp.float32), x)


def test_an_unknown_dtype_names_the_known_ones():
  with pytest.raises(UserError, match=r"moments_dtype 'int4' is not one of .*float8"):
    dataclasses.replace(ADAM, moments_dtype="int4")
