"""The training step of a case, lowered for devices that need not be there.

This is where `fit` meets training: what is compiled here is what `train` makes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from msm_jax import sharding, train, train_state
from msm_jax.fit.case import Case
from msm_jax.models import lora, transformer


def lower(
  case: Case, mesh_sizes: Mapping[str, int], devices: Sequence[jax.Device]
) -> tuple[jax.stages.Lowered, dict[str, Any]]:
  """Returns (the step, its arguments by class as shapes, dtypes and shardings)."""
  mesh = sharding.make_mesh(**mesh_sizes, devices=devices)
  train.check(case.config, mesh)
  params, frozen = _leaves(case)
  with jax.set_mesh(mesh):
    step = train.make_step(case.config, case.cfg, params, mesh)
    frozen = train_state.abstract(frozen, case.cfg, mesh)
    rows = train.abstract_batch(case.config, mesh, case.config.steps_per_call)
    lowered = step.fn.lower(step.state, frozen, rows)
  state = step.state
  return lowered, {
    "parameters": state.params,
    "frozen": frozen,
    "optimizer": (state.step, state.opt_state),
    "rows": rows,
  }


def bytes_per_device(tree: Any) -> int:
  """Returns what the shards of one device hold, without the padding of layouts."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    shard = jax.ShapeDtypeStruct(leaf.sharding.shard_shape(leaf.shape), leaf.dtype)
    total += shard.size * shard.dtype.itemsize
  return total


def _leaves(case: Case) -> tuple[Any, Any]:
  """Returns shapes and dtypes of (what is trained, what is frozen)."""
  params = transformer.abstract_params(case.cfg)
  if case.trains_all:
    return params, {}
  adapter, base = lora.split(params)
  frozen = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, case.base_dtype), base
  )
  return adapter, frozen
