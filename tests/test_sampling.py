"""What a request is answered depends on its prompt and seed, on nothing else."""

import dataclasses
import functools
import importlib.util

import drawn_models
import hf_models
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msm_jax import quantised, sampling, sharding, train_state
from msm_jax.errors import UserError
from msm_jax.models import lora, matmul, transformer
from msm_jax.models.config import FULL, SLIDING, LoraConfig
from msm_jax.sampling import drawing

LORA = LoraConfig(rank=3, alpha=6.0, targets=("q", "v", "o", "down"))
STOPS = (4, 7)


@functools.cache
def model(family: str = "gemma3_text", **changes):
  """Returns a small model with windows where the family can have them."""
  cfg = dataclasses.replace(
    drawn_models.draw(family, 2),
    embed_dim=16,
    mlp_dim=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=4,
    max_seq_len=300,
    **changes,
  )
  if cfg.layer_types:
    types = (SLIDING, FULL)
    cfg = dataclasses.replace(cfg, num_layers=2, layer_types=types, sliding_window=5)
  return cfg, jax.tree.map(jnp.asarray, hf_models.params(cfg))


def prompts(count: int, cfg) -> list[np.ndarray]:
  rng = np.random.default_rng(count)
  sizes = rng.integers(1, 16, count)
  return [rng.integers(8, cfg.vocab_size, n).astype(np.int32) for n in sizes]


def settings(**changes) -> sampling.SamplingConfig:
  given = {"max_new_tokens": 12, "stop_ids": STOPS, "batch_size": 4}
  return sampling.SamplingConfig(**{**given, **changes})


def asked(sampler, found, config, seeds=None) -> list[tuple]:
  """Returns (ids, whether it stopped) of every prompt, in order."""
  seeds = range(len(found)) if seeds is None else seeds
  done = dict(sampler.complete(found, list(seeds), config))
  return [(*map(int, done[i].ids), done[i].is_stopped) for i in range(len(found))]


def test_stacked_layers_as_accelerators_have_them_draw_the_same():
  cfg, params = model()
  given, config = prompts(6, cfg), settings()
  samplers = (sampling.Sampler(params, cfg, unstack=each) for each in (True, False))
  unstacked, stacked = (asked(each, given, config) for each in samplers)
  assert stacked == unstacked


@pytest.mark.slow
def test_a_completion_does_not_depend_on_batch_row_or_order():
  cfg, params = model()
  sampler, given = sampling.Sampler(params, cfg), prompts(11, cfg)
  config = settings(temperature=1.0, top_p=0.8)
  together = asked(sampler, given, config)
  assert len({len(each) for each in together}) > 2  # rows end at different times
  order = np.random.default_rng(0).permutation(len(given))
  assert asked(sampler, [given[i] for i in order], config, order) == [
    together[i] for i in order
  ]
  config = dataclasses.replace(config, batch_size=1)
  alone = asked(sampler, given[:3], config)  # each is a refill of the same row
  assert alone == together[:3]
  config = dataclasses.replace(config, top_p=1.0)
  found = asked(sampler, given[:1] * 5, config, [5, 6, 7, 8, 5])
  assert len(set(found)) > 2 and found[0] == found[4]


@pytest.mark.parametrize(
  "family", ["gemma3_text", pytest.param("gemma2", marks=pytest.mark.slow)]
)
def test_greedy_is_the_argmax_of_the_whole_forward_pass(family):
  cfg, params = model(family)
  given = prompts(6, cfg)
  found = asked(sampling.Sampler(params, cfg), given, settings())
  forward = jax.jit(lambda ids: transformer.logits(params, cfg, ids))
  for prompt, (*ids, is_stopped) in zip(given, found, strict=True):
    row = np.zeros((1, 40), np.int32)
    whole = [*prompt, *ids]
    row[0, : len(whole)] = whole
    best = np.asarray(forward(row)[0].argmax(-1))[len(prompt) - 1 : len(whole)]
    np.testing.assert_array_equal(ids, best[: len(ids)])
    assert is_stopped == (len(ids) < 12)
    assert not is_stopped or best[len(ids)] in STOPS


def test_a_stop_as_the_last_token_is_a_stop_and_no_stop_is_a_cut():
  cfg, params = model()
  sampler, given = sampling.Sampler(params, cfg), prompts(4, cfg)
  free = asked(sampler, given, settings(stop_ids=(59, 60)))
  *ids, is_stopped = free[0]
  assert len(ids) == 12 and not is_stopped
  # One of the tokens, as late as it can be first said.
  first = max(ids.index(token) for token in ids)
  config = settings(stop_ids=(ids[first], 60), max_new_tokens=first + 1)
  assert asked(sampler, given, config)[0] == (*ids[:first], True)


@pytest.mark.slow
def test_a_divided_model_samples_what_a_whole_one_does():
  cfg, params = model()
  given, config = prompts(9, cfg), settings(batch_size=8)
  whole = asked(sampling.Sampler(params, cfg), given, config)
  mesh = sharding.make_mesh(2, 2, 2)
  shapes = train_state.abstract(transformer.abstract_params(cfg), cfg, mesh)
  divided = jax.device_put(params, jax.tree.map(lambda leaf: leaf.sharding, shapes))
  with jax.set_mesh(mesh):
    assert asked(sampling.Sampler(divided, cfg), given, config) == whole


def adapted(count: int):
  """Returns (cfg, base, adapters of so many members)."""
  cfg = dataclasses.replace(model()[0], lora=LORA)
  members = [lora.split(hf_models.params(cfg, seed))[0] for seed in range(count)]
  return cfg, model()[1], members


def test_an_adapter_beside_the_base_says_what_the_merged_model_does():
  cfg, base, (adapter,) = adapted(1)
  params = lora.join(base, adapter)
  merged = lora.merge(params, LORA.alpha / LORA.rank)
  plain = dataclasses.replace(cfg, lora=None)
  given, config = prompts(6, cfg), settings()
  beside = asked(sampling.Sampler(params, cfg), given, config)
  assert beside == asked(sampling.Sampler(merged, plain), given, config)
  assert beside != asked(sampling.Sampler(base, plain), given, config)


@pytest.mark.slow
def test_members_of_a_population_say_what_each_says_alone():
  cfg, base, members = adapted(3)
  given, config = prompts(7, cfg), settings(temperature=1.0, top_p=0.8)
  seeds = [[10 * p + i for i in range(7)] for p in range(3)]
  found: dict = {0: {}, 1: {}, 2: {}}
  for one in sampling.complete_population(base, members, cfg, given, seeds, config):
    ids, is_stopped = one.sampled
    found[one.member][one.number] = (*map(int, ids), is_stopped)
  for p, adapter in enumerate(members):
    alone = sampling.Sampler(lora.join(base, adapter), cfg)
    expected = asked(alone, given, config, seeds[p])
    assert [found[p][i] for i in range(7)] == expected
  assert found[0] != found[1]


@pytest.mark.slow
@pytest.mark.skipif(
  importlib.util.find_spec("qwix") is None, reason="needs the extra quant"
)
def test_a_quantised_base_says_what_its_floats_say():
  cfg = dataclasses.replace(model()[0], lora=LORA)
  cfg = dataclasses.replace(cfg, embed_dim=64, mlp_dim=64, head_dim=16)
  adapter, base = lora.split(hf_models.params(cfg))
  held = quantised.hold(base, "int8")
  given, config = prompts(4, cfg), settings()
  found, expected = (
    asked(sampling.Sampler(lora.join(each, adapter), cfg), given, config)
    for each in (held, quantised.hold(held, "float32"))
  )
  assert found == expected


def test_nothing_outside_the_nucleus_is_ever_drawn():
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(1, 30)) * 2, jnp.float32)
  probs = np.asarray(jax.nn.softmax(logits / 0.7))[0]
  order = np.argsort(-probs)
  size = int(np.searchsorted(np.cumsum(probs[order]), 0.6)) + 1
  how = drawing.How(is_greedy=False, has_nucleus=True)
  seeds = jnp.arange(4000, dtype=jnp.uint32)
  many = jnp.broadcast_to(logits, (4000, 30))
  draw = jax.jit(drawing.draw, static_argnums=5)
  drawn = np.asarray(draw(many, seeds, jnp.zeros(4000, int), 0.7, 0.6, how))
  assert set(drawn) == set(order[:size])
  shares = np.bincount(drawn, minlength=30)[order[:size]] / 4000
  expected = probs[order[:size]] / probs[order[:size]].sum()
  np.testing.assert_allclose(shares, expected, atol=0.04)
  few = draw(many[:50], seeds[:50], jnp.zeros(50, int), 0.7, 1e-9, how)
  assert set(np.asarray(few)) == {order[0]}


def test_logits_that_are_no_numbers_are_an_error():
  cfg, params = model()
  scale = params["final_norm"]["scale"]
  broken = params | {"final_norm": {"scale": scale * jnp.nan}}
  with pytest.raises(UserError, match="logits are not finite after prompt"):
    asked(sampling.Sampler(broken, cfg), prompts(4, cfg), settings())


def test_what_cannot_be_asked_is_refused_in_one_sentence():
  cfg, params = model()
  sampler = sampling.Sampler(params, cfg)
  with pytest.raises(UserError, match="prompt 1 of 290 tokens and max_new_tokens 12"):
    asked(sampler, [np.ones(3, int), np.ones(290, int)], settings())
  with pytest.raises(UserError, match="prompt 0 is empty"):
    asked(sampler, [np.zeros(0, int)], settings())
  for name, value in (("top_p", 0.0), ("temperature", -1.0), ("batch_size", 0)):
    with pytest.raises(UserError, match=name):
      settings(**{name: value})
  assert asked(sampler, [], settings()) == []


@pytest.mark.parametrize("num_rows", [3, 100])
def test_a_flipped_weight_gives_the_same_products(num_rows):
  rng = np.random.default_rng(0)
  x = rng.normal(size=(num_rows, 4, 16)).astype(np.float32)
  w = rng.normal(size=(4, 16, 600)).astype(np.float32)
  found = jax.jit(matmul.project, static_argnums=2)(x, (matmul.flipped(w, 2),), 2)[0]
  np.testing.assert_allclose(found, np.tensordot(x, w, 2), rtol=1e-4, atol=1e-4)


def test_a_system_prompt_has_no_place_before_plain_text():
  how = {"raw": True, "temperature": 0.0, "max_new_tokens": 1}
  with pytest.raises(UserError, match="--raw: this arm is asked behind a system"):
    sampling.complete_texts({}, None, None, ["a"], **how, system_prompt="b")
