"""Several runs as one program: a population axis P on all that differs between them.

An accelerator is idle most of the time that a run with a small batch takes. Seeds and
sibling stages make the same computation on other numbers, so one program makes it for
all of them: trainable parameters, optimizer and rows lead with an axis P, and what is
frozen is held once. Products with a frozen kernel become one product over the rows of
all runs. A run computes what it would alone, but for the order in which floats add up.

On a mesh every run is divided as it would be alone; the axis itself is not divided.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from msm_jax.models.lora import Params
from msm_jax.train_state import TrainState

# Tokens of a microbatch per device: with fewer an accelerator idles, with more it is no
# faster, and their activations take memory.
FULL_DEVICE_TOKENS = 8192


def most_together(num_tokens: int, num_devices: int, platform: str) -> int:
  """Returns how many runs one program gains from, where nobody said how many.

  Args:
    num_tokens: of a microbatch of one run.
    num_devices: that its rows are divided over.
    platform: of those. A CPU core has nothing to gain from a larger batch.
  """
  if platform == "cpu":
    return 1
  return max(1, FULL_DEVICE_TOKENS * num_devices // num_tokens)


class Population:
  """How the states of `size` runs lie in one; a run alone has no population axis.

  Args:
    member: shapes, dtypes and shardings of the state of one run.
    size: how many there are.
  """

  def __init__(self, member: TrainState, size: int):
    self.member, self.size = member, size

  @functools.cached_property
  def state(self) -> TrainState:
    """Returns shapes, dtypes and shardings of the state of all."""
    if self.size == 1:
      return self.member
    return jax.tree.map(self._with_axis, self.member)

  def _with_axis(self, leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    layout = NamedSharding(leaf.sharding.mesh, P(None, *leaf.sharding.spec))
    shape = (self.size, *leaf.shape)
    return jax.ShapeDtypeStruct(shape, leaf.dtype, sharding=layout)

  def join(self, members: Iterable[TrainState]) -> TrainState:
    """Returns the states of all as one; never holds more than one beside it."""
    if self.size == 1:
      (member,) = members
      return member
    layout = _shardings(self.state)
    put = jax.jit(_put, donate_argnums=0, out_shardings=layout)
    whole = jax.jit(self._zeros, out_shardings=layout)()
    for place, member in enumerate(members):
      whole = put(whole, member, place)
    return whole

  def _zeros(self) -> TrainState:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), self.state)

  def part(self, state: TrainState, place: int) -> TrainState:
    """Returns the state of one run, as it would be had it been trained alone."""
    return state if self.size == 1 else self._take(state, place)

  @functools.cached_property
  def _take(self) -> Callable[[TrainState, int], TrainState]:
    return jax.jit(_part, out_shardings=_shardings(self.member))

  def params(self, params: Params) -> list[Params]:
    """Returns the parameters of each run, given those of all."""
    if self.size == 1:
      return [params]
    take = jax.jit(_part, out_shardings=_shardings(self.member.params))
    return [take(params, place) for place in range(self.size)]

  def over(self, fn: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `fn(state, frozen, batch) -> (state, metrics)` over all runs.

    What it returns takes a batch of each run, and gives the metrics of each.
    """
    if self.size == 1:
      return fn

    def together(state: TrainState, frozen: Params, batches: tuple[Any, ...]):
      batch = jax.tree.map(lambda *fields: jnp.stack(fields), *batches)
      state, metrics = jax.vmap(fn, in_axes=(0, None, 0))(state, frozen, batch)
      return state, [_part(metrics, place) for place in range(self.size)]

    return together


def _put(whole: Any, member: Any, place: jax.Array) -> Any:
  def one(whole, member):
    return jax.lax.dynamic_update_index_in_dim(whole, member, place, 0)

  return jax.tree.map(one, whole, member)


def _part(whole: Any, place: jax.Array) -> Any:
  def one(whole):
    return jax.lax.dynamic_index_in_dim(whole, place, 0, keepdims=False)

  return jax.tree.map(one, whole)


def _shardings(tree: Any) -> Any:
  return jax.tree.map(lambda leaf: leaf.sharding, tree)
