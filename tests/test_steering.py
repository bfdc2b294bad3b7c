"""A vector in the residual stream: the same by hand, cached, divided, quantised."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_sampling import LORA, model, prompts, settings

from msm_jax import quantised, sampling, sharding, train_state
from msm_jax.errors import UserError
from msm_jax.evals import steering
from msm_jax.evals.model import Model
from msm_jax.evals.steering import SteerConfig
from msm_jax.models import lora, transformer
from msm_jax.models.config import PLAIN, SLIDING, Compute
from msm_jax.packing import Piece

logits_of = jax.jit(transformer.logits, static_argnums=1)
hand = functools.partial(jax.jit, static_argnames=("cfg", "num_layers"))


def direction(cfg, size: float = 2.0) -> np.ndarray:
  return size * np.random.default_rng(7).normal(size=cfg.embed_dim)


def steered(cfg, params, vector, depth=0.5) -> Model:
  return Model(params, cfg, None).steered(vector, depth=depth)


@hand
def by_hand(params, vector, tokens_BT, *, cfg, num_layers) -> jax.Array:
  """Returns logits: the first layers as a model, the sum, the others as a model."""

  def part(start, stop):
    types = cfg.layer_types[start:stop]
    window = cfg.sliding_window if SLIDING in types else None
    changed = {"layer_types": types, "sliding_window": window}
    cut = dataclasses.replace(cfg, num_layers=stop - start, **changed)
    layers = jax.tree.map(lambda leaf: leaf[start:stop], params["layers"])
    return transformer.bind(cut, {**params, "layers": layers})

  positions_BT = jnp.broadcast_to(jnp.arange(tokens_BT.shape[1]), tokens_BT.shape)
  fields = positions_BT, jnp.ones_like(tokens_BT)
  x_BTD = part(0, num_layers).residual(tokens_BT, *fields)[0]
  x_BTD = x_BTD + vector[None, None]
  if num_layers == cfg.num_layers:
    whole = part(0, num_layers)
    return whole.unembed(whole.final_norm(x_BTD))
  rest = part(num_layers, cfg.num_layers)
  rest.embedded = lambda _: x_BTD
  return rest.unembed(rest.hidden(tokens_BT, *fields)[0])


PLACES = [("llama", 1.0), ("gemma3_text", 0.5)]
PLACES += [pytest.param("qwen3", 0.5, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("family", "depth"), PLACES)
def test_a_steered_forward_is_the_plain_one_with_a_sum_behind_a_layer(family, depth):
  cfg, params = model(family)
  vector = jnp.asarray(direction(cfg), jnp.float32)
  tokens_BT = jnp.asarray(np.random.default_rng(0).integers(0, cfg.vocab_size, (2, 9)))
  found = steered(cfg, params, vector, depth)
  num_layers = max(round(depth * cfg.num_layers), 1)
  expected = by_hand(params, vector, tokens_BT, cfg=cfg, num_layers=num_layers)
  logits = logits_of(found.params, found.cfg, tokens_BT)
  np.testing.assert_allclose(logits, expected, atol=2e-5, rtol=1e-5)
  plain = logits_of(params, cfg, tokens_BT)
  assert np.abs(logits - plain).max() > 0.01


@pytest.mark.slow
def test_unrolled_layers_are_steered_as_stacked_ones_are():
  cfg, params = model("llama")
  found = steered(cfg, params, direction(cfg))
  tokens_BT = jnp.arange(12).reshape(1, 12)
  fields = tokens_BT, tokens_BT, jnp.ones_like(tokens_BT)

  @functools.partial(jax.jit, static_argnames="compute")
  def hidden(params, compute):
    bound = transformer.bind(found.cfg, params)
    return bound.hidden(*fields, compute=compute)[0]

  ways = [hidden(found.params, way) for way in (PLAIN, Compute(scan_layers=False))]
  np.testing.assert_allclose(*ways, atol=1e-5)


WAYS = [("llama", True)]
WAYS += [
  pytest.param(family, unstack, marks=pytest.mark.slow)
  for family in ("llama", "gemma3_text")
  for unstack in (False, True)
  if (family, unstack) != ("llama", True)
]


@pytest.mark.parametrize(("family", "unstack"), WAYS)
def test_cached_decoding_is_the_uncached_forward_of_a_steered_model(family, unstack):
  cfg, params = model(family)
  found = steered(cfg, params, direction(cfg))
  sampler = sampling.Sampler(found.params, found.cfg, unstack=unstack)
  asked = prompts(5, cfg)
  done = dict(sampler.complete(asked, range(5), settings(stop_ids=(-1,))))
  plain = sampling.Sampler(params, cfg, unstack=unstack)
  plain = dict(plain.complete(asked, range(5), settings(stop_ids=(-1,))))
  forward = functools.partial(logits_of, found.params, found.cfg)
  for i, prompt in enumerate(asked):
    ids = np.concatenate([prompt, done[i].ids])
    row = np.zeros((1, 32), np.int32)
    row[0, : len(ids)] = ids
    logits = np.asarray(forward(row))[0, len(prompt) - 1 : len(ids) - 1]
    chosen = logits[np.arange(len(done[i].ids)), done[i].ids]
    np.testing.assert_allclose(chosen, logits.max(axis=-1), atol=1e-4)
  assert any(list(done[i].ids) != list(plain[i].ids) for i in range(5))


def test_a_vector_of_zeros_changes_no_log_prob_and_no_completion():
  cfg, params = model("llama")
  rng = np.random.default_rng(1)
  pieces = [
    Piece(rng.integers(0, cfg.vocab_size, 9).astype(np.int32), np.ones(9, np.float32))
    for _ in range(6)
  ]
  both = Model(params, cfg, None), steered(cfg, params, np.zeros(cfg.embed_dim))
  nll = [one.nll(pieces, seq_len=32, batch_size=2) for one in both]
  np.testing.assert_array_equal(*nll)
  asked, how = prompts(5, cfg), settings(stop_ids=(-1,))
  said = [
    dict(sampling.Sampler(one.params, one.cfg).complete(asked, range(5), how))
    for one in both
  ]
  for i in range(5):
    np.testing.assert_array_equal(said[0][i].ids, said[1][i].ids)


def adapted():
  """Returns (cfg, base, adapters) of a model with adapters that do something."""
  cfg, _ = model("llama", lora=LORA)
  adapter, base = lora.split(transformer.init_params(cfg, jax.random.key(3)))
  return cfg, base, jax.tree.map(lambda leaf: leaf + 0.05, adapter)


@pytest.mark.slow
def test_adapters_are_steered_as_the_merged_model_is():
  cfg, base, adapter = adapted()
  params, tokens_BT = lora.join(base, adapter), jnp.arange(10).reshape(1, 10)
  vector = direction(cfg)
  found = steered(cfg, params, vector)
  merged = dataclasses.replace(cfg, lora=None)
  whole = lora.merge(params, LORA.alpha / LORA.rank)
  expected = steered(merged, whole, vector)
  logits = [logits_of(one.params, one.cfg, tokens_BT) for one in (found, expected)]
  np.testing.assert_allclose(*logits, atol=2e-5)


@pytest.mark.slow
def test_a_quantised_base_is_steered_as_its_floats_are():
  pytest.importorskip("qwix")
  cfg, base, adapter = adapted()
  vector, tokens_BT = direction(cfg), jnp.arange(10).reshape(1, 10)
  held = quantised.hold(base, dtype="int8")
  floats = jax.tree.map(
    lambda leaf: quantised.floats(leaf, jnp.float32),
    held,
    is_leaf=quantised.is_quantised,
  )
  pair = [steered(cfg, lora.join(one, adapter), vector) for one in (held, floats)]
  logits = [logits_of(one.params, one.cfg, tokens_BT) for one in pair]
  np.testing.assert_allclose(*logits, atol=2e-5)


@pytest.mark.slow
def test_a_divided_model_is_steered_as_a_whole_one_is():
  cfg, params = model("llama")
  vector, tokens_BT = direction(cfg), jnp.arange(16).reshape(2, 8)
  expected = steered(cfg, params, vector)
  expected = logits_of(expected.params, expected.cfg, tokens_BT)
  mesh = sharding.make_mesh(data=2, fsdp=2, tensor=2)
  with jax.set_mesh(mesh):
    found = steered(cfg, train_state.place(params, cfg, mesh), vector)
    assert found.params["layers"]["steering"].sharding.mesh == mesh
    logits = logits_of(found.params, found.cfg, tokens_BT)
    np.testing.assert_allclose(logits, expected, atol=2e-5)


def test_the_mean_of_a_document_is_that_of_its_states_but_the_first():
  cfg, params = model("qwen3")
  rng = np.random.default_rng(2)
  pieces = [
    Piece(rng.integers(0, cfg.vocab_size, n).astype(np.int32), np.ones(n, np.float32))
    for n in (9, 3, 14, 7, 5)
  ]
  found, lengths = Model(params, cfg, None).mean_states(
    pieces, depth=1.0, batch_size=2, multiple=16
  )

  @jax.jit
  def residual(tokens_BT):
    positions_BT = jnp.arange(tokens_BT.shape[1])[None]
    fields = tokens_BT, positions_BT, jnp.ones_like(tokens_BT)
    return transformer.bind(cfg, params).residual(*fields)[0]

  for piece, mean, length in zip(pieces, found, lengths, strict=True):
    row = np.zeros((1, 16), np.int32)  # one shape; what follows is not seen
    row[0, : piece.num_slots] = piece.ids[:-1]
    x_TD = np.asarray(residual(row)[0, 1 : piece.num_slots], np.float64)
    np.testing.assert_allclose(mean, x_TD.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(length, np.linalg.norm(x_TD, axis=1).mean(), rtol=1e-5)


CONFIG = {"positive": "a", "negative": "b", "depth": 0.5, "scale": 1.0}


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"positive": "c"}, r"here\.positive is 'c', config.corpora has \['a', 'b'\]"),
    ({"negative": "a"}, "both 'a': there is no difference"),
    ({"depth": 0}, r"here\.depth \(0\) is above 0"),
    ({"depth": True}, r"here\.depth \(True\)"),
    ({"scale": float("nan")}, r"here\.scale \(nan\) must be a number"),
    ({"scale": "4"}, r"here\.scale \('4'\) must be a number"),
    ({"max_items": 0}, r"here\.max_items \(0\) must be a whole number"),
    ({"batch_size": None}, r"here\.batch_size \(None\) must be a whole number"),
  ],
)
def test_a_direction_that_cannot_be_is_refused_by_field(changes, message):
  with pytest.raises(UserError, match=message):
    steering.check(SteerConfig(**CONFIG | changes), "here", ["a", "b"])
