"""Will it fit on a TPU: names of slices, meshes on them."""

import pytest
from fit_cases import MESH, case_of

from msm_jax import topology
from msm_jax.errors import UserError
from msm_jax.fit import search


@pytest.mark.parametrize(
  ("text", "name", "num_chips", "num_hosts"),
  [
    ("v5e:4x4", "v5e:4x4", 16, 4),
    ("V5E-16", "v5e:4x4", 16, 4),
    ("v5litepod-16", "v5e:4x4", 16, 4),
    ("v5e:1x1", "v5e:1x1", 1, 1),
    ("v6e-8", "v6e:2x4", 8, 1),
    ("v5p-16", "v5p:2x2x2", 8, 2),  # two TensorCores to a chip
    ("v4-8", "v4:2x2x1", 4, 1),
    ("v5p:4x4x12", "v5p:4x4x12", 192, 48),
    ("tpu7x:2x2x1", "tpu7x:2x2x1", 4, 1),
  ],
)
def test_a_slice_is_known_by_each_of_its_names(text, name, num_chips, num_hosts):
  (found,) = topology.parse(text)
  assert (found.name, found.num_chips) == (name, num_chips)
  assert found.num_hosts == num_hosts


def test_a_family_is_all_its_slices_smallest_first():
  for family in topology.CHIPS:
    sizes = [found.num_chips for found in topology.parse(family)]
    assert sizes == sorted(set(sizes)) and len(sizes) > 5


def test_several_slices_are_that_many_times_the_chips():
  (found,) = topology.parse("v5e:2x4", num_slices=2)
  assert (found.name, found.num_chips, found.num_hosts) == ("2 x v5e:2x4", 16, 2)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("v5", "did you mean v5"),
    ("h100", "fit compiles for TPUs only"),
    ("gpu", "fit compiles for TPUs only"),
    ("cpu", "fit compiles for TPUs only"),
    ("v5e:3x5", "slices of v5e are 1x1, 2x2"),
    ("v5e:4x4x4", "slices of v5e are"),
    ("v5p:4x4", "slices of v5p are 2x2x1"),
    ("v5p-12", "the number counts TensorCores, two to a chip"),
    ("v6e-12", "the number counts chips"),
    ("v5e:", "--topology=v5e:"),
    ("v5e:xx", "--topology=v5e:xx"),
    ("", "--topology="),
  ],
)
def test_a_slice_that_is_none_is_refused_with_those_that_are(text, message):
  with pytest.raises(UserError) as caught:
    topology.parse(text)
  assert message in str(caught.value)


def test_the_mesh_is_the_configs_where_it_suits():
  (slices,) = topology.parse("v5e:4x4")
  assert search.choose_mesh(case_of(), slices, MESH) == (
    {"data": 1, "fsdp": 16, "tensor": 1},
    "",
  )


def test_too_few_rows_leave_the_rest_of_the_chips_to_tensor():
  (slices,) = topology.parse("v5e:4x4")
  mesh, note = search.choose_mesh(case_of(batch_size=8), slices, MESH)
  assert mesh == {"data": 1, "fsdp": 8, "tensor": 2}
  assert note == "config.mesh (data=1, fsdp=-1, tensor=1) does not suit v5e:4x4"


def test_slices_lie_along_data():
  (slices,) = topology.parse("v5e:4x4", 2)
  mesh, note = search.choose_mesh(case_of(batch_size=32), slices, MESH)
  assert mesh == {"data": 2, "fsdp": 16, "tensor": 1} and note
  own = {"data": 2, "fsdp": 16, "tensor": 1}
  assert search.choose_mesh(case_of(), slices, own) == (own, "")


def test_rows_that_cannot_be_divided_are_said():
  (slices,) = topology.parse("v5e:2x2", 3)
  mesh, note = search.choose_mesh(case_of(batch_size=8), slices, MESH)
  assert mesh is None and "batch_size 8 and 32 heads" in note


def test_a_mesh_that_does_not_cover_the_slice_is_refused():
  (slices,) = topology.parse("v5e:4x4")
  search.check_mesh(slices, MESH)
  for wanted in ({"data": 1, "fsdp": 8, "tensor": 1}, MESH | {"tensor": 3}):
    with pytest.raises(UserError, match=r"config.mesh .* the 16 devices of v5e:4x4"):
      search.check_mesh(slices, wanted)
