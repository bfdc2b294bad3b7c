"""Where arrays live: a mesh and one table from logical axes to mesh axes.

Logical axes name what a dimension means (`embed`, `heads`); mesh axes name how devices
are laid out:

  data    replicas of the model, each with its own rows
  fsdp    rows and parameters are both divided over it
  tensor  heads, mlp and vocabulary are divided over it

Several TPU slices, which a slower network joins, lie along `data`: only gradients cross
it, once per update; what crosses the other axes (parameters, activations) stays within
a slice.

Changing the strategy is changing `RULES`. A dimension that a mesh axis does not divide
is replicated (9 heads over 2 devices, say).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils
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
  "rank": "fsdp",
  "activation_embed": None,  # activations keep the embed dimension whole
}


def make_mesh(
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """Returns a mesh over all devices; one size may be -1 (whatever is left).

  Args:
    data: replicas, over slices first.
    fsdp: parts of the parameters.
    tensor: parts of heads, mlp and vocabulary.
    devices: default: all that there are.

  Raises:
    UserError: the sizes do not multiply to the number of devices, or `data` cannot be
      divided over the slices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes, num_devices = [data, fsdp, tensor], len(devices)
  if sizes.count(-1) == 1:
    rest = int(np.prod([size for size in sizes if size != -1]))
    sizes[sizes.index(-1)] = num_devices // rest if num_devices % rest == 0 else 0
  if int(np.prod(sizes)) != num_devices:
    given = dict(zip(MESH_AXES, (data, fsdp, tensor), strict=True))
    raise UserError(
      f"mesh {given} does not cover the {num_devices} devices here: the sizes must "
      "multiply to that number; one of them may be -1"
    )
  auto = (AxisType.Auto,) * 3
  num_slices = len({getattr(device, "slice_index", 0) for device in devices})
  if num_slices == 1:
    return jax.make_mesh(sizes, MESH_AXES, axis_types=auto, devices=devices)
  if sizes[0] % num_slices:
    raise UserError(
      f"mesh data ({sizes[0]}) must be a multiple of the {num_slices} slices here: "
      "only data may cross them; lower fsdp or tensor"
    )
  within, across = (sizes[0] // num_slices, *sizes[1:]), (num_slices, 1, 1)
  grid = mesh_utils.create_hybrid_device_mesh(within, across, devices)
  return Mesh(grid, MESH_AXES, axis_types=auto)


def undivided(sizes: Mapping[str, int], mesh: Mesh) -> list[str]:
  """Returns a phrase for every logical axis that the mesh should divide and cannot.

  Args:
    sizes: of the model, by logical axis.
    mesh: where it will lie.
  """
  found = []
  for axis, size in sizes.items():
    names = (RULES[axis],) if isinstance(RULES[axis], str) else RULES[axis] or ()
    parts = int(np.prod([mesh.shape[name] for name in names]))
    if size % parts:
      found.append(f"{axis} ({size}) over {' x '.join(names)} ({parts})")
  return found


def axes_of(axis: str) -> tuple[str, ...]:
  """Returns the mesh axes that a logical axis is divided over."""
  names = RULES[axis]
  return (names,) if isinstance(names, str) else names or ()


def spec(
  axes: Sequence[str | None], shape: Sequence[int], mesh_shape: Mapping[str, int]
) -> P:
  """Returns the partition of an array with logical `axes` on a mesh.

  A mesh axis is used by the first dimension that wants it and that it divides.
  """
  used: set[str] = set()
  parts: list[tuple[str, ...] | None] = []
  for axis, size in zip(axes, shape, strict=True):
    names = axes_of(axis) if axis is not None else ()
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


def fetch(x: jax.Array) -> np.ndarray:
  """Returns all of `x` on this host; with several processes all must call it."""
  if x.is_fully_addressable or x.is_fully_replicated:
    return np.asarray(x)
  return np.asarray(multihost_utils.process_allgather(x, tiled=True))


def num_batch_shards(mesh: Mesh) -> int:
  """Returns into how many parts the rows of a batch are divided."""
  return int(np.prod([mesh.shape[name] for name in RULES["batch"]]))


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
  """Pins an activation's layout on the mesh in use (`jax.set_mesh`), if there is
  one.
  """
  sizes = mesh_shape()
  if sizes is None:
    return x
  return jax.lax.with_sharding_constraint(x, spec(axes, x.shape, sizes))


def mesh_shape() -> dict[str, int] | None:
  """Returns the sizes of the mesh in use (`jax.set_mesh`), None if there is none."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty or set(mesh.axis_names) != set(MESH_AXES):
    return None
  return dict(zip(mesh.axis_names, mesh.axis_sizes, strict=True))
