"""The loss without its logits: sums over chunks of positions, gradients on the way.

With 128k to 262k words the logits of a batch are larger than all else. Here they exist
for `chunk_len` positions at a time and never again: the gradients with respect to the
hidden states and the output kernel are made while the logits are there, and the
backward pass only scales them. A kernel that is not trained gets no gradient.

On a mesh every device works on its own rows and its own part of the vocabulary, with
the kernel's embed dimension gathered once, in the dtype of the computation. Gradients
of the kernel are summed once, at the end, and each device keeps its part: a whole one
in float32 (2 GiB for 128k words) would lie there throughout the backward pass.

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


class _Axes(NamedTuple):
  """Mesh axes that rows, the embed dimension and the vocabulary are divided over."""

  batch: tuple[str, ...] = ()
  embed: tuple[str, ...] = ()
  vocab: tuple[str, ...] = ()


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
    found = _on_device(*args, **static, axes=_Axes())
  else:
    axes = _axes(x_BTD, kernel_DV, mesh_shape)
    rows, kernel = P(axes.batch or None), P(axes.embed or None, axes.vocab or None)
    found = jax.shard_map(
      functools.partial(_on_device, **static, axes=axes),
      in_specs=(rows, kernel, rows, rows),
      out_specs=(rows, rows, kernel),
      check_vma=False,
    )(*args)
  nll_BT, dx_BTD, dkernel_DV = found
  if not needs.kernel:
    return nll_BT, dx_BTD, None
  return nll_BT, dx_BTD, dkernel_DV.astype(kernel_DV.dtype)


def _axes(x_BTD, kernel_DV, mesh_shape) -> _Axes:
  batch = sharding.spec(("batch",), x_BTD.shape[:1], mesh_shape)[0] or ()
  embed, vocab = sharding.spec(("embed", "vocab"), kernel_DV.shape, mesh_shape)
  if not set(embed or ()) <= set(batch):
    embed = ()  # rows are the same there: nothing to sum
  return _Axes(batch, embed or (), vocab or ())


def _on_device(
  x_BTD, kernel_DV, targets_BT, weights_BT, *, chunk_len, softcap, needs, axes
):
  """Returns (nll, dx, dkernel) of one device's rows and words; its part of dkernel."""
  first, vocab_axes = 0, axes.vocab
  if axes.embed:
    kernel_DV = jax.lax.all_gather(kernel_DV, axes.embed, tiled=True)
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
  if needs.kernel:
    dkernel_DV = _summed(dkernel_DV, axes)
  return whole(nll_CBc), dx_BTD, dkernel_DV


def _summed(dkernel_DV: jax.Array, axes: _Axes) -> jax.Array:
  """Returns a device's part of the sum over all rows."""
  if axes.embed:
    dkernel_DV = jax.lax.psum_scatter(dkernel_DV, axes.embed, tiled=True)
  others = tuple(axis for axis in axes.batch if axis not in axes.embed)
  return jax.lax.psum(dkernel_DV, others) if others else dkernel_DV
