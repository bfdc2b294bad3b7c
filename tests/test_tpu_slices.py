"""Slices: names that Google Cloud and its users have for them, zones, prices."""

import math

import pytest

from msm_jax import topology
from msm_jax.errors import UserError
from tpu import settings, slices
from tpu.job import Cpu, Provisioning

# From docs.cloud.google.com/tpu/docs (v4, v5e, v5p, v6e, tpu7x) and tpu-machines:
# slice -> accelerator type, machine type, hosts, chips of a host.
KNOWN = {
  "v4-8": ("v4-8", "ct4p-hightpu-4t", 1, 4),
  "v4:2x2x4": ("v4-32", "ct4p-hightpu-4t", 4, 4),
  "v5e-1": ("v5litepod-1", "ct5lp-hightpu-1t", 1, 1),
  "v5e-8": ("v5litepod-8", "ct5lp-hightpu-8t", 1, 8),
  "v5litepod-16": ("v5litepod-16", "ct5lp-hightpu-4t", 4, 4),
  "v5p-8": ("v5p-8", "ct5p-hightpu-4t", 1, 4),
  "v5p:4x4x4": ("v5p-128", "ct5p-hightpu-4t", 16, 4),
  "v5p:4x4x12": (None, "ct5p-hightpu-4t", 48, 4),
  "v6e-4": ("v6e-4", "ct6e-standard-4t", 1, 4),
  "v6e-8": ("v6e-8", "ct6e-standard-8t", 1, 8),
  "v6e-256": ("v6e-256", "ct6e-standard-4t", 64, 4),
  "tpu7x:2x2x2": (None, "tpu7x-standard-4t", 2, 4),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_slice_has_the_names_that_google_gives_it(name):
  accelerator, machine, hosts, chips = KNOWN[name]
  for number in (1, 3):
    found = slices.parse(name, number)
    assert slices.accelerator_type(found) == accelerator
    assert slices.machine_type(found) == machine
    assert slices.hosts_per_slice(found) == hosts
    assert slices.chips_per_host(found) == chips
    assert found.num_hosts == hosts * number


def test_every_slice_is_found_again_by_the_name_that_people_give_it():
  for chip in topology.CHIPS:
    for one in topology.parse(chip):
      assert slices.parse(slices.name(one)) == one
      assert math.prod(one.shape) == slices.num_chips(one)
      labels = slices.gke_labels(one)
      assert labels["cloud.google.com/gke-tpu-topology"] == slices.shape(one)


def test_hosts_of_gpus_have_eight_or_are_one():
  found = slices.parse("h100:16")
  assert (found.num_hosts, found.per_host, found.name) == (2, 8, "h100:16")
  assert slices.parse("H200:3").per_host == 3


@pytest.mark.parametrize(
  "text, way_out",
  [
    ("v6e", r"is a family: name a slice of it \(v6e-1, v6e-4"),
    ("v6e-12", "the number counts chips"),
    ("v5p-12", "TensorCores, two to a chip"),
    ("v6x-8", "did you mean v6e"),
    ("h100", "say how many"),
    ("h100:0", "say how many"),
    ("h100:12", "multiple"),
    ("h10:8", "did you mean h100"),
    ("gpu:8", "GPUs a100, h100"),
  ],
)
def test_what_there_is_not_is_refused(text, way_out):
  with pytest.raises(UserError, match=way_out):
    slices.parse(text)


def test_every_zone_that_is_offered_is_accepted():
  for name, generation in slices.GENERATIONS.items():
    one = topology.parse(name)[0]
    for zone in generation.zones:
      slices.check_zone(one, settings.parse({"zone": zone}))


def test_another_zone_is_refused_unless_people_know_better():
  one, said = slices.parse("v6e-4"), {"zone": "us-east5-d"}
  with pytest.raises(UserError, match="take one of us-east5-a, us-east5-b, us-east5-c"):
    slices.check_zone(one, settings.parse(said))
  slices.check_zone(one, settings.parse(said | {"check_zone": False}))
  with pytest.raises(UserError, match="take one of asia-east1-c, asia-northeast1-b, a"):
    slices.check_zone(one, settings.parse({"zone": "asia-east2-a"}))


def test_a_slice_costs_as_much_as_its_chips():
  own = settings.parse({"zone": "us-east5-b"})
  ask = slices.dollars_per_hour
  assert ask(slices.parse("v6e-16"), Provisioning.ON_DEMAND, own) == 16 * 2.70
  assert ask(slices.parse("v5p-16", 2), Provisioning.SPOT, own) == 2 * 8 * 1.68
  assert ask(slices.parse("v5e-16"), Provisioning.SPOT, own) == 16 * 0.60
  assert ask(slices.parse("v5e-16"), Provisioning.FLEX, own) is None
  assert ask(slices.parse("tpu7x:2x2x1"), Provisioning.ON_DEMAND, own) is None
  assert ask(slices.parse("h100:8"), Provisioning.SPOT, own) is None
  assert ask(Cpu(), Provisioning.ON_DEMAND, own) == 0.39


def test_prices_of_tpu_toml_go_first_and_one_by_one():
  said = {"zone": "us-east5-b", "prices": {"v6e": {"spot": 1}, "h100": {"spot": 2.5}}}
  own = settings.parse(said)
  ask = slices.dollars_per_chip_hour
  assert ask(slices.parse("v6e-16"), Provisioning.SPOT, own) == 1
  assert ask(slices.parse("v6e-16"), Provisioning.ON_DEMAND, own) == 2.70
  assert ask(slices.parse("h100:8"), Provisioning.SPOT, own) == 2.5
  cheap = settings.parse({"prices": {"cpu": {"on_demand": 0.1}}})
  assert slices.dollars_per_hour(Cpu(), Provisioning.ON_DEMAND, cheap) == 0.1
  other = settings.parse({"compute": {"cpu_machine_type": "e2-standard-4"}})
  assert slices.dollars_per_hour(Cpu(), Provisioning.ON_DEMAND, other) is None


def test_spot_is_never_dearer_than_on_demand():
  for generation in slices.GENERATIONS.values():
    for price in generation.dollars.values():
      if None not in (price.spot, price.on_demand):
        assert price.spot < price.on_demand
