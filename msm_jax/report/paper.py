"""The numbers of papers beside ours."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from scipy import special

from msm_jax.report import contrasts as contrasts_lib
from msm_jax.report import statistics
from msm_jax.report.paper_settings import Column, Paper, Stated
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
  """Our estimate and the paper's number for an arm, or a contrast, on one metric.

  Attributes:
    name: of the arm, or label of the contrast.
    ours: without a mean where there is no result.
    is_measured: whether the study has any result on this evaluation and metric.
    num_seeds: behind the paper's standard error, None where not known.
  """

  name: str
  evaluation: str
  metric: str
  paper: Stated
  ours: statistics.Estimate
  is_contrast: bool = False
  is_measured: bool = True
  num_seeds: int | None = None

  @property
  def difference(self) -> statistics.Estimate:
    """Ours minus the paper's.

    Without a standard error the paper's number is taken as it stands. With one, the
    squares of the two half widths add, for each side of the interval (Zou and Donner
    2008): the paper's half width is t(num_seeds - 1) or, where the seeds are not
    known, 1.96 standard errors.
    """
    found, number = self.ours, self.paper.value
    bounds, mean = found.interval, found.mean
    if bounds is not None:
      low, high = bounds
      if self.paper.sem is not None:
        half = _quantile(self.num_seeds) * self.paper.sem
        low = mean - math.hypot(mean - low, half)
        high = mean + math.hypot(mean - high, half)
      bounds = (low - number, high - number)
    return dataclasses.replace(
      found,
      values={seed: value - number for seed, value in found.values.items()},
      mean=None if mean is None else mean - number,
      interval=bounds,
    )

  def to_json(self) -> dict[str, Any]:
    """Returns the pair as plain JSON values."""
    difference = self.difference
    return {
      "contrast" if self.is_contrast else "arm": self.name,
      "evaluation": self.evaluation,
      "metric": self.metric,
      "paper": self.paper.value,
      "ours": self.ours.to_json(),
      "difference": difference.mean,
      "includes_paper": difference.includes_zero,
      "difference_interval": None
      if difference.interval is None
      else list(difference.interval),
      "paper_sem": self.paper.sem,
      "is_measured": self.is_measured,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class Block:
  """The pairs of a paper on one evaluation and metric, all arms or all contrasts."""

  column: Column
  is_contrast: bool
  is_share: bool
  pairs: tuple[Pair, ...]

  @property
  def is_measured(self) -> bool:
    """Whether there is a number of ours to draw."""
    return any(pair.ours.mean is not None for pair in self.pairs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
  """What one figure shows; `labels` name its rows."""

  title: str
  unit: str
  is_contrast: bool
  is_share: bool
  pairs: tuple[Pair, ...]
  labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
  """A paper with its numbers beside ours."""

  paper: Paper
  blocks: tuple[Block, ...]

  @property
  def pairs(self) -> list[Pair]:
    """Every number, in the order in which they are shown."""
    return [pair for block in self.blocks for pair in block.pairs]

  @property
  def counts(self) -> tuple[int, int, int]:
    """How many numbers have one of ours, an interval, and zero in it."""
    found = [pair.difference for pair in self.pairs if pair.ours.mean is not None]
    bounded = [each for each in found if each.interval is not None]
    return len(found), len(bounded), sum(bool(each.includes_zero) for each in bounded)

  @property
  def sheets(self) -> list[Sheet]:
    """The figures: levels by evaluation and metric, all differences of a unit in one.

    What has no number of ours is in none.
    """
    measured = [block for block in self.blocks if block.is_measured]
    found = [
      Sheet(
        title=block.column[0],
        unit=f"{block.column[1]}, {'% of answers' if block.is_share else 'mean'}",
        is_contrast=False,
        is_share=block.is_share,
        pairs=block.pairs,
        labels=tuple(pair.name for pair in block.pairs),
      )
      for block in measured
      if not block.is_contrast
    ]
    grouped: dict[str, list[Block]] = {}
    for block in measured:
      if block.is_contrast:
        unit = "points" if block.is_share else block.column[1]
        grouped.setdefault(unit, []).append(block)
    return found + [_differences(unit, blocks) for unit, blocks in grouped.items()]

  def mean_gap(self, is_contrast: bool) -> float | None:
    """Returns the mean of |ours - the paper's| over shares; None without any."""
    found = [
      abs(pair.difference.mean)
      for block in self.blocks
      if block.is_share and block.is_contrast == is_contrast
      for pair in block.pairs
      if pair.ours.mean is not None
    ]
    return sum(found) / len(found) if found else None

  def to_json(self) -> list[dict[str, Any]]:
    """Returns the pairs as plain JSON values."""
    about = {"source": self.paper.source, "title": self.paper.title}
    return [pair.to_json() | about for pair in self.pairs]


def read(paper: Paper, results: Results, settings: Settings) -> Drawn:
  """Returns a paper's numbers beside ours: levels, then differences."""
  own = {found.label: found for found in contrasts_lib.own(results, settings)}

  def level(arm: str, column: Column) -> statistics.Estimate:
    return results.estimate(arm, *column)

  def contrast(label: str, column: Column) -> statistics.Estimate:
    if label in own:
      return own[label].estimate
    found = contrasts_lib.compare(results, settings, *column)
    return next(each.estimate for each in found if each.label == label)

  return Drawn(
    paper=paper,
    blocks=(
      *_blocks(paper, paper.values, level, results, is_contrast=False),
      *_blocks(paper, paper.contrasts, contrast, results, is_contrast=True),
    ),
  )


def _differences(unit: str, blocks: Sequence[Block]) -> Sheet:
  """Returns the sheet of contrasts; a label on several columns is told apart."""
  pairs = tuple(pair for block in blocks for pair in block.pairs)
  names = [pair.name for pair in pairs]
  return Sheet(
    title="" if len(blocks) > 1 else blocks[0].column[0],
    unit=f"difference, {unit}",
    is_contrast=True,
    is_share=blocks[0].is_share,
    pairs=pairs,
    labels=tuple(
      name if names.count(name) == 1 else f"{name}, {pair.evaluation} {pair.metric}"
      for name, pair in zip(names, pairs, strict=True)
    ),
  )


def _blocks(
  paper: Paper,
  stated: Mapping[tuple[str, str, str], Stated],
  ours: Callable[[str, Column], statistics.Estimate],
  results: Results,
  is_contrast: bool,
) -> list[Block]:
  grouped: dict[Column, list[Pair]] = {}
  for (name, *key), number in stated.items():
    column = (key[0], key[1])
    pair = Pair(
      name=name,
      evaluation=column[0],
      metric=column[1],
      paper=number,
      ours=ours(name, column),
      is_contrast=is_contrast,
      is_measured=column[1] in results.metrics.get(column[0], ()),
      num_seeds=paper.num_seeds,
    )
    grouped.setdefault(column, []).append(pair)
  return [
    Block(
      column=column,
      is_contrast=is_contrast,
      is_share=results.is_share(*column),
      pairs=tuple(pairs),
    )
    for column, pairs in grouped.items()
  ]


def _quantile(num_seeds: int | None) -> float:
  """Returns Student's t of a standard error over so many seeds; None: the normal's."""
  place = (1 + statistics.CONFIDENCE) / 2
  if num_seeds is None:
    return float(special.ndtri(place))
  return float(special.stdtrit(num_seeds - 1, place))
