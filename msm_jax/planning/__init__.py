"""What a study will take, before it starts: steps, tokens, memory, hours, dollars.

Optimizer steps are the unit that decides whether a stage can teach anything; so many
tokens in so few steps have been mistaken for a null result.
"""

import pathlib
from collections.abc import Iterator, Mapping
from typing import Protocol

from msm_jax import origin, sharding
from msm_jax.errors import UserError
from msm_jax.experiment import Experiment, StageConfig
from msm_jax.fit import case, estimate
from msm_jax.fit import report as fit_report
from msm_jax.hardware import Hardware
from msm_jax.planning import hours, sizes
from msm_jax.planning.hours import Work
from msm_jax.planning.sizes import CorpusSize, Length

_WHOLE = dict.fromkeys(sharding.MESH_AXES, 1)
_SMALL = 2**30  # bytes that any accelerator has
_NO_HARDWARE = (
  "hours: not known: say in the config what it will run on: c.hardware = "
  "ConfigDict(dict(slice='v5p:2x2x1', mfu=0.4)), or slice='h100:8' (docs/planning.md)"
)


class Costs(Protocol):
  """Dollars of teacher and graders: still to be paid (None: not known), and spent."""

  def dollars(self) -> float | None: ...

  def dollars_spent(self) -> float: ...


def lines(
  experiment: Experiment,
  workdir: pathlib.Path,
  corpora: Mapping[str, CorpusSize],
  costs: Costs,
) -> Iterator[str]:
  """Yields the plan of training and evaluation, and the total; writes nothing.

  Args:
    experiment: what is planned.
    workdir: of the study.
    corpora: their sizes, as they are or as they are planned.
    costs: of teacher and graders.
  """
  lengths = {
    name: sizes.length(stage, workdir, corpora)
    for name, stage in experiment.stages.items()
  }
  yield from _stages(experiment, lengths)
  work = []
  missing = _missing(experiment, workdir)
  if missing:
    yield missing
  else:
    yield from _model(experiment, workdir)
    work = list(hours.training(experiment, workdir, lengths))
    asked, unknown = hours.evaluation(experiment, workdir, corpora)
    yield from _hours(experiment.hardware, work, asked, unknown)
    work += asked
  yield _total(experiment, lengths, work, costs)


def _stages(
  experiment: Experiment, lengths: Mapping[str, Length | None]
) -> Iterator[str]:
  yield f"{'stage':<16}{'steps':>15}{'rows':>10}{'tokens':>14}  data"
  for name, stage in experiment.stages.items():
    yield from _stage_lines(stage, lengths[name])
  if any(length and not length.is_exact for length in lengths.values()):
    yield (
      "  ~: estimated from the planned corpora, at four characters or 3/4 of a word a "
      "token; exact after `prepare`"
    )
  paths, num_seeds = experiment.paths(), len(experiment.seeds)
  yield (
    f"{len(experiment.arms)} arms share {len(paths)} runs per seed, {num_seeds} seeds: "
    f"{len(paths) * num_seeds} runs"
  )
  if experiment.asked:
    yield (
      f"{len(experiment.asked)} more are asked of them differently, and trained not at "
      f"all: {', '.join(experiment.asked)}"
    )
  found = [lengths[path[-1]] for path in paths]
  if found and None not in found:
    mark = "" if all(length.is_exact for length in found) else "~"
    steps = sum(length.steps for length in found) * num_seeds
    yield f"optimizer steps over all runs: {mark}{steps}"


def _stage_lines(stage: StageConfig, length: Length | None) -> Iterator[str]:
  data = ", ".join(part.says() for part in stage.data)
  if length is None:
    epochs = "" if stage.num_epochs is None else f"{stage.num_epochs:>7g} epochs"
    yield f"{stage.name:<16}{epochs:>15}  (steps: after generate)  {data}"
    return
  steps, rows = f"{length.mark}{length.steps}", length.steps * stage.batch_size
  tokens = rows * stage.seq_len
  yield f"{stage.name:<16}{steps:>9} steps{rows:>10}{tokens:>14}  {data}"
  if length.problem:
    yield f"  `prepare` would refuse this, if the estimate is right: {length.problem}"


def _missing(experiment: Experiment, workdir: pathlib.Path) -> str:
  """Returns that nothing tells the model's sizes; "" if something does."""
  absent = origin.absent(experiment.model, experiment.seeds[0])
  if not absent:
    return ""
  try:
    case.model(experiment, workdir)
  except UserError:
    return (
      f"model: {' and '.join(absent)} is not there yet: parameters, memory and hours "
      "can be told once it is, and `train` refuses until then"
    )
  return ""


def _model(experiment: Experiment, workdir: pathlib.Path) -> Iterator[str]:
  if origin.absent(experiment.model, experiment.seeds[0]):
    note = case.model(experiment, workdir).note
    yield f"model: {note}; `train` refuses until then"
  yield from _model_lines(experiment, workdir)
  fits = list(fit_report.plan_lines(experiment, workdir))
  yield from fits
  if not experiment.paths() or fits:
    return
  if experiment.hardware or num_bytes(experiment, workdir) > _SMALL:
    yield _how_to_fit(experiment.hardware, num_bytes(experiment, workdir) / 2**30)


def _how_to_fit(hardware: Hardware | None, held_gib: float) -> str:
  chips = hardware and hardware.chips()
  if chips is not None and chips.hbm_gib is None:
    return (
      f"fit: `fit` compiles for TPUs alone; the first step of `train` tells whether "
      f"{chips.name} holds it"
    )
  family, room = "v5e", ""
  if chips is not None:
    family, gib = chips.name.split(" x ")[-1], chips.number * chips.hbm_gib
    room = f"; {chips.name} has {gib:.0f} GiB"
    if held_gib > gib:
      room += ", which is TOO SMALL before a single activation"
  return (
    f"fit: nobody has asked yet which slice holds it{room}: "
    f"python launch.py fit --config=... --workdir=... --topology={family} (no TPU is "
    f"needed; --topology={family.partition(':')[0]} finds the smallest slice)"
  )


def _hours(
  hardware: Hardware | None,
  trained: list[Work],
  asked: list[Work],
  unknown: list[str],
) -> Iterator[str]:
  at = "" if hardware is None else f" at MFU {hardware.mfu:.2f}"
  if trained:
    yield f"training{at}, all seeds:{_sum(hardware, trained)}"
    yield from hours.table(trained, hardware)
  if asked:
    drawn = ""
    if hardware is not None:
      drawn = f", drawn tokens at {hardware.decode_mfu:.2f} of the peak"
      if (speed := hardware.eval_tokens_per_sec) is not None:
        drawn = f", tokens drawn at {speed:,.0f}/s"
    took = _sum(hardware, asked)
    yield f"evaluation{drawn}, answers as long as may be, all arms and seeds:{took}"
    yield from hours.table(asked, hardware)
  if unknown:
    yield f"  not counted, as nothing tells how much they ask: {', '.join(unknown)}"
  if hardware is None:
    yield _NO_HARDWARE


def _sum(hardware: Hardware | None, work: list[Work]) -> str:
  """Returns the hours of pieces of work together; "" where nothing tells them."""
  if hardware is None:
    return ""
  chips = hardware.chips()
  return f" ~{hours.hours_said(sum(one.hours(hardware, chips) for one in work))}"


def _total(
  experiment: Experiment,
  lengths: Mapping[str, Length | None],
  work: list[Work],
  costs: Costs,
) -> str:
  paths, dollars, spent = experiment.paths(), costs.dollars(), costs.dollars_spent()
  api = "dollars not known" if dollars is None else f"${dollars:,.2f}"
  said = [f"{api} for the teacher and graders"]
  if spent:
    said[0] += f" beside ${spent:,.2f} already spent"
  found = [(lengths[path[-1]], experiment.stages[path[-1]]) for path in paths]
  if None not in [length for length, _ in found]:
    tokens = len(experiment.seeds) * sum(
      length.steps * stage.batch_size * stage.seq_len for length, stage in found
    )
    mark = "" if all(length.is_exact for length, _ in found) else "~"
    said.append(f"{mark}{tokens / 1e6:,.1f}M tokens of training")
  hardware = experiment.hardware
  if work and hardware is not None:
    chips = hardware.chips()
    took = sum(one.hours(hardware, chips) for one in work)
    told = f"~{hours.hours_said(took)} on {chips.says} at MFU {hardware.mfu:.2f}"
    if (price := hardware.dollars_per_chip_hour) is not None:
      told += f": ${took * chips.number * price:,.2f} at ${price:,.2f} per chip-hour"
    said.append(told)
  elif work:
    said.append(hours.flops_said(sum(one.flops + one.drawn_flops for one in work)))
  return f"total: {', '.join(said)}"


def num_bytes(experiment: Experiment, workdir: pathlib.Path) -> int:
  """Returns how much weights, gradients and optimizer take over the mesh, of the stage
  that needs most.
  """
  return estimate.num_held(_neediest(experiment, workdir), _WHOLE)


def _neediest(experiment: Experiment, workdir: pathlib.Path) -> case.Case:
  cases = case.find(experiment, workdir)
  return max(cases, key=lambda one: estimate.num_held(one, _WHOLE))


def _model_lines(experiment: Experiment, workdir: pathlib.Path) -> Iterator[str]:
  given = case.model(experiment, workdir)
  yield f"model: {given.cfg.num_params() / 1e6:.2f}M parameters"
  if not experiment.paths():
    return
  most = _neediest(experiment, workdir)
  yield (
    "weights, gradients and optimizer: "
    f"{estimate.num_held(most, _WHOLE) / 2**30:.2f} GiB over the mesh, of "
    f"{most.stages[0]}, which needs most ({_dtypes(most)}; one copy: config.mesh.data "
    f"above 1 holds so many; {_runs(most)}; activations come on top)"
  )


def _runs(one: case.Case) -> str:
  return "one run" if one.num_runs == 1 else f"{one.num_runs} runs as one program"


def _dtypes(one: case.Case) -> str:
  """Returns in what a stage is held."""
  moments = one.config.optimizer.moments_dtype
  if one.trains_all:
    return f"weights in {one.base_dtype}, gradients in float32, moments in {moments}"
  return (
    f"base in {one.base_dtype}, adapters and gradients in float32, moments in {moments}"
  )
