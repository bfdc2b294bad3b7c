"""What an update changes: the step counter, the trainable parameters, the optimizer."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from msm_jax import sharding
from msm_jax.models import transformer
from msm_jax.models.config import ModelConfig
from msm_jax.models.lora import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """`step == k` after k updates; `params` are the trainable leaves only."""

  step: jax.Array  # int32 scalar
  params: Params
  opt_state: Any


def create(
  params: Params, tx: optax.GradientTransformation, cfg: ModelConfig, mesh: Mesh
) -> TrainState:
  """Returns the state before the first update, every leaf a global array on `mesh`.

  `params` are copied: training donates its state, and the caller keeps its own.
  """
  return initializer(tx, abstract_state(params, tx, cfg, mesh))(params)


def initializer(
  tx: optax.GradientTransformation, state: TrainState
) -> Callable[[Params], TrainState]:
  """Returns what makes the state before the first update, laid out as `state` is."""
  layout = jax.tree.map(lambda leaf: leaf.sharding, state)
  return jax.jit(functools.partial(_init, tx), out_shardings=layout)


def abstract_state(
  params: Params, tx: optax.GradientTransformation, cfg: ModelConfig, mesh: Mesh
) -> TrainState:
  """Returns shapes, dtypes and shardings of the state that trains `params`."""
  state = jax.eval_shape(functools.partial(_init, tx), params)
  return jax.tree.map(
    lambda leaf, layout: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout),
    state,
    state_shardings(state, cfg, mesh),
  )


def _init(tx: optax.GradientTransformation, params: Params) -> TrainState:
  # Leaves drawn as constants are weakly typed; an update returns them typed, and the
  # second call would compile everything again. Without the copy, jit returns the very
  # buffers that it was given.
  params = jax.tree.map(
    lambda leaf: jnp.copy(jax.lax.convert_element_type(leaf, leaf.dtype)), params
  )
  return TrainState(jnp.zeros((), jnp.int32), params, tx.init(params))


def state_shardings(state: TrainState, cfg: ModelConfig, mesh: Mesh) -> TrainState:
  """Returns a sharding for every leaf: moments lie where their parameters do."""
  axes = transformer.logical_axes(cfg)

  def one(path, leaf):
    names = [entry.key for entry in path if isinstance(entry, jax.tree_util.DictKey)]
    node: Any = axes
    for name in names:
      node = node[name]
    if not names or len(node) != leaf.ndim:
      return sharding.replicated(mesh)
    return jax.sharding.NamedSharding(mesh, sharding.spec(node, leaf.shape, mesh.shape))

  return jax.tree.map_with_path(one, state)


def param_shardings(params: Params, cfg: ModelConfig, mesh: Mesh) -> Params:
  """Returns a sharding for every leaf of `params` (any subset of the model's)."""
  return state_shardings(TrainState(None, params, None), cfg, mesh).params


def place(params: Params, cfg: ModelConfig, mesh: Mesh) -> Params:
  """Returns `params` (any subset of the model's leaves) laid out on `mesh`."""
  if not params:
    return params
  return jax.tree.map(_put, params, param_shardings(params, cfg, mesh))


def abstract(params: Params, cfg: ModelConfig, mesh: Mesh) -> Params:
  """Returns shapes, dtypes and shardings of `params` (any subset of the leaves)."""
  return jax.tree.map(
    lambda leaf, layout: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout),
    params,
    param_shardings(params, cfg, mesh),
  )


def _put(leaf: jax.Array, target: jax.sharding.NamedSharding) -> jax.Array:
  if isinstance(leaf, jax.Array) and leaf.sharding == target:
    return leaf
  return jax.device_put(leaf, target)
