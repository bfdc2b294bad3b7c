"""Whether a study fits its slice, asked before anything is paid.

What `launch.py fit` found and kept in the workdir counts; else a count from below,
which compiles nothing: what train state, gradients and the activations that are sure to
be kept need. A slice that passes may still be too small; `fit` compiles and knows.
"""

import json
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msm_jax import records, topology
from msm_jax.errors import UserError
from msm_jax.storage import urls
from msm_jax.topology import Topology
from tpu import slices

_GIB = 2**30


def check(
  config: Mapping[str, Any],
  machines: Topology,
  workdir: str,
  say: Callable[[str], None],
  arm: str | None = None,
) -> None:
  """Refuses a slice that some stage does not fit.

  Args:
    config: of the study, with overrides.
    machines: the slices.
    workdir: of the study; a directory may hold what `fit` found.
    say: gets lines for people.
    arm: only the stages of this one.

  Raises:
    UserError: a stage does not fit, or its mesh does not; names what would.
  """
  import jax  # only here: a dry run does without

  from msm_jax import experiment as experiment_lib
  from msm_jax.fit import case as case_lib

  jax.config.update("jax_platforms", "cpu")  # this machine may have an accelerator
  place = pathlib.Path() if urls.is_remote(workdir) else pathlib.Path(workdir)
  experiment = experiment_lib.parse(dict(config))
  if not experiment.paths(arm):
    return say(f"fit: --arm={arm} trains nothing")
  cases, kept = case_lib.find(experiment, place, arm), _kept(workdir)
  _check_mesh(cases, machines, experiment.mesh)
  for case in cases:
    said = _compiled(case, machines, kept)
    if said is None:
      _check_bound(case, machines, experiment.mesh)
      said = "nothing speaks against it (a count from below; `launch.py fit` compiles)"
    say(f"fit: {case.name} on {machines.name}: {said}")
  return None


def _check_mesh(
  cases: Sequence[Any], machines: Topology, wanted: Mapping[str, int]
) -> None:
  """Refuses a mesh that some stage cannot be divided over; names one that all can."""
  from msm_jax.fit import search

  notes = {case.name: search.choose_mesh(case, machines, wanted)[1] for case in cases}
  unsuited = [(name, note) for name, note in notes.items() if note]
  if not unsuited:
    return
  name, note = unsuited[0]
  sizes = [case.config.batch_size for case in cases]
  found = topology.mesh_candidates(machines, math.gcd(*sizes), cases[0].cfg.num_heads)
  mesh = next(found, None)
  if mesh is None:
    raise UserError(
      f"{machines.name}: {name}: {note}: no mesh suits stages of "
      f"{', '.join(map(str, sorted(set(sizes))))} rows a step: change batch_size, or "
      "take a smaller --slice"
    )
  added = " ".join(f"--config.mesh.{axis}={size}" for axis, size in mesh.items())
  raise UserError(f"{name}: {note}: add {added}")


def _kept(workdir: str) -> dict[str, Mapping[str, Any]]:
  """Returns what `fit` kept in a workdir: {name: record}."""
  from msm_jax.fit import report

  if not urls.is_remote(workdir):
    paths = sorted((pathlib.Path(workdir) / report.FOLDER).glob("*.json"))
    return {str(path): records.read_json(path) for path in paths}
  from msm_jax.storage import bucket

  folder = urls.join(workdir, report.FOLDER)
  names = [urls.join(folder, name) for name in bucket.ls(folder)]
  return {name: json.loads(bucket.read_bytes(name)) for name in names}


def _compiled(
  case: Any, machines: Topology, kept: Mapping[str, Mapping[str, Any]]
) -> str | None:
  """Returns what `fit` found for this very case and slice; None where it did not."""
  for name, found in kept.items():
    same = found["identity"] == case.identity()
    where = (found["topology"], found["num_slices"])
    if not same or where != (machines.slice_name, machines.num_slices):
      continue
    if found["fits"]:
      return f"fits, as `fit` found on {found['made'][:10]} ({found['compiler']})"
    if found["problem"] is None:
      raise UserError(
        f"{machines.name} does not hold {case.name}, as `fit` found on "
        f"{found['made'][:10]} ({name}): take a larger --slice (launch.py fit "
        f"--topology={machines.chip.name} finds the smallest), or --skip_fit"
      )
  return None


def _check_bound(case: Any, machines: Topology, wanted: Mapping[str, int]) -> None:
  needed = _at_least(case, machines, wanted)
  if needed is None or needed <= machines.chip.hbm_gib * _GIB:
    return
  larger = next(_holding(case, machines, wanted), None)
  way_out = "no slice holds it: see docs/fit.md for what takes less"
  if larger is not None:
    way_out = f"take --slice={slices.name(larger)}, the smallest that may hold it"
  raise UserError(
    f"{machines.name} does not hold {case.name}: it takes at least "
    f"{needed / _GIB:.1f} of {machines.chip.hbm_gib:.1f} GiB per chip: {way_out} "
    "(--skip_fit goes on all the same)"
  )


def _at_least(case: Any, machines: Topology, wanted: Mapping[str, int]) -> float | None:
  """Returns bytes per chip that the leanest way to compute takes; None: no mesh."""
  from msm_jax.fit import search

  mesh, _ = search.choose_mesh(case, machines, wanted)
  if mesh is None:
    return None
  leanest = min(
    one.estimate.at_least for one in search.candidates(case, machines, mesh)
  )
  return leanest * machines.chip.devices_per_chip


def _holding(
  case: Any, machines: Topology, wanted: Mapping[str, int]
) -> Iterator[Topology]:
  """Yields slices that the bound does not speak against, of this chip first."""
  chips = [
    machines.chip.name,
    *(n for n in ("v5p", "tpu7x") if n != machines.chip.name),
  ]
  for chip in chips:
    for one in topology.parse(chip, machines.num_slices):
      needed = _at_least(case, one, {**wanted, "fsdp": -1})
      if needed is not None and needed <= one.chip.hbm_gib * _GIB:
        yield one
