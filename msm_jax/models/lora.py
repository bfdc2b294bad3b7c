"""Adapters as leaves beside the kernels that they change.

A parameter tree with adapters has `lora_a [*in, r]` and `lora_b [r, *out]` beside each
targeted `kernel [*in, *out]`. Training an adapter means: the adapter leaves are the
trainable tree, everything else is the frozen one. Full training is the same with an
empty frozen tree, or with one that has the embeddings.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

Params = dict[str, Any]
LEAVES = ("lora_a", "lora_b")


def split(params: Params) -> tuple[Params, Params]:
  """Returns (adapter leaves, the rest) as two trees without empty branches."""
  return partition(params, lambda path: path[-1] in LEAVES)


def partition(
  params: Params,
  takes: Callable[[tuple[str, ...]], bool],
  path: tuple[str, ...] = (),
) -> tuple[Params, Params]:
  """Returns (the leaves whose path is taken, the rest) without empty branches."""
  taken: Params = {}
  rest: Params = {}
  for name, value in params.items():
    inner = (*path, name)
    if isinstance(value, dict):
      for tree, part in zip((taken, rest), partition(value, takes, inner), strict=True):
        if part:
          tree[name] = part
    else:
      (taken if takes(inner) else rest)[name] = value
  return taken, rest


def join(first: Params, second: Params) -> Params:
  """Returns one tree with the leaves of both; they must not share a leaf."""
  joined = dict(first)
  for name, value in second.items():
    if name in joined:
      assert isinstance(value, dict), f"leaf {name} is in both trees"
      joined[name] = join(joined[name], value)
    else:
      joined[name] = value
  return joined


def merge(params: Params, scale: float) -> Params:
  """Returns the base with `scale * A B` added to each kernel in float32.

  Leaves are stacked over layers (leading axis L). `scale` is alpha / rank.
  """
  merged: Params = {}
  for name, value in params.items():
    if not isinstance(value, dict):
      if name not in LEAVES:
        merged[name] = value
    elif "lora_a" in value:
      rest = {leaf: kept for leaf, kept in value.items() if leaf not in LEAVES}
      merged[name] = rest | {"kernel": _merged_kernel(value, scale)}
    else:
      merged[name] = merge(value, scale)
  return merged


def _merged_kernel(leaves: Params, scale: float):
  kernel, a, b = leaves["kernel"], leaves["lora_a"], leaves["lora_b"]
  L, rank = a.shape[0], a.shape[-1]
  delta = jnp.einsum(
    "lir,lro->lio",
    a.reshape(L, -1, rank).astype(jnp.float32),
    b.reshape(L, rank, -1).astype(jnp.float32),
    precision="highest",
  )
  full = kernel.astype(jnp.float32) + scale * delta.reshape(kernel.shape)
  return full.astype(kernel.dtype)
