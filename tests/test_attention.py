"""Every way to compute attention has one meaning: that of the dense definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from msm_jax import losses, packing, sharding
from msm_jax.errors import UserError
from msm_jax.models import attention, transformer
from msm_jax.models.attention import blocked, cudnn, dense, splash
from msm_jax.models.config import FULL, SLIDING, Compute, ModelConfig
from msm_jax.packing import Piece

# heads, kv heads, head dim, window, soft cap, length
DRAWN = [
  (4, 2, 16, None, None, 128),
  (6, 2, 8, 5, None, 200),
  (2, 2, 32, None, 20.0, 100),
  (4, 1, 16, 70, 3.0, 256),
]
CFG = ModelConfig(
  vocab_size=40,
  embed_dim=24,
  mlp_dim=32,
  num_layers=3,
  num_heads=6,
  num_kv_heads=2,
  head_dim=8,
  max_seq_len=256,
  sliding_window=20,
  layer_types=(SLIDING, FULL, SLIDING),
  attention_softcap=30.0,
)
row_nll = jax.jit(losses.row_nll, static_argnames=("cfg", "compute"))


def drawn(num_heads, num_kv_heads, head_dim, length, rows=2, seed=0):
  """Returns q, k, v and segments: some documents, then padding (segment 0)."""
  rng = np.random.default_rng(seed)
  shapes = [(rows, length, n, head_dim) for n in (num_heads, *[num_kv_heads] * 2)]
  q, k, v = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)
  segment_ids = np.zeros((rows, length), np.int32)
  for row in segment_ids:
    cuts = np.sort(rng.choice(np.arange(1, length), 4, replace=False))
    for segment, (start, stop) in enumerate(zip([0, *cuts[:-1]], cuts, strict=True), 1):
      row[start:stop] = segment
  return q, k, v, jnp.asarray(segment_ids)


def outcome(attend, q, k, v):
  """Returns the output and the gradients of a drawn sum of it."""

  def total(q, k, v):
    out = attend(q, k, v)
    return jnp.sum(out * jnp.cos(jnp.arange(out.size).reshape(out.shape))), out

  (_, out), grads = jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))(q, k, v)
  return out, *grads


def assert_same(found, expected):
  for a, b in zip(found, expected, strict=True):
    np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-4)


def definition(segment_ids, window, softcap):
  mask = dense.packed_mask(segment_ids, window)
  return functools.partial(dense.attend, mask_BTS=mask, scale=0.3, softcap=softcap)


@pytest.mark.parametrize(("N", "K", "H", "window", "softcap", "length"), DRAWN)
def test_every_backend_computes_the_definition(N, K, H, window, softcap, length):
  q, k, v, segment_ids = drawn(N, K, H, length)
  expected = outcome(definition(segment_ids, window, softcap), q, k, v)
  ways = [lambda *x: blocked.attend(*x, segment_ids, 0.3, softcap, window)]
  if softcap is None:  # says to cuDNN what it here says to XLA
    ways.append(lambda *x: cudnn.attend(*x, segment_ids, 0.3, window, "xla"))
  if length % splash.LANES == 0:
    ways.append(
      lambda *x: splash.attend(*x, segment_ids, 0.3, softcap, window, interpret=True)
    )
  for way in ways:
    assert_same(outcome(way, q, k, v), expected)


@pytest.mark.parametrize("backend", ["blocked", "splash"])
def test_on_a_mesh_kv_heads_that_do_not_divide_are_repeated(backend, monkeypatch):
  interpreted = functools.partial(splash.attend, interpret=True)
  monkeypatch.setattr(attention.splash, "attend", interpreted)
  q, k, v, segment_ids = drawn(8, 2, 8, 128)  # 2 kv heads over 4 devices
  expected = outcome(definition(segment_ids, None, None), q, k, v)
  attend = attention.packed(backend, segment_ids, None)
  with jax.set_mesh(sharding.make_mesh(data=2, tensor=4)):
    assert_same(outcome(lambda *x: attend(*x, 0.3, None), q, k, v), expected)


@pytest.mark.parametrize(
  ("heads", "kv_heads", "tensor", "copies"),
  [(8, 2, 2, 1), (8, 2, 4, 2), (32, 8, 16, 2), (9, 3, 2, 1), (6, 2, 4, 1)],
)
def test_kv_heads_are_repeated_only_where_heads_divide(heads, kv_heads, tensor, copies):
  mesh_shape = {"data": 1, "fsdp": 1, "tensor": tensor}
  assert attention.kv_copies(heads, kv_heads, mesh_shape) == copies


@pytest.mark.parametrize("settings", [{}, {"scan_layers": False}], ids=str)
def test_packed_documents_give_what_separate_ones_give(settings):
  params = transformer.init_params(CFG, jax.random.key(0))
  rng = np.random.default_rng(0)
  pieces = [
    Piece(rng.integers(0, 40, n).astype(np.int32), np.ones(n, np.float32))
    for n in (90, 5, 120)
  ]

  def nll(batch, compute):
    return row_nll(params, batch, cfg=CFG, compute=compute)

  def batch(pieces):
    row = packing.make_row(pieces, 256)
    return {name: jnp.asarray(value)[None] for name, value in row.items()}

  together, at = nll(batch(pieces), Compute(attention="blocked", **settings))[0], 0
  for piece in pieces:
    n = piece.num_slots
    alone = nll(batch([piece]), Compute())[0, :n]
    np.testing.assert_allclose(together[at : at + n], alone, atol=1e-5)
    at += n


def test_blocks_hold_less_than_the_square():
  q, k, v, segment_ids = drawn(4, 2, 16, 1024)

  def held(attend):
    def total(*x):
      return jnp.sum(jnp.square(attend(*x)))

    compiled = jax.jit(jax.grad(total, (0, 1, 2))).lower(q, k, v).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  in_blocks = held(lambda *x: blocked.attend(*x, segment_ids, 0.3))
  assert in_blocks < held(definition(segment_ids, None, None)) / 3


BF16 = {"dtype": "bfloat16", "attention_softcap": None}


@pytest.mark.parametrize(
  ("wanted", "platform", "seq_len", "changes", "found", "note"),
  [
    ("auto", "cpu", 64, {}, "dense", None),
    ("auto", "cpu", 512, {}, "blocked", None),
    ("auto", "gpu", 512, BF16, "cudnn", None),
    ("auto", "gpu", 512, {"dtype": "bfloat16"}, "blocked", "no soft cap"),
    ("auto", "gpu", 512, {"attention_softcap": None}, "blocked", "'float32'"),
    ("auto", "gpu", 511, BF16, "blocked", "even length"),
    ("auto", "tpu", 512, {}, "splash", None),
    ("auto", "tpu", 500, {}, "blocked", "multiples of 128"),
    ("dense", "tpu", 512, {}, "dense", None),
    ("blocked", "gpu", 512, BF16, "blocked", None),
  ],
)
def test_auto_is_what_the_platform_can_do(
  wanted, platform, seq_len, changes, found, note
):
  cfg = ModelConfig(**vars(CFG) | changes)
  backend, said = attention.choose(wanted, cfg, seq_len, platform)
  assert backend == found
  assert said is None if note is None else note in said


@pytest.mark.parametrize(
  ("wanted", "platform", "message"),
  [
    ("splash", "cpu", "runs on tpu, not on cpu: set attention to 'auto'"),
    ("cudnn", "tpu", "runs on gpu or cuda"),
    ("cudnn", "gpu", "cannot compute this model: it computes in bfloat16"),
  ],
)
def test_a_backend_that_cannot_is_refused(wanted, platform, message):
  with pytest.raises(UserError, match=message):
    attention.choose(wanted, CFG, 512, platform)
