"""What `fit` says, for people and as JSON, and what `plan` reads of it."""

import datetime
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from msm_jax import records, topology
from msm_jax.experiment import Experiment
from msm_jax.fit import case as case_lib
from msm_jax.fit import search
from msm_jax.fit.case import Case
from msm_jax.fit.compiling import GIB, Compiled
from msm_jax.fit.search import Fit, Tried
from msm_jax.topology import Topology

FOLDER = "fit"
CLASSES = {
  "parameters": "parameters",
  "frozen": "frozen base",
  "optimizer": "optimizer",
  "gradients": "gradients",
  "activations": "activations and workspace",
  "rows": "rows",
  "padding": "padding",
  "program": "program",
}
_CHOSEN = ("num_microbatches", "remat")
_FEWER_BITS = {
  "float32": "'bfloat16'",
  "bfloat16": "'int8' (pretrained, all stages 'lora')",
  "int8": "'nf4'",
}
MODEL = "a roofline, not a measurement: real steps are slower"


def case_line(case: Case) -> str:
  """Returns what is compiled."""
  config, cfg = case.config, case.cfg
  trained = "all leaves" + (", bfloat16" if case.base_dtype == "bfloat16" else "")
  if not case.trains_all:
    trained = f"adapters of rank {cfg.lora.rank}, base in {case.base_dtype}"
  line = (
    f"{case.name}: {_count(cfg.num_params())} parameters, {trained}; "
    f"{config.batch_size} rows of {config.seq_len} tokens a step"
  )
  if case.num_runs > 1:
    line += f", {case.num_runs} runs as one program (config.run.population)"
  return f"{line}\n  {case.note}" if case.note else line


def _count(number: int) -> str:
  return f"{number / 1e9:.2f}B" if number >= 1e9 else f"{number / 1e6:.2f}M"


def slice_line(fit: Fit) -> str:
  """Returns where it is compiled for."""
  where = fit.topology
  hosts = "one host" if where.num_hosts == 1 else f"{where.num_hosts} hosts"
  line = f"{where.name}: {where.num_chips} chips, {hosts}"
  if fit.mesh is None:
    return f"{line}; {fit.note}"
  line += f"; mesh {_settings(fit.mesh)}"
  return f"{line} ({fit.note})" if fit.note else line


def tried_line(tried: Tried, slices: Topology) -> str:
  """Returns what became of a candidate."""
  num_microbatches, remat = tried.candidate.settings
  start = f"  num_microbatches={num_microbatches:<4} remat={remat:<8}"
  compiled = tried.compiled
  if compiled is None:
    return f"{start} not compiled: {tried.why}"
  effort = "" if tried.is_final else "; least effort"
  took = f"({compiled.seconds:.0f} s, {compiled.cpu_seconds:.0f} s of a core{effort})"
  if compiled.needed is None:
    return f"{start} not known: {compiled.why} {took}"
  verdict = "fits" if compiled.fits else "exceeds"
  return f"{start} {verdict}: {_memory(compiled, slices)} {took}"


def best_lines(fit: Fit, compiler: str) -> Iterator[str]:
  """Yields what is known of the fastest candidate, which fits."""
  best, case = fit.best, fit.case
  compiled, settings = best.compiled, _changes_of(fit)
  per_chip = fit.topology.chip.devices_per_chip
  unit, scale = ("GiB", GIB) if compiled.needed >= GIB / 8 else ("MiB", GIB / 1024)
  parts = [
    f"{name} {compiled.classes[key] * per_chip / scale:.2f}"
    for key, name in CLASSES.items()
    if compiled.classes[key] * per_chip >= 0.005 * scale
  ]
  yield f"{fit.topology.name} holds {case.name}: {_memory(compiled, fit.topology)}"
  yield f"  {unit} per chip: {', '.join(parts)}"
  if compiled.host:
    yield f"  in the host's memory: {compiled.host * per_chip / GIB:.2f} GiB per chip"
  seconds = best.candidate.estimate.seconds
  tokens = case.num_runs * case.config.batch_size * case.config.seq_len
  yield f"  {seconds:.3g} s a step, {tokens / seconds:,.0f} tokens/s ({MODEL})"
  yield f"  settings: {' '.join(settings) or 'as the config has them'}"
  yield f"  XLA flags: {len(compiled.flags)}, all known to {compiler}"
  yield from (f"  {note}" for note in compiled.notes)


def _denial(problem: str | None) -> str:
  return "does not hold" if problem is None else "may or may not hold"


def refusal(fit: Fit) -> str:
  """Returns that nothing fits, as far as is known, and what would help."""
  case, slices = fit.case, fit.topology
  return f"{slices.name} {_denial(fit.problem)} {case.name}: {_way_out(fit)}"


def _way_out(fit: Fit) -> str:
  case, slices = fit.case, fit.topology
  if fit.problem is not None:
    return f"{fit.problem}; ask again where more cores or memory are free"
  if fit.mesh is None:
    return f"{fit.note}: change config.stages.{case.stages[0]}.batch_size"
  ways = []
  if fit.mesh["data"] > slices.num_slices:  # each part of `data` holds a copy
    ways.append(f"--config.mesh.fsdp=-1 --config.mesh.data={slices.num_slices}")
  if case.num_runs > 1:
    ways.append("--config.run.population=1")
  ways.append(f"more chips (--topology={slices.chip.name} finds the smallest slice)")
  if case.trains_all:
    ways.append("adaptation='lora'")
  elif case.base_dtype in _FEWER_BITS:
    ways.append(f"config.model.base_dtype={_FEWER_BITS[case.base_dtype]}")
  if case.cfg.dtype != "bfloat16":
    ways.append("config.model.dtype='bfloat16'")
  chunk_len = _chunk_len(case.config.seq_len)
  if case.config.loss_chunk_len is None and chunk_len:
    ways.append(f"loss_chunk_len={chunk_len}")
  return "what helps: " + "; ".join([*ways, "a shorter seq_len"])


def _chunk_len(seq_len: int) -> int | None:
  """Returns the largest length up to 256 that divides rows into chunks worth having."""
  lengths = range(min(256, seq_len // 2), 15, -1)
  return next((length for length in lengths if seq_len % length == 0), None)


def table(fits: Sequence[Fit]) -> Iterator[str]:
  """Yields one line for each slice, with a heading."""
  heads = ("slice", "chips", "microbatches", "remat", "GiB/chip", "fits", "s/step*")
  yield "".join(f"{head:<14}" for head in heads).rstrip()
  for fit in fits:
    yield "".join(f"{cell:<14}" for cell in _cells(fit)).rstrip()
  yield f"* {MODEL}"


def _cells(fit: Fit) -> Iterable[str]:
  """Returns a row of the table: of what fits, else of the least that was asked for."""
  start = [fit.topology.name, str(fit.topology.num_chips)]
  if not fit.tried:
    return [*start, "-", "-", "-", "no", "-"]
  per_chip = fit.topology.chip.devices_per_chip
  shown = fit.best or min(fit.tried, key=_need)
  num_microbatches, remat = shown.candidate.settings
  sign = "" if shown.compiled is not None else ">="
  memory = f"{sign}{_need(shown) * per_chip / GIB:.2f}"
  seconds = f"{shown.candidate.estimate.seconds:.3g}" if fit.best else "-"
  verdict = "yes" if fit.best else "no" if fit.problem is None else "?"
  return [*start, str(num_microbatches), remat, memory, verdict, seconds]


def _need(tried: Tried) -> int:
  if tried.compiled is not None and tried.compiled.needed is not None:
    return tried.compiled.needed
  return tried.candidate.estimate.at_least


def _memory(compiled: Compiled, slices: Topology) -> str:
  per_chip = slices.chip.devices_per_chip
  needed, available = compiled.needed * per_chip / GIB, slices.chip.hbm_gib
  tight = ", tight" if compiled.fits and needed > 0.95 * available else ""
  return f"{needed:.2f} of {available:.2f} GiB per chip{tight}"


def _changes_of(fit: Fit) -> list[str]:
  chosen = dict(zip(_CHOSEN, fit.best.candidate.settings, strict=True))
  return _changes(fit.case, fit.topology, chosen, fit.mesh, fit.wanted_mesh)


def _changes(
  case: Case,
  slices: Topology,
  chosen: Mapping[str, Any],
  mesh: Mapping[str, int],
  wanted_mesh: Mapping[str, int],
) -> list[str]:
  """Returns flags that make the config, as it is, what was compiled."""
  flags = [
    f"--config.stages.{stage}.{name}={chosen[name]}"
    for stage, own in case.own_settings().items()
    for name in _CHOSEN
    if own[name] != chosen[name]
  ]
  if topology.fill_mesh(wanted_mesh, slices.num_devices) != mesh:
    flags += [f"--config.mesh.{k}={v}" for k, v in mesh.items()]
  return flags


def _settings(mesh: Mapping[str, int]) -> str:
  return " ".join(f"{axis}={size}" for axis, size in mesh.items())


def as_json(fit: Fit, compiler: str) -> dict[str, Any]:
  """Returns all that is known, as `plan` reads it."""
  return {
    "identity": fit.case.identity(),
    "stages": list(fit.case.stages),
    "topology": fit.topology.slice_name,
    "num_slices": fit.topology.num_slices,
    "num_chips": fit.topology.num_chips,
    "available_gib_per_chip": fit.topology.chip.hbm_gib,
    "fits": fit.best is not None,
    "problem": fit.problem,
    "mesh": fit.mesh,
    "wanted_mesh": dict(fit.wanted_mesh),
    "note": fit.note,
    "tried": [_tried_json(tried, fit.topology) for tried in fit.tried],
    "settings": _changes_of(fit) if fit.best else None,
    "compiler": compiler,
    "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
  }


def _tried_json(tried: Tried, slices: Topology) -> dict[str, Any]:
  num_microbatches, remat = tried.candidate.settings
  per_chip = slices.chip.devices_per_chip
  entry = {
    "num_microbatches": num_microbatches,
    "remat": remat,
    "is_final": tried.is_final,
    "roofline_seconds_per_step": tried.candidate.estimate.seconds,
    "at_least_bytes_per_chip": tried.candidate.estimate.at_least * per_chip,
  }
  compiled = tried.compiled
  if compiled is None:
    return entry | {"status": "not compiled", "why": tried.why}
  classes = compiled.classes and {
    name: size * per_chip for name, size in compiled.classes.items()
  }
  return entry | {
    "status": compiled.status,
    "why": compiled.why,
    "bytes_per_chip": compiled.needed and compiled.needed * per_chip,
    "classes": classes,
    "peak_bytes_per_chip": compiled.peak and compiled.peak * per_chip,
    "host_bytes_per_chip": compiled.host * per_chip,
    "seconds": compiled.seconds,
    "cpu_seconds": compiled.cpu_seconds,
    "flags": dict(compiled.flags),
  }


def save(fit: Fit, compiler: str, workdir: pathlib.Path) -> pathlib.Path:
  """Writes the outcome under `workdir`, in place of one for the same case and slice."""
  found = as_json(fit, compiler)
  slices = f"{fit.topology.num_slices}x" if fit.topology.num_slices > 1 else ""
  name = f"{slices}{fit.topology.slice_name.replace(':', '-')}-{found['identity']}.json"
  path = workdir / FOLDER / name
  path.parent.mkdir(parents=True, exist_ok=True)
  records.write_json(path, found)
  return path


def plan_lines(experiment: Experiment, workdir: pathlib.Path) -> Iterator[str]:
  """Yields what earlier fits of this config found; compiles nothing."""
  found = [
    records.read_json(path) for path in sorted((workdir / FOLDER).glob("*.json"))
  ]
  if not found:
    return
  cases = {case.identity(): case for case in case_lib.find(experiment, workdir)}
  current = [
    entry
    for entry in found
    if entry["identity"] in cases
    and _is_on_this_mesh(entry, cases[entry["identity"]], experiment.mesh)
  ]
  for entry in current:
    yield _plan_line(entry, cases[entry["identity"]], experiment.mesh)
  if len(current) < len(found):
    yield (
      f"fit: {len(found) - len(current)} earlier results are of other settings: run "
      "`fit` again"
    )


def _slices_of(entry: Mapping[str, Any]) -> Topology:
  return topology.parse(entry["topology"], entry["num_slices"])[0]


def _is_on_this_mesh(
  entry: Mapping[str, Any], case: Case, wanted_mesh: Mapping[str, int]
) -> bool:
  """Returns whether a search would begin on the mesh where this one began or ended."""
  if "wanted_mesh" not in entry:  # kept by an earlier version
    return False
  slices = _slices_of(entry)
  now, _ = search.choose_mesh(case, slices, wanted_mesh)
  then, _ = search.choose_mesh(case, slices, entry["wanted_mesh"])
  return now in (then, entry["mesh"])


def _plan_line(
  entry: Mapping[str, Any], case: Case, wanted_mesh: Mapping[str, int]
) -> str:
  where = entry["topology"]
  if entry["num_slices"] > 1:
    where = f"{entry['num_slices']} x {where}"
  if not entry["fits"]:
    return f"fit: {where} {_denial(entry['problem'])} {case.name}"
  best = entry["tried"][-1]
  # Against the config as it is now: it may have changed since.
  flags = _changes(case, _slices_of(entry), best, entry["mesh"], wanted_mesh)
  settings = " ".join(flags) or "as configured"
  return (
    f"fit: {where} ({entry['num_chips']} chips) holds {case.name}: "
    f"{best['bytes_per_chip'] / GIB:.2f} of {entry['available_gib_per_chip']:.2f} GiB "
    f"per chip, {best['roofline_seconds_per_step']:.3g} s a step by its roofline "
    f"({settings})"
  )
