"""The tables of the page: each cell is text and dots, ready to be set."""

import dataclasses
from collections.abc import Iterable, Sequence

from msm_jax.report import graders, wording
from msm_jax.report.contrasts import Contrast
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings
from msm_jax.report.statistics import Estimate

Column = tuple[str, str]  # evaluation, metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dots:
  """A strip of per-seed dots; places are in per cent of its width.

  Attributes:
    zero: place of the line at zero, None without one.
    span: (low, high) of the interval, None without one.
  """

  dots: tuple[float, ...]
  mean: float
  span: tuple[float, float] | None
  zero: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
  """One estimate; `text` is None where there is no result.

  Attributes:
    remark: what must be said beside it: missing seeds, parse rate.
    seeds: per-seed values as text, for the tooltip and the wide tables.
  """

  text: str | None
  interval: str
  remark: str
  seeds: str
  dots: Dots | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Head:
  """The head of a column; `grader` is None where none was asked."""

  evaluation: str
  metric: str
  unit: str
  grader: graders.Graded | None
  is_rehearsal: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
  """Arms by (evaluation, metric)."""

  columns: tuple[Head, ...]
  rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def primary_metric(results: Results, settings: Settings, evaluation: str) -> str:
  """Returns the headline's metric where there is one, or else the first choice."""
  metrics = results.metrics[evaluation]
  if settings.headline[1] in metrics:
    return settings.headline[1]
  chosen = [name for name in metrics if name.startswith("chose_")]
  return (chosen or metrics)[0]


def families(results: Results, settings: Settings) -> dict[str, list[Column]]:
  """Returns family -> columns; a family is what stands before the '/' of evaluations.

  Of several evaluations each gives its primary metric; a lone one gives all of them.
  """
  grouped: dict[str, list[str]] = {}
  for evaluation in results.metrics:
    grouped.setdefault(evaluation.split("/")[0], []).append(evaluation)
  return {
    family: [(name, primary_metric(results, settings, name)) for name in names]
    if len(names) > 1
    else [(names[0], metric) for metric in results.metrics[names[0]]]
    for family, names in grouped.items()
  }


def grid(results: Results, settings: Settings, columns: Sequence[Column]) -> Grid:
  """Returns the table of every arm on `columns`."""
  found = {
    (arm, column): results.estimate(arm, *column)
    for arm in settings.arms
    for column in columns
  }
  limits = {
    column: _limits(
      [found[arm, column] for arm in settings.arms], results.is_share(*column)
    )
    for column in columns
  }
  return Grid(
    columns=_heads(results, columns),
    rows=tuple(
      (
        arm,
        tuple(
          _arm_cell(results, settings, arm, column, found[arm, column], limits[column])
          for column in columns
        ),
      )
      for arm in settings.arms
    ),
  )


def difference_grid(
  results: Results, settings: Settings, columns: Sequence[Column]
) -> Grid:
  """Returns the table of every arm minus `settings.reference`, paired by seed."""
  reference = settings.reference
  arms = [arm for arm in settings.arms if arm != reference]
  found = {
    (arm, column): results.difference(arm, reference, *column)
    for arm in arms
    for column in columns
  }
  cells = {}
  for column in columns:
    own = [found[arm, column] for arm in arms]
    limits = _limits(own, is_share=False, around_zero=True)
    is_share = results.is_share(*column)
    for arm in arms:
      estimate = found[arm, column]
      remark = wording.signs(estimate) if estimate.num_seeds > 1 else ""
      cells[arm, column] = cell(
        estimate, len(settings.seeds), is_share, limits, signed=True, remark=remark
      )
  return Grid(
    columns=_heads(results, columns, signed=True),
    rows=tuple((arm, tuple(cells[arm, column] for column in columns)) for arm in arms),
  )


def _heads(
  results: Results, columns: Sequence[Column], signed: bool = False
) -> tuple[Head, ...]:
  graded = graders.by_evaluation(results.graded)
  share = "points" if signed else "%"
  return tuple(
    Head(
      evaluation=evaluation,
      metric=metric,
      unit=share if results.is_share(evaluation, metric) else "mean",
      grader=graded.get(evaluation),
      is_rehearsal=graders.is_rehearsed(evaluation, graded.get(evaluation)),
    )
    for evaluation, metric in columns
  )


def contrast_cells(
  contrasts: Sequence[Contrast], settings: Settings, is_share: bool
) -> list[tuple[Contrast, Cell, str]]:
  """Returns (contrast, cell, sign count); all strips have the same scale."""
  limits = _limits([c.estimate for c in contrasts], is_share=False, around_zero=True)
  return [
    (
      contrast,
      cell(contrast.estimate, len(settings.seeds), is_share, limits, signed=True),
      wording.signs(contrast.estimate),
    )
    for contrast in contrasts
  ]


def own_groups(
  contrasts: Sequence[Contrast], settings: Settings
) -> dict[str, list[tuple[Contrast, Cell, str]]]:
  """Returns unit -> rows of contrasts with evaluations of their own.

  The strips of a unit have one scale: points for all shares, else the metric.
  """
  grouped: dict[str, list[Contrast]] = {}
  for contrast in contrasts:
    unit = "points" if contrast.is_share else contrast.metric
    grouped.setdefault(unit, []).append(contrast)
  return {
    unit: contrast_cells(found, settings, found[0].is_share)
    for unit, found in grouped.items()
  }


def cell(
  estimate: Estimate,
  num_seeds: int,
  is_share: bool,
  limits: tuple[float, float],
  *,
  signed: bool = False,
  remark: str = "",
) -> Cell:
  """Returns one estimate as text and dots on a scale from limits[0] to limits[1]."""
  if estimate.mean is None:
    return Cell(text=None, interval="", remark="", seeds="", dots=None)
  lacking = num_seeds - estimate.num_seeds
  remarks = [f"{estimate.num_seeds} of {num_seeds} seeds"] if lacking else []
  return Cell(
    text=wording.number(estimate.mean, is_share, signed),
    interval=wording.interval(estimate, is_share, signed),
    remark="; ".join([*remarks, remark] if remark else remarks),
    seeds=", ".join(
      f"{seed}: {wording.number(value, is_share, signed)}"
      for seed, value in estimate.values.items()
    ),
    dots=_dots(estimate, limits, signed),
  )


def per_seed(
  results: Results, settings: Settings, column: Column
) -> list[tuple[str, list[tuple[str, str, str] | None]]]:
  """Returns arm -> per seed (value, interval, remark), None where missing."""
  is_share = results.is_share(*column)

  def one(arm: str, seed: int) -> tuple[str, str, str] | None:
    value = results.values.get((arm, seed, *column))
    if value is None:
      return None
    remark = [f"n={value.n:,}".replace(",", "\u2009")]
    if value.num_unscored:
      remark.append(f"{value.num_unscored} without a score")
    found, text = value.interval, ""
    if found is not None:
      low, high = (wording.number(bound, is_share) for bound in (found.low, found.high))
      text = f"[{low}, {high}]"
      unit = "clusters" if value.is_clustered else "answers"
      remark.append(f"{found.method}, {found.num_units} {unit}")
    graded = results.graded.get((arm, seed, column[0]))
    if graded is not None and graded.in_vain():
      remark.append(f"verdicts: {graded.in_vain()}")
    return wording.number(value.value, is_share), text, "; ".join(remark)

  return [(arm, [one(arm, seed) for seed in settings.seeds]) for arm in settings.arms]


def _arm_cell(
  results: Results,
  settings: Settings,
  arm: str,
  column: Column,
  estimate: Estimate,
  limits: tuple[float, float],
) -> Cell:
  is_share = results.is_share(*column)
  remarks = [_parse_rate(results, arm, column), _in_vain(results, arm, column[0])]
  remark = "; ".join(filter(None, remarks))
  return cell(estimate, len(settings.seeds), is_share, limits, remark=remark)


def _parse_rate(results: Results, arm: str, column: Column) -> str:
  """Returns 'parsed 97.9%' for a metric that is read from completions."""
  if not column[1].endswith("_parsed"):
    return ""
  found = [v for k, v in results.values.items() if (k[0], *k[2:]) == (arm, *column)]
  answers = sum(value.n + value.num_unscored for value in found)
  if not answers:
    return ""
  rate = sum(value.n for value in found) / answers
  return f"parsed {wording.number(rate, True)}%"


def _in_vain(results: Results, arm: str, evaluation: str) -> str:
  """Returns '3 unparsed, 1 failed of 900 verdicts' for what a grader read."""
  found = [v for k, v in results.graded.items() if (k[0], k[2]) == (arm, evaluation)]
  whole = graders.merged(found)
  text = whole.in_vain()
  return f"{text} of {whole.total} verdicts" if text else ""


def _limits(
  estimates: Iterable[Estimate], is_share: bool, around_zero: bool = False
) -> tuple[float, float]:
  """Returns the scale of the strips of a column: 0 to 1 for shares."""
  values = [0.0, 1.0] if is_share else [0.0] if around_zero else []
  for estimate in estimates:
    values += [*estimate.values.values(), *(estimate.interval or ())]
  low, high = min(values, default=0.0), max(values, default=1.0)
  margin = 0.02 * (high - low) or 0.5
  return low - margin, high + margin


def _dots(estimate: Estimate, limits: tuple[float, float], signed: bool) -> Dots:
  low, high = limits

  def place(value: float) -> float:
    return round(100 * (value - low) / (high - low), 2)

  bounds = estimate.interval
  return Dots(
    dots=tuple(place(value) for value in estimate.values.values()),
    mean=place(estimate.mean),
    span=None if bounds is None else (place(bounds[0]), place(bounds[1])),
    zero=place(0.0) if signed else None,
  )
