"""TPU slices: their names, shapes, chips and hosts, and what a chip can do.

A slice is named as the compiler names it (`v5e:4x4`), or as Google Cloud does
(`v5litepod-16`, `v5e-16`, `v6e-16`, `v5p-16`). Mind the number in the second form: for
v5e and v6e it counts chips, for v4, v5p and tpu7x TensorCores, of which a chip has two.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Iterator, Mapping

from msm_jax.errors import UserError

_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = (
  "2x2x1",
  "2x2x2",
  "2x2x4",
  "2x4x4",
  "4x4x4",
  "4x4x8",
  "4x8x8",
  "8x8x8",
  "8x8x16",
  "8x16x16",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """One kind of TPU.

  Rates are per chip, from Google's data sheets (docs.cloud.google.com/tpu/docs: v4,
  v5e, v5p, v6e, tpu7x), of the interconnect half of the two directions' sum, to the
  host those of its PCIe generation. `hbm_gib` is what the compiler (libtpu 0.0.51) has
  for a program: the sheet's figure less what it reserves.
  """

  name: str
  shapes: tuple[str, ...]  # of slices that can be had, smallest first
  peak_flops: float  # bfloat16
  hbm_gib: float
  hbm_bytes_per_s: float
  ici_bytes_per_s: float
  host_bytes_per_s: float
  cores_in_name: int = 1  # of a chip, as `name-N` counts
  devices_per_chip: int = 1  # as JAX counts
  config_name: str | None = None  # what the compiler needs beside the name


CHIPS = {
  chip.name: chip
  for chip in (
    Chip(
      name="v4",
      shapes=_CUBES,
      peak_flops=275e12,
      hbm_gib=30.75,
      hbm_bytes_per_s=1228e9,
      ici_bytes_per_s=300e9,
      host_bytes_per_s=16e9,
      cores_in_name=2,
      config_name="megacore",
    ),
    Chip(
      name="v5e",
      shapes=_FLAT,
      peak_flops=197e12,
      hbm_gib=15.75,
      hbm_bytes_per_s=819e9,
      ici_bytes_per_s=200e9,
      host_bytes_per_s=16e9,
    ),
    Chip(
      name="v5p",
      shapes=_CUBES,
      peak_flops=459e12,
      hbm_gib=95.73,
      hbm_bytes_per_s=2765e9,
      ici_bytes_per_s=600e9,
      host_bytes_per_s=16e9,
      cores_in_name=2,
    ),
    Chip(
      name="v6e",
      shapes=_FLAT,
      peak_flops=918e12,
      hbm_gib=31.24,
      hbm_bytes_per_s=1638e9,
      ici_bytes_per_s=400e9,
      host_bytes_per_s=32e9,
    ),
    Chip(
      name="tpu7x",
      shapes=_CUBES,
      peak_flops=2307e12,
      hbm_gib=2 * 94.74,
      hbm_bytes_per_s=7380e9,
      ici_bytes_per_s=600e9,
      host_bytes_per_s=32e9,
      cores_in_name=2,
      devices_per_chip=2,
    ),
  )
}
_ALIASES = {
  "v5litepod": "v5e",
  "v5lite": "v5e",
  "trillium": "v6e",
  "ironwood": "tpu7x",
  "v7x": "tpu7x",
}
_NO_TPU = re.compile(r"cpu|gpu|cuda|rocm|nvidia|amd|rtx|mi\d|[abhl]\d|v100|t4|gb?\d{3}")


@dataclasses.dataclass(frozen=True)
class Topology:
  """`num_slices` slices of one shape."""

  chip: Chip
  shape: tuple[int, ...]
  num_slices: int = 1

  @property
  def slice_name(self) -> str:
    """Returns the compiler's name of one slice."""
    return f"{self.chip.name}:{'x'.join(map(str, self.shape))}"

  @property
  def name(self) -> str:
    """Returns the name of the whole."""
    more = f"{self.num_slices} x " if self.num_slices > 1 else ""
    return more + self.slice_name

  @property
  def num_chips(self) -> int:
    """Returns the chips of all slices."""
    return self.num_slices * math.prod(self.shape)

  @property
  def num_devices(self) -> int:
    """Returns the devices that JAX sees."""
    return self.num_chips * self.chip.devices_per_chip

  @property
  def num_hosts(self) -> int:
    """Returns the machines: four chips to each, flat slices up to eight are one."""
    per_slice = math.prod(self.shape)
    alone = len(self.shape) == 2 and per_slice <= 8
    return self.num_slices * (1 if alone else max(1, per_slice // 4))


def parse(text: str, num_slices: int = 1, where: str = "--topology") -> list[Topology]:
  """Returns the slices that `text` names: one, or all of a family, smallest first.

  Args:
    text: the name.
    num_slices: so many of each.
    where: what said so, for messages.

  Raises:
    UserError: there is no such TPU or slice.
  """
  if num_slices < 1:
    raise UserError(f"num_slices={num_slices} must be at least 1")
  said = f"{where}={text}"
  match = re.fullmatch(r"([a-z0-9]+?)(?::([0-9x]+)|-(\d+))?", text.strip().lower())
  chip = _chip(match[1] if match else text, said)
  if match[2]:
    shapes = [_shape(chip, match[2], said)]
  elif match[3]:
    shapes = [_of_size(chip, int(match[3]), said)]
  else:
    shapes = [_sizes(shape) for shape in chip.shapes]
  return [Topology(chip, shape, num_slices) for shape in shapes]


def _chip(name: str, said: str) -> Chip:
  name = name.lower()
  if _ALIASES.get(name, name) in CHIPS:
    return CHIPS[_ALIASES.get(name, name)]
  if _NO_TPU.match(name):
    raise UserError(
      f"{said}: fit compiles for TPUs only ({', '.join(CHIPS)}). On a GPU "
      "or a CPU `train` itself says at its first step whether a stage fits, and which "
      "settings lower its memory"
    )
  near = difflib.get_close_matches(name, CHIPS, n=1)
  hint = f"did you mean {near[0]}? " if near else ""
  raise UserError(
    f"{said}: {hint}the TPUs known are {', '.join(CHIPS)}: a family "
    "(v5e), a slice (v5e:4x4, v5p:2x2x2) or Google Cloud's name of one (v5litepod-16)"
  )


def _shape(chip: Chip, shape: str, said: str) -> tuple[int, ...]:
  sizes = _sizes(shape)
  # Slices of v4, v5p and tpu7x are also made of whole cubes of 4 x 4 x 4.
  is_cubes = len(chip.shapes[0].split("x")) == len(sizes) == 3 and all(
    size and size % 4 == 0 for size in sizes
  )
  if shape in chip.shapes or is_cubes:
    return sizes
  raise UserError(f"{said}: {_shapes_of(chip)}")


def _of_size(chip: Chip, size: int, said: str) -> tuple[int, ...]:
  counted = "TensorCores, two to a chip" if chip.cores_in_name == 2 else "chips"
  for shape in chip.shapes:
    if math.prod(_sizes(shape)) * chip.cores_in_name == size:
      return _sizes(shape)
  raise UserError(f"{said}: the number counts {counted}; {_shapes_of(chip)}")


def _shapes_of(chip: Chip) -> str:
  return f"slices of {chip.name} are {', '.join(chip.shapes)}"


def _sizes(shape: str) -> tuple[int, ...]:
  return tuple(int(size or 0) for size in shape.split("x"))


def mesh_candidates(
  topology: Topology, batch_size: int, num_heads: int
) -> Iterator[dict[str, int]]:
  """Yields sizes of meshes that divide the rows, the one with most `fsdp` first.

  Slices lie along `data`. `tensor` takes up devices for which there are no rows, as far
  as it divides the heads.
  """
  per_slice = topology.num_devices // topology.num_slices
  for tensor in range(1, per_slice + 1):
    if per_slice % tensor or num_heads % tensor:
      continue
    fsdp = per_slice // tensor
    if batch_size % (topology.num_slices * fsdp) == 0:
      yield {"data": topology.num_slices, "fsdp": fsdp, "tensor": tensor}


def fill_mesh(wanted: Mapping[str, int], num_devices: int) -> dict[str, int] | None:
  """Returns a mesh with its -1 filled in; None if it does not cover the devices."""
  known = math.prod(size for size in wanted.values() if size != -1)
  rest = num_devices // known
  sizes = {axis: rest if size == -1 else size for axis, size in wanted.items()}
  return sizes if math.prod(sizes.values()) == num_devices else None
