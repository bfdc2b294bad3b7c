"""XLA's flags for training on TPUs, per kind of chip.

They let collectives of `fsdp` and `data` run beside products, as the flags in Google's
published recipes do (maxtext, benchmarks/xla_flags_library.py), as far as the compiler
supports them: fused all-gathers may hang or give wrong results on any chip but the v5e
(libtpu 0.0.51 refuses them there). They are options of one compilation, so that `fit`
compiles with the same ones, on a machine without a TPU. What LIBTPU_INIT_ARGS says of
one of them holds in both.
"""

import os

from jax.sharding import Mesh

_ASYNC = {
  "xla_tpu_enable_async_collective_fusion": "true",
  "xla_tpu_enable_async_collective_fusion_multiple_steps": "true",
  "xla_tpu_overlap_compute_collective_tc": "true",
  "xla_enable_async_all_gather": "true",
}
_SLICES = {
  "xla_tpu_enable_data_parallel_all_reduce_opt": "true",
  "xla_tpu_data_parallel_opt_different_sized_ops": "true",
}
# By the beginning of `device_kind`.
_OF_CHIP = {
  "TPU v5 lite": {"xla_tpu_enable_async_collective_fusion_fuse_all_gather": "true"},
  "TPU v6 lite": {"xla_tpu_scoped_vmem_limit_kib": "98304"},
}


def options(mesh: Mesh) -> dict[str, str]:
  """Returns the compiler options for a step on `mesh`; none where it has no TPU.

  Options of a compilation override the environment, so what LIBTPU_INIT_ARGS sets is
  left out.
  """
  devices = mesh.devices.ravel()
  if devices[0].platform != "tpu":
    return {}
  num_slices = len({getattr(device, "slice_index", 0) for device in devices})
  theirs, _ = parse(os.environ.get("LIBTPU_INIT_ARGS", ""))
  ours = of_kind(devices[0].device_kind, num_slices)
  return {name: value for name, value in ours.items() if name not in theirs}


def of_kind(device_kind: str, num_slices: int = 1) -> dict[str, str]:
  """Returns the options for a kind of TPU, as JAX names it."""
  found = dict(_ASYNC)
  for kind, more in _OF_CHIP.items():
    if device_kind.startswith(kind):
      found |= more
  return found | _SLICES if num_slices > 1 else found


def parse(arguments: str) -> tuple[dict[str, str], list[str]]:
  """Returns (XLA's flags, everything else) of a value of LIBTPU_INIT_ARGS."""
  flags: dict[str, str] = {}
  others = []
  for word in arguments.split():
    name, _, value = word.lstrip("-").partition("=")
    if word.startswith("--xla_"):
      flags[name] = value or "true"
    else:
      others.append(word)
  return flags, others
