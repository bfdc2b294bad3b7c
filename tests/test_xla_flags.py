"""XLA's flags for TPUs, and what its chips can do."""

import numpy as np

from msm_jax import metrics, xla_flags
from msm_jax.fit import (
  topology,
)


class Tpu:
  """What of a TPU the choice of flags looks at."""

  platform, device_kind = "tpu", "TPU v6 lite"


class Devices:
  """A mesh of one TPU."""

  devices = np.array([Tpu()])


def test_what_the_environment_sets_is_not_overridden_by_training(monkeypatch):
  monkeypatch.delenv("LIBTPU_INIT_ARGS", raising=False)
  ours = xla_flags.options(Devices())
  assert ours == xla_flags.of_kind("TPU v6 lite")
  limit = "xla_tpu_scoped_vmem_limit_kib"
  monkeypatch.setenv("LIBTPU_INIT_ARGS", f"--{limit}=65536 --xla_other=1")
  del ours[limit]
  assert xla_flags.options(Devices()) == ours


def test_flags_are_of_the_chip_and_the_slices():
  one = xla_flags.of_kind("TPU v5 lite")
  two = xla_flags.of_kind("TPU v5 lite", num_slices=2)
  assert set(one) < set(two)
  assert "xla_tpu_scoped_vmem_limit_kib" in xla_flags.of_kind("TPU v6 lite")
  fused = "xla_tpu_enable_async_collective_fusion_fuse_all_gather"
  assert fused in one and fused not in xla_flags.of_kind("TPU v5")
  assert all(name.startswith("xla_") for name in two)


def test_rates_of_chips_and_of_their_devices_agree():
  kinds = {"v4": "TPU v4", "v5e": "TPU v5 lite", "v5p": "TPU v5"}
  kinds |= {"v6e": "TPU v6 lite", "tpu7x": "TPU7x"}
  assert set(kinds) == set(topology.CHIPS)
  for name, chip in topology.CHIPS.items():
    found = metrics.peak_flops_of_kind(kinds[name])
    assert found == chip.peak_flops / chip.devices_per_chip, name


def test_flags_of_the_environment_are_read():
  text = "--xla_a=true --megascale_abort_on_hangs=true --xla_b=98304"
  flags, others = xla_flags.parse(text)
  assert flags == {"xla_a": "true", "xla_b": "98304"}
  assert others == ["--megascale_abort_on_hangs=true"]
