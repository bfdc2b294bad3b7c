"""The loss without its logits: sums over chunks of positions, gradients on the way.

With 128k to 262k words the logits of a batch are larger than all else. Here they exist
for `chunk_len` positions at a time and never again: the gradients with respect to the
hidden states and the output kernel are made while the logits are there, and the
backward pass only scales them. A kernel that is not trained gets no gradient.

On a mesh every device works on its own rows and its own part of the vocabulary, with
the kernel's embed dimension gathered once; what devices hold is summed once, at the
end.

B batch, T query, c positions of a chunk, D embed, V vocab.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from msm_jax import sharding
from msm_jax.models import matmul


class _Needs(NamedTuple):
  """Which gradients are asked for."""

  hidden: bool = False
  kernel: bool = False


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def weighted_nll(
  x_BTD: jax.Array,
  kernel_DV: jax.Array,
  targets_BT: jax.Array,
  weights_BT: jax.Array,
  chunk_len: int,
  softcap: float | None = None,
) -> jax.Array:
  """Returns the sum of weights * -log p(target) as a float32 scalar, in nats.

  Logits are x W in float32, or softcap * tanh(x W / softcap). `chunk_len` must divide
  T. There is no gradient with respect to the weights.
  """
  args = x_BTD, kernel_DV, targets_BT, weights_BT
  return _sum(_over_mesh(*args, chunk_len, softcap, _Needs())[0], weights_BT)


def nll(x_BTD, kernel_DV, targets_BT, chunk_len, softcap=None) -> jax.Array:
  """Returns float32 [B, T]: -log p(target) of every position; not differentiable."""
  args = x_BTD, kernel_DV, targets_BT, jnp.ones(targets_BT.shape, jnp.float32)
  return _over_mesh(*args, chunk_len, softcap, _Needs())[0]


def _weighted_nll_fwd(x, kernel, targets, weights, chunk_len, softcap):
  needs = _Needs(x.perturbed, kernel.perturbed)
  args = x.value, kernel.value, targets.value, weights.value
  nll_BT, dx_BTD, dkernel_DV = _over_mesh(*args, chunk_len, softcap, needs)
  return _sum(nll_BT, weights.value), (dx_BTD, dkernel_DV)


def _weighted_nll_bwd(chunk_len, softcap, grads, scale):
  return *(g if g is None else (scale * g).astype(g.dtype) for g in grads), None, None


weighted_nll.defvjp(_weighted_nll_fwd, _weighted_nll_bwd, symbolic_zeros=True)


def _sum(nll_BT: jax.Array, weights_BT: jax.Array) -> jax.Array:
  return jnp.sum(nll_BT * weights_BT)


def _over_mesh(x_BTD, kernel_DV, targets_BT, weights_BT, chunk_len, softcap, needs):
  """Returns (nll [B, T], dx [B, T, D] or None, dkernel [D, V] or None)."""
  static = {"chunk_len": chunk_len, "softcap": softcap, "needs": needs}
  args = x_BTD, kernel_DV.astype(x_BTD.dtype), targets_BT, weights_BT
  mesh_shape = sharding.mesh_shape()
  if mesh_shape is None:
    nll_BT, dx_BTD, parts_1DV = _on_device(*args, **static, vocab_axes=())
  else:
    batch = sharding.spec(("batch",), x_BTD.shape[:1], mesh_shape)[0]
    vocab = sharding.spec(("vocab",), kernel_DV.shape[1:], mesh_shape)[0]
    nll_BT, dx_BTD, parts_1DV = jax.shard_map(
      functools.partial(_on_device, **static, vocab_axes=vocab or ()),
      in_specs=(P(batch), P(None, vocab), P(batch), P(batch)),
      out_specs=(P(batch), P(batch), P(batch, None, vocab)),
      check_vma=False,
    )(*args)
  if not needs.kernel:
    return nll_BT, dx_BTD, None
  dkernel_DV = sharding.constrain(parts_1DV.sum(0), "embed", "vocab")
  return nll_BT, dx_BTD, dkernel_DV.astype(kernel_DV.dtype)


def _on_device(
  x_BTD, kernel_DV, targets_BT, weights_BT, *, chunk_len, softcap, needs, vocab_axes
):
  """Returns (nll, dx, dkernel [1, D, V]) of one device's rows and words."""
  first = 0
  if vocab_axes:
    first = jax.lax.axis_index(vocab_axes) * kernel_DV.shape[1]

  def one_chunk(dkernel_DV, chunk):
    x_BcD, targets_Bc, weights_Bc = chunk
    logits_BcV = matmul.product(x_BcD, kernel_DV, 1)
    if softcap is not None:
      logits_BcV = softcap * jnp.tanh(logits_BcV / softcap)
    top_Bc1 = jnp.max(logits_BcV, -1, keepdims=True)
    top_Bc1 = jax.lax.pmax(top_Bc1, vocab_axes) if vocab_axes else top_Bc1
    weights_BcV = jnp.exp(logits_BcV - top_Bc1)
    ids_Bc1 = targets_Bc[..., None] - first
    words_11V = jnp.arange(kernel_DV.shape[1])[None, None]
    is_target_BcV = words_11V == ids_Bc1
    sums = (
      jnp.sum(weights_BcV, -1, keepdims=True),
      jnp.sum(jnp.where(is_target_BcV, logits_BcV, 0), -1, keepdims=True),
    )
    total_Bc1, target_Bc1 = jax.lax.psum(sums, vocab_axes) if vocab_axes else sums
    nll_Bc = (jnp.log(total_Bc1) + top_Bc1 - target_Bc1)[..., 0]
    weights_Bc1 = weights_Bc[..., None]
    dlogits_BcV = weights_BcV * (weights_Bc1 / total_Bc1)
    dlogits_BcV -= jnp.where(is_target_BcV, weights_Bc1, 0)
    if softcap is not None:
      dlogits_BcV *= 1 - jnp.square(logits_BcV / softcap)
    dlogits_BcV = dlogits_BcV.astype(x_BTD.dtype)
    dx_BcD = None
    if needs.hidden:
      dx_BcD = matmul.product(dlogits_BcV, kernel_DV.T, 1).astype(x_BTD.dtype)
    if needs.kernel:
      dkernel_DV += matmul.weight_gradient(x_BcD, dlogits_BcV, 2)
    return dkernel_DV, (nll_Bc, dx_BcD)

  def split(z):  # [B, T, ...] -> [chunks, B, c, ...]
    return z.reshape(len(z), -1, chunk_len, *z.shape[2:]).swapaxes(0, 1)

  def whole(z):
    return z.swapaxes(0, 1).reshape(*targets_BT.shape, *z.shape[3:])

  zeros = jnp.zeros(kernel_DV.shape if needs.kernel else (0, 0), jnp.float32)
  chunks = split(x_BTD), split(targets_BT), split(weights_BT)
  dkernel_DV, (nll_CBc, dx_CBcD) = jax.lax.scan(one_chunk, zeros, chunks)
  dx_BTD = None
  if needs.hidden:
    dx_BTD = whole(dx_CBcD)
    dx_BTD = jax.lax.psum(dx_BTD, vocab_axes) if vocab_axes else dx_BTD
  return whole(nll_CBc), dx_BTD, dkernel_DV[None]
