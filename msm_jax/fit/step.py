"""The training step of a case, lowered for devices that need not be there.

This is where `fit` meets training: what is compiled here is what `train` makes, and
what is counted here is what it holds.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh

from msm_jax import optim, quantised, sharding, train, train_state
from msm_jax.fit.case import Case
from msm_jax.models import lora, transformer
from msm_jax.training.population import Population


def lower(
  case: Case, mesh_sizes: Mapping[str, int], devices: Sequence[jax.Device]
) -> tuple[jax.stages.Lowered, dict[str, int]]:
  """Returns (the step, bytes per device of its arguments and gradients by class)."""
  mesh = sharding.make_mesh(**mesh_sizes, devices=devices)
  train.check(case.config, mesh)
  params, frozen = _leaves(case)
  with jax.set_mesh(mesh):
    step = train.make_step(case.config, case.cfg, params, mesh, case.num_runs)
    state = step.population.state
    frozen = train_state.abstract(frozen, case.cfg, mesh)
    rows = train.abstract_batch(case.config, mesh, case.config.steps_per_call)
    if case.num_runs > 1:
      rows = (rows,) * case.num_runs
    lowered = step.fn.lower(state, frozen, rows)
  return lowered, _classes(state, frozen) | {"rows": bytes_per_device(rows)}


def held(case: Case, mesh_sizes: Mapping[str, int]) -> dict[str, int]:
  """Returns bytes per device of the state and of gradients; needs no device."""
  sizes = tuple(mesh_sizes[axis] for axis in sharding.MESH_AXES)
  return dict(_held(case.vary(1, "none"), sizes))


@functools.lru_cache(maxsize=64)  # a search asks for it with each candidate
def _held(case: Case, mesh_sizes: tuple[int, ...]) -> dict[str, int]:
  mesh = AbstractMesh(mesh_sizes, sharding.MESH_AXES)
  params, frozen = _leaves(case)
  schedule = optim.make_schedule(case.config.optimizer, case.config.num_train_steps)
  tx = optim.make_optimizer(case.config.optimizer, schedule)
  state = train_state.abstract_state(params, tx, case.cfg, mesh)
  state = Population(state, case.num_runs).state
  return _classes(state, train_state.abstract(frozen, case.cfg, mesh))


def _classes(state: train_state.TrainState, frozen: Any) -> dict[str, int]:
  trees = {
    "parameters": state.params,
    "frozen": frozen,
    "optimizer": (state.step, state.opt_state),
    "gradients": jax.tree.map(_summed, state.params),
  }
  return {name: bytes_per_device(tree) for name, tree in trees.items()}


def _summed(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
  """Returns the sum of a leaf's gradients over microbatches."""
  return jax.ShapeDtypeStruct(leaf.shape, "float32", sharding=leaf.sharding)


def bytes_per_device(tree: Any) -> int:
  """Returns what the shards of one device hold, without the padding of layouts."""
  total = 0
  for leaf in jax.tree.leaves(tree):
    size = math.prod(leaf.sharding.shard_shape(leaf.shape))
    bits = 4 if leaf.dtype == jnp.uint4 else 8 * leaf.dtype.itemsize
    total += -(-size * bits // 8)
  return total


def _leaves(case: Case) -> tuple[Any, Any]:
  """Returns shapes and dtypes of (what is trained, what is frozen)."""
  params = transformer.abstract_params(case.cfg)
  adapter, base = lora.split(params)
  base = jax.eval_shape(functools.partial(quantised.hold, dtype=case.base_dtype), base)
  return case.split(lora.join(base, adapter))
