"""FLOPs of training and evaluation, and the hours that they take on some chips.

FLOPs are the model's own, as `perf/mfu` counts them (`models/config.py`): 6 per weight
and token, 4 where the base is frozen, 6 per weight of an adapter, causal attention
once; what `remat` computes again is not in them. A forward pass has a third of those of
a base that is trained. Hours are FLOPs / (chips x peak x share of the peak).

Loading, compilation, checkpoints and waiting for a service come on top.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from msm_jax.experiment import Experiment
from msm_jax.fit import case as case_lib
from msm_jax.fit.case import Case
from msm_jax.hardware import Chips, Hardware
from msm_jax.planning import answers
from msm_jax.planning.sizes import CorpusSize, Length

_UNITS = (("E", 1e18), ("P", 1e15), ("T", 1e12), ("G", 1e9))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
  """A piece of the work, over all runs or models.

  Attributes:
    name: of the stage or evaluation.
    about: what it consists of.
    flops: of it; for drawn answers see `drawn_flops`.
    drawn_flops: of tokens that are drawn one by one.
    drawn_tokens: so many.
    mark: `~` where it is estimated.
  """

  name: str
  about: str
  flops: float
  drawn_flops: float = 0.0
  drawn_tokens: int = 0
  mark: str = ""

  def hours(self, hardware: Hardware, chips: Chips) -> float:
    """Returns the hours that it takes."""
    peak = chips.number * chips.peak_flops
    seconds = self.flops / (peak * hardware.mfu)
    if hardware.eval_tokens_per_sec is not None:
      seconds += self.drawn_tokens / hardware.eval_tokens_per_sec
    else:
      seconds += self.drawn_flops / (peak * hardware.decode_mfu)
    return seconds / 3600


def training(
  experiment: Experiment,
  workdir: pathlib.Path,
  lengths: Mapping[str, Length | None],
) -> Iterator[Work]:
  """Yields the work of each stage over all paths that end with it, and all seeds.

  A stage whose length is not known is left out.

  Raises:
    UserError: the model's sizes are not known.
  """
  paths = experiment.paths()
  if not paths:
    return
  cases = case_lib.find(experiment, workdir)
  for name in dict.fromkeys(path[-1] for path in paths):
    stage, length = experiment.stages[name], lengths[name]
    if length is None:
      continue
    num_runs = sum(path[-1] == name for path in paths) * len(experiment.seeds)
    case = next(case for case in cases if name in case.stages)
    tokens = num_runs * length.steps * stage.batch_size * stage.seq_len
    runs = f"{num_runs} run{'s' if num_runs > 1 else ''}"
    yield Work(
      name=name,
      about=f"{runs} x {length.mark}{length.steps:,} steps",
      flops=tokens * _per_token(case, stage.seq_len),
      mark=length.mark,
    )


def _per_token(case: Case, seq_len: int) -> float:
  return case.cfg.flops_per_token(
    seq_len, train_base=case.trains_all, freeze=case.freeze
  )


def evaluation(
  experiment: Experiment,
  workdir: pathlib.Path,
  corpora: Mapping[str, CorpusSize],
) -> tuple[list[Work], list[str]]:
  """Returns (the work of each evaluation, names of those that cannot be counted).

  Raises:
    UserError: the model's sizes are not known.
  """
  cfg = case_lib.model(experiment, workdir).cfg
  found, unknown = [], []
  for name, fields in experiment.evals.items():
    load = answers.load(experiment, name, corpora)
    num_models = len(answers.models(experiment, name))
    if load is None:
      unknown.append(name)
      continue
    length = fields.get("seq_len") or answers.PROMPT_TOKENS
    forward = cfg.flops_per_token(min(length, cfg.max_seq_len)) / 3
    parts = []
    if load.answers:
      parts.append(f"{load.answers:,} answers")
    if load.read_tokens:
      parts.append(f"{load.read_tokens:,} tokens read")
    told = " and ".join(parts) or "nothing that is counted"
    found.append(
      Work(
        name=name,
        about=f"{num_models} models x {told}",
        flops=num_models * load.read_tokens * forward,
        drawn_flops=num_models * load.drawn_tokens * forward,
        drawn_tokens=num_models * load.drawn_tokens,
        mark="~",
      )
    )
  return found, unknown


def table(work: Sequence[Work], hardware: Hardware | None) -> Iterator[str]:
  """Yields a line for each piece of work: what, FLOPs, hours where chips are known."""
  chips = hardware and hardware.chips()
  for one in work:
    said = f"  {one.name:<20}{one.about:<52}"
    said += f"{one.mark + flops_said(one.flops + one.drawn_flops):>14}"
    if hardware is not None:
      said += f"{one.mark + hours_said(one.hours(hardware, chips)):>12}"
    yield said


def flops_said(flops: float) -> str:
  """Returns FLOPs for people."""
  for unit, size in _UNITS:
    if flops >= size:
      return f"{flops / size:.3g} {unit}FLOP"
  return f"{flops:.3g} FLOP"


def hours_said(hours: float) -> str:
  """Returns hours for people; minutes and seconds where they are few."""
  if hours >= 0.95:
    return f"{hours:,.1f} h"
  return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.2g} s"
