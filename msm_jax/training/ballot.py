"""What several processes agree on while they train: to stop, to save.

A signal reaches one process, and each has a clock of its own; but a save is the work of
all, after the same update. So each process casts its wishes with every call, a tiny
program on the same devices takes the union, and what it found is read one call later,
like the metrics: nothing waits for it, and all read the same at the same call.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from msm_jax import sharding


class Ballot:
  """Turns wishes of single processes into decisions of all of them."""

  def __init__(self, mesh: Mesh):
    self._mesh = mesh
    self._pending: jax.Array | None = None

  def cast(self, *wishes: bool) -> tuple[bool, ...]:
    """Returns what any process wished; with several, in the call before this one.

    All processes must call it equally often, with as many wishes.
    """
    if jax.process_count() == 1:
      return wishes
    layout = NamedSharding(self._mesh, P(self._mesh.axis_names))
    shape = (self._mesh.size, len(wishes))

    def part(index: tuple[slice, ...]) -> np.ndarray:
      return np.tile(np.asarray(wishes), (len(range(shape[0])[index[0]]), 1))

    votes = jax.make_array_from_callback(shape, layout, part)
    before, self._pending = self._pending, _union(self._mesh)(votes)
    if before is None:
      return (False,) * len(wishes)
    return tuple(np.asarray(before).tolist())

  def settle(self, *wishes: bool) -> tuple[bool, ...]:
    """Returns what any process wishes now, and waits for all of them."""
    self.cast(*wishes)
    return self.cast(*wishes)  # what was found of the one before


@functools.cache
def _union(mesh: Mesh):
  return jax.jit(lambda v: jnp.any(v, axis=0), out_shardings=sharding.replicated(mesh))
