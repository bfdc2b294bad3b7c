"""Where arrays live: a mesh and one table from logical axes to mesh axes.

Logical axes name what a dimension means (`embed`, `heads`); mesh axes name how devices
are laid out:

  data    replicas of the model, each with its own rows
  fsdp    rows and parameters are both divided over it
  tensor  heads, mlp and vocabulary are divided over it

Changing the strategy is changing `RULES`. A dimension that a mesh axis does not divide
is replicated (9 heads over 2 devices, say).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from msm_jax.errors import UserError

MESH_AXES = ("data", "fsdp", "tensor")

RULES: dict[str, str | tuple[str, ...] | None] = {
  "batch": ("data", "fsdp"),
  "length": None,
  "embed": "fsdp",
  "heads": "tensor",
  "kv_heads": "tensor",
  "head_dim": None,
  "mlp": "tensor",
  "vocab": "tensor",
  "layers": None,
  "rank": None,
  "activation_embed": None,  # activations keep the embed dimension whole
}


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
  """Returns a mesh over all devices; one size may be -1 (whatever is left).

  Raises:
    UserError: the sizes do not multiply to the number of devices.
  """
  sizes = [data, fsdp, tensor]
  num_devices = jax.device_count()
  if sizes.count(-1) == 1:
    rest = int(np.prod([size for size in sizes if size != -1]))
    sizes[sizes.index(-1)] = num_devices // rest if num_devices % rest == 0 else 0
  if int(np.prod(sizes)) != num_devices:
    given = dict(zip(MESH_AXES, (data, fsdp, tensor), strict=True))
    raise UserError(
      f"mesh {given} does not cover the {num_devices} devices here: the sizes must "
      "multiply to that number; one of them may be -1"
    )
  return jax.make_mesh(sizes, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def spec(
  axes: Sequence[str | None], shape: Sequence[int], mesh_shape: Mapping[str, int]
) -> P:
  """Returns the partition of an array with logical `axes` on a mesh.

  A mesh axis is used by the first dimension that wants it and that it divides.
  """
  used: set[str] = set()
  parts: list[tuple[str, ...] | None] = []
  for axis, size in zip(axes, shape, strict=True):
    wanted = RULES[axis] if axis is not None else None
    names = (wanted,) if isinstance(wanted, str) else (wanted or ())
    names = tuple(name for name in names if name not in used)
    if names and size % int(np.prod([mesh_shape[name] for name in names])) == 0:
      used.update(names)
      parts.append(names)
    else:
      parts.append(None)
  return P(*parts)


def batch_sharding(mesh: Mesh, ndim: int, batch_dim: int) -> NamedSharding:
  """Returns the sharding of an array whose `batch_dim` holds rows."""
  parts: list[Any] = [None] * ndim
  parts[batch_dim] = RULES["batch"]
  return NamedSharding(mesh, P(*parts))


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that puts a whole copy on every device."""
  return NamedSharding(mesh, P())


def num_batch_shards(mesh: Mesh) -> int:
  """Returns into how many parts the rows of a batch are divided."""
  return int(np.prod([mesh.shape[name] for name in RULES["batch"]]))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Pins an activation's layout on the mesh in use (`jax.set_mesh`), if there is
  one.
  """
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or set(mesh.axis_names) != set(MESH_AXES):
    return x
  partition = spec(
    axes, x.shape, dict(zip(mesh.axis_names, mesh.axis_sizes, strict=True))
  )
  return jax.lax.with_sharding_constraint(x, partition)
