"""Meshes over several slices: only data may cross the network between them."""

import dataclasses

import numpy as np
import pytest

from msm_jax import sharding
from msm_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Chip:
  """What a mesh asks a TPU chip."""

  id: int
  slice_index: int
  process_index: int
  coords: tuple[int, int, int]
  core_on_chip: int = 0
  platform: str = "tpu"
  device_kind: str = "TPU v5 lite"


def chips(num_slices: int) -> list[Chip]:
  """Returns slices of 2 x 2 chips, in an order that helps nobody."""
  made = [
    Chip(4 * s + 2 * y + x, s, s, (x, y, 0))
    for s in range(num_slices)
    for y in range(2)
    for x in range(2)
  ]
  return [made[i] for i in np.random.default_rng(0).permutation(len(made))]


@pytest.mark.parametrize(
  ("sizes", "num_slices"),
  [((2, 4, 1), 2), ((2, 2, 2), 2), ((4, 2, 1), 2), ((4, 1, 4), 4), ((-1, 4, 1), 4)],
)
def test_only_data_crosses_slices(sizes, num_slices):
  mesh = sharding.make_mesh(*sizes, devices=chips(num_slices))
  slices = np.vectorize(lambda chip: chip.slice_index)(mesh.devices)
  data = mesh.shape["data"]
  assert {chip.id for chip in mesh.devices.flat} == set(range(4 * num_slices))
  # All of a replica lies in one slice, and slices come one after another.
  per_slice = data // num_slices
  for replica in range(data):
    assert set(slices[replica].flat) == {slices[replica].flat[0]}
  first = [slices[i].flat[0] for i in range(0, data, per_slice)]
  assert len(set(first)) == num_slices


def test_a_mesh_whose_parameters_would_cross_slices_is_refused():
  with pytest.raises(UserError, match=r"data \(1\) must be a multiple of the 2 slices"):
    sharding.make_mesh(1, 8, 1, devices=chips(2))
  with pytest.raises(UserError, match="does not cover the 8 devices"):
    sharding.make_mesh(3, 2, 1, devices=chips(2))
