"""What a slice is called, which machines it is made of, where there are any, its price.

Names and shapes: docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x} and .../compute/
docs/tpus/tpu-machines; labels of GKE: .../kubernetes-engine/docs/concepts/plan-tpus.
Zones and prices change: `AS_OF` says when ours were read, tpu.toml overrides them.
"""

import dataclasses
import difflib
import math
import re
from collections.abc import Mapping

from msm_jax import fields, topology
from msm_jax.errors import UserError
from msm_jax.topology import Topology
from tpu.job import Cpu, Gpus, Machines, Provisioning
from tpu.settings import Price, Settings

AS_OF = "2026-11-22"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generation:
  """What Google Cloud calls one kind of TPU.

  Attributes:
    legacy: beginning of the accelerator type of the Cloud TPU API; None: not there.
    runtime: software of its hosts there.
    machine: machine type on Compute Engine and GKE; '{}' is chips of a host.
    image_family: boot image on Compute Engine, in ubuntu-os-accelerator-images; None:
      Compute Engine's own API does not have this chip.
    gke: value of cloud.google.com/gke-tpu-accelerator.
    zones: known to have it (docs.cloud.google.com/tpu/docs/regions-zones, and the
      zones for which Google's price list, as SkyPilot's catalogue has it, shows one).
    dollars: region -> of a chip for an hour; '' where nothing else is known. From
      SkyPilot's catalogue (catalogs/v8/gcp/vms.csv, taken from Google's price list);
      flex: cloud.google.com/products/dws/pricing.
  """

  legacy: str | None
  runtime: str | None
  machine: str
  image_family: str | None
  gke: str
  zones: tuple[str, ...]
  dollars: Mapping[str, Price]


_IMAGE = "ubuntu-accel-2204-amd64-tpu-v5e-v5p-v6e"

GENERATIONS = {
  "v4": Generation(
    legacy="v4",
    runtime="tpu-ubuntu2204-base",
    machine="ct4p-hightpu-{}t",
    image_family=None,
    gke="tpu-v4-podslice",
    zones=("us-central2-b",),
    dollars={"": Price(on_demand=3.22, spot=0.92)},
  ),
  "v5e": Generation(
    legacy="v5litepod",
    runtime="v2-alpha-tpuv5-lite",
    machine="ct5lp-hightpu-{}t",
    image_family=None,
    gke="tpu-v5-lite-podslice",
    zones=(
      "us-central1-a",
      "us-east1-b",
      "us-east1-c",
      "us-east4-b",
      "us-east5-a",
      "us-east5-b",
      "us-east5-c",
      "us-south1-a",
      "us-south1-b",
      "us-west1-c",
      "us-west4-a",
      "us-west4-b",
      "europe-north1-a",
      "europe-north1-c",
      "europe-west1-b",
      "europe-west1-c",
      "europe-west3-c",
      "europe-west4-a",
      "europe-west4-b",
      "northamerica-northeast1-b",
      "southamerica-west1-b",
      "southamerica-west1-c",
      "asia-east1-a",
      "asia-east1-b",
      "asia-east1-c",
      "asia-northeast1-b",
      "asia-southeast1-b",
    ),
    dollars={
      "": Price(on_demand=1.20),
      "us-central1": Price(on_demand=1.20, spot=0.24),
      "us-east1": Price(on_demand=1.20, spot=0.24),
      "us-east4": Price(on_demand=1.20, spot=0.60),
      "us-east5": Price(on_demand=1.20, spot=0.60),
      "us-south1": Price(on_demand=1.42, spot=0.57),
      "us-west1": Price(on_demand=1.20, spot=0.24),
      "us-west4": Price(on_demand=1.20, spot=0.48),
      "europe-north1": Price(on_demand=1.32, spot=0.66),
      "europe-west1": Price(on_demand=1.32, spot=0.53),
      "europe-west3": Price(on_demand=1.42, spot=0.39),
      "europe-west4": Price(on_demand=1.56, spot=0.44),
      "northamerica-northeast1": Price(on_demand=1.32, spot=0.36),
      "southamerica-west1": Price(on_demand=1.72, spot=0.47),
      "asia-east1": Price(on_demand=1.39, spot=0.56),
      "asia-northeast1": Price(on_demand=1.54, spot=0.42),
      "asia-southeast1": Price(on_demand=1.56, spot=0.78),
    },
  ),
  "v5p": Generation(
    legacy="v5p",
    runtime="v2-alpha-tpuv5",
    machine="ct5p-hightpu-{}t",
    image_family=_IMAGE,
    gke="tpu-v5p-slice",
    zones=(
      "us-central1-a",
      "us-east1-d",
      "us-east5-a",
      "us-east5-b",
      "us-east5-c",
      "us-south1-a",
      "us-south1-b",
      "us-south1-c",
      "europe-west1-b",
      "europe-west1-d",
      "europe-west4-b",
    ),
    dollars={
      "": Price(on_demand=4.20),
      "us-central1": Price(on_demand=4.20, spot=0.84),
      "us-east1": Price(on_demand=4.20, spot=0.84),
      "us-east5": Price(on_demand=4.20, spot=1.68),
      "us-south1": Price(on_demand=4.78, spot=1.32),
      "europe-west1": Price(on_demand=4.46, spot=1.78),
      "europe-west4": Price(on_demand=4.25, spot=1.35),
    },
  ),
  "v6e": Generation(
    legacy="v6e",
    runtime="v2-alpha-tpuv6e",
    machine="ct6e-standard-{}t",
    image_family=_IMAGE,
    gke="tpu-v6e-slice",
    zones=(
      "us-central1-a",
      "us-central1-ai1a",
      "us-central1-b",
      "us-central1-c",
      "us-east1-d",
      "us-east4-a",
      "us-east5-a",
      "us-east5-b",
      "us-east5-c",
      "us-south1-a",
      "us-south1-ai1b",
      "us-south1-c",
      "us-west1-c",
      "europe-west4-a",
      "asia-east1-c",
      "asia-northeast1-b",
      "asia-south1-b",
      "asia-south1-c",
      "asia-southeast1-b",
      "southamerica-east1-c",
      "southamerica-west1-a",
    ),
    dollars={
      "": Price(on_demand=2.70),
      "us-central1": Price(on_demand=2.70, spot=0.54),
      "us-east1": Price(on_demand=2.70, spot=0.54, flex=1.35),
      "us-east4": Price(on_demand=2.70, spot=0.58),
      "us-east5": Price(on_demand=2.70, spot=1.22, flex=1.35),
      "us-south1": Price(on_demand=2.70, spot=1.35),
      "us-west1": Price(on_demand=2.70, spot=0.54),
      "europe-west4": Price(on_demand=2.97, spot=1.04, flex=1.35),
      "asia-northeast1": Price(on_demand=3.24, spot=0.94, flex=1.35),
      "asia-south1": Price(on_demand=3.24, spot=2.27),
      "asia-southeast1": Price(on_demand=2.97, spot=0.36),
      "southamerica-west1": Price(on_demand=2.70),
    },
  ),
  "tpu7x": Generation(
    legacy=None,
    runtime=None,
    machine="tpu7x-standard-{}t",
    image_family="ubuntu-accel-2404-amd64-tpu-tpu7x",
    gke="tpu7x",
    zones=("us-central1-ai1a", "us-central1-c"),
    dollars={"": Price()},
  ),
}
# Dollars of an hour in us-central1, and elsewhere in the US up to 0.46: a twelfth of
# n2-standard-96 in SkyPilot's catalogue (v8/gcp/vms.csv: 4.66166), which is in step.
_CPU = {"n2-standard-8": 0.39}
# On hosts of eight, linked by NVLink; fewer share one host.
GPUS = ("a100", "h100", "h200", "b200", "b300")
_GPUS_PER_HOST = 8


def parse(text: str, num_slices: int = 1, where: str = "--slice") -> Machines:
  """Returns the machines that `text` names: v6e-16, v5p:2x2x2, h100:8.

  Raises:
    UserError: there is no such slice, or it is a family of them.
  """
  family, _, size = text.strip().lower().partition(":")
  if family in GPUS:
    return _gpus(family, size, num_slices, f"{where}={text}")
  found = _topologies(text, num_slices, where)
  if len(found) > 1:
    shapes = ", ".join(name(each) for each in found)
    raise UserError(f"{where}={text} is a family: name a slice of it ({shapes})")
  return found[0]


def _topologies(text: str, num_slices: int, where: str) -> list[Topology]:
  try:
    return topology.parse(text, num_slices, where)
  except UserError as error:
    known = (*topology.CHIPS, *GPUS)
    family = re.split(r"[-:]", text.strip().lower())[0]
    if family in topology.CHIPS or "slices of" in str(error):  # only its size is wrong
      raise
    near = difflib.get_close_matches(family, known, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise UserError(
      f"{where}={text}: {hint}TPUs are {', '.join(topology.CHIPS)} "
      f"(v6e-16, v5p:2x2x2), GPUs {', '.join(GPUS)} (h100:8)"
    ) from None


def _gpus(kind: str, size: str, num_slices: int, said: str) -> Gpus:
  number = int(size) if size.isdigit() else 0
  if num_slices > 1:
    raise UserError(f"{said}: GPUs have no slices: leave --num_slices out")
  hosts = math.ceil(number / _GPUS_PER_HOST)
  if number < 1 or (hosts > 1 and number % _GPUS_PER_HOST):
    raise UserError(
      f"{said}: say how many, 1 to {_GPUS_PER_HOST} or a multiple of that: {kind}:8"
    )
  return Gpus(kind=kind, num_hosts=hosts, per_host=number // hosts)


def generation(slices: Topology) -> Generation:
  """Returns what the cloud calls the chip of a slice."""
  return GENERATIONS[slices.chip.name]


def name(slices: Topology) -> str:
  """Returns how people call one slice: v6e-16, or v5p:4x4x12 of an unusual shape."""
  if "x".join(map(str, slices.shape)) not in slices.chip.shapes:
    return slices.slice_name
  return f"{slices.chip.name}-{math.prod(slices.shape) * slices.chip.cores_in_name}"


def shape(slices: Topology) -> str:
  """Returns 4x4, as every API of Google Cloud writes it."""
  return "x".join(map(str, slices.shape))


def hosts_per_slice(slices: Topology) -> int:
  """Returns the machines of one slice."""
  return slices.num_hosts // slices.num_slices


def chips_per_host(slices: Topology) -> int:
  """Returns the chips of one machine."""
  return slices.num_chips // slices.num_hosts


def accelerator_type(slices: Topology) -> str | None:
  """Returns the Cloud TPU API's name (v5litepod-16).

  None where a slice has none: of a shape that is not the usual one for its size (then
  type and topology say it), or of a chip that this API does not know.
  """
  legacy = generation(slices).legacy
  if legacy is None or shape(slices) not in slices.chip.shapes:
    return None
  return f"{legacy}-{math.prod(slices.shape) * slices.chip.cores_in_name}"


def machine_type(slices: Topology) -> str:
  """Returns the machine type of Compute Engine and GKE (ct6e-standard-4t)."""
  return generation(slices).machine.format(chips_per_host(slices))


def gke_labels(slices: Topology) -> dict[str, str]:
  """Returns what nodes of such a slice are selected by."""
  return {
    "cloud.google.com/gke-tpu-accelerator": generation(slices).gke,
    "cloud.google.com/gke-tpu-topology": shape(slices),
  }


def num_chips(machines: Machines) -> int:
  """Returns how many chips (or GPUs) work together."""
  if isinstance(machines, Cpu):
    return 0
  if isinstance(machines, Gpus):
    return machines.num_hosts * machines.per_host
  return machines.num_chips


def check_zone(slices: Topology, settings: Settings) -> None:
  """Raises a UserError where `zone` is not known to have the chip."""
  zones = generation(slices).zones
  if not settings.check_zone or settings.zone in zones:
    return
  place = settings.region or ""
  near = [zone for zone in zones if zone.startswith(f"{place}-")]
  near = near or [zone for zone in zones if zone.startswith(place.split("-")[0])]
  raise UserError(
    f"{settings.where}: zone = {settings.zone!r} is not known to have "
    f"{slices.chip.name} (as of {AS_OF}): take one of {', '.join(near or zones)}; "
    "check_zone = false if you know better"
  )


def check_prices(settings: Settings) -> None:
  """Raises a UserError for a price of what there is not: a slip would go unnoticed."""
  known = (*topology.CHIPS, *GPUS, "cpu")
  for kind in settings.prices:
    fields.check_known(kind, known, f"{settings.where}: prices", "the settings")


def dollars_per_chip_hour(
  machines: Topology | Gpus, provisioning: Provisioning, settings: Settings
) -> float | None:
  """Returns what a chip costs in `settings.zone`; None where that is not known.

  What `settings.prices` has goes first, kind by kind.
  """
  kind = machines.kind if isinstance(machines, Gpus) else machines.chip.name
  own = getattr(settings.prices.get(kind, Price()), provisioning.value)
  if own is not None or isinstance(machines, Gpus):
    return own
  dollars = generation(machines).dollars
  listed = dollars.get(settings.region or "", dollars[""])
  return getattr(listed, provisioning.value)


def dollars_per_hour(
  machines: Machines, provisioning: Provisioning, settings: Settings
) -> float | None:
  """Returns what all chips cost together; hosts are included in Google's prices."""
  if isinstance(machines, Cpu):
    own = settings.prices.get("cpu", Price()).on_demand
    return _CPU.get(settings.compute.cpu_machine_type) if own is None else own
  of_one = dollars_per_chip_hour(machines, provisioning, settings)
  return None if of_one is None else of_one * num_chips(machines)
