"""XLA's flags for TPUs, and what its chips can do."""

import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from msm_jax import metrics, topology, xla_flags
from msm_jax.fit import compiling

ROOT = pathlib.Path(__file__).parent.parent
# Asks the compiler in a process of its own: libtpu, once loaded, keeps what it read.
ASK = """
import json, sys
import jax
from msm_jax import topology, xla_flags
from msm_jax.fit import compiling

def refused(name, num_slices, more):
  place = topology.parse(name)[0]
  wanted = {} if num_slices == 1 else {"num_slices": num_slices}
  if place.chip.config_name:
    wanted["chip_config_name"] = place.chip.config_name
  shape = "2x2" if len(place.shape) == 2 else "2x2x1"
  device = topologies.get_topology_desc(
    platform="tpu", topology_name=f"{name}:{shape}", **wanted
  ).devices[0]
  flags = xla_flags.of_kind(device.device_kind, num_slices) | more
  layout = jax.sharding.SingleDeviceSharding(device)
  rows = jax.ShapeDtypeStruct((8, 128), "float32", sharding=layout)
  lowered = jax.jit(lambda x: x + 1).lower(rows)
  try:
    lowered.compile(compiler_options=flags)
  except jax.errors.JaxRuntimeError as error:
    return str(error)
  return ""

from jax.experimental import topologies
asked = json.loads(sys.argv[1])
print("answer:" + json.dumps([refused(*each) for each in asked]))
"""


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


def ask_compiler(asked, init_args=""):
  """Returns how a process ended that compiles next to nothing with flags of ours."""
  pytest.importorskip("libtpu", reason="pip install -c constraints.txt '.[tpu]'")
  return subprocess.run(
    [sys.executable, "-c", ASK, json.dumps(asked)],
    cwd=ROOT,
    env={
      **os.environ,
      **compiling.ENVIRONMENT,
      "PYTHONPATH": str(ROOT),
      "LIBTPU_INIT_ARGS": init_args,
      "XLA_FLAGS": "",  # those of the tests are the CPU's: libtpu dies of them
    },
    capture_output=True,
    text=True,
    timeout=600,
  )


def answers_of(done):
  found = re.search("^answer:(.*)$", done.stdout, re.MULTILINE)
  assert found, done.stderr[-2000:]
  return json.loads(found[1])


@pytest.mark.slow
def test_the_compiler_takes_our_flags_for_every_chip_on_one_and_several_slices():
  asked = [(name, slices, {}) for name in topology.CHIPS for slices in (1, 2)]
  refused = dict(zip(map(str, asked), answers_of(ask_compiler(asked)), strict=True))
  assert not any(refused.values()), refused


@pytest.mark.slow
def test_the_compiler_refuses_a_flag_that_it_does_not_know():
  wrong = {"xla_tpu_enable_async_collective_fusionn": "true"}
  answers = answers_of(ask_compiler([("v5e", 1, wrong), ("v6e", 2, wrong)]))
  assert all(next(iter(wrong)) in answer for answer in answers), answers


@pytest.mark.slow
def test_flags_that_launchers_set_are_known_to_libtpu():
  places = ("tpu/**/*.py", "tpu/**/*.jinja", "tpu/*.sh", "Dockerfile")
  texts = [path.read_text("utf-8") for place in places for path in ROOT.glob(place)]
  found = {flag for text in texts for flag in re.findall(r"--megascale_\w+=\w+", text)}
  assert found, "launchers set none any more: take this test out"
  assert answers_of(ask_compiler([("v5e", 2, {})], " ".join(sorted(found)))) == [""]


@pytest.mark.slow
def test_libtpu_refuses_a_flag_of_launchers_that_it_does_not_know():
  done = ask_compiler([("v5e", 2, {})], "--megascale_abort_on_hangz=true")
  assert done.returncode != 0
  assert "megascale_abort_on_hangz" in done.stderr
