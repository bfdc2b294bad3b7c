"""The figures of curves, Pareto plots and a paper's numbers.

Lines differ by mark and stroke as well as by colour, so that a copy in grey and the
colour-blind can tell them apart.
"""

import math
import re
from collections.abc import Sequence

from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msm_jax.report import curves, pareto, plots, wording
from msm_jax.report.curve_settings import Axis
from msm_jax.report.paper import Sheet

_LINES = (  # colour, mark, stroke
  (plots.BLUE, "o", "-"),
  (plots.VERMILION, "s", (0, (5, 2))),
  (plots.GREEN, "^", (0, (1, 1.2))),
  (plots.PURPLE, "D", (0, (5, 1.5, 1, 1.5))),
  (plots.GREY, "v", (0, (8, 3))),
)
_DODGE = 0.012  # of the width, between the bars of lines at one dose
_GAP = 0.14  # of the width, from the least dose to zero


def dose_curve(name: str, drawn: curves.Drawn) -> plots.Plot:
  """Draws level against dose: a mark and its interval per arm, a stroke per line.

  The axis is logarithmic; zero has no place on it and stands apart at the left, behind
  a dotted line, joined to nothing.
  """
  curve, scale = drawn.curve, plots.scale_of(drawn.is_share)

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    doses = [p.dose for line in drawn.lines.values() for p in line]
    place = _log_axis(axes, [dose for dose in doses if dose is not None])
    for i, (label, points) in enumerate(drawn.lines.items()):
      color, mark, stroke = _LINES[i % len(_LINES)]
      shift = _DODGE * (i - (len(drawn.lines) - 1) / 2)
      known = [p for p in points if p.dose is not None and p.estimate.mean is not None]
      joined = [p for p in known if p.dose > 0]
      axes.plot(
        [place(p.dose) + shift for p in joined],
        [scale * p.estimate.mean for p in joined],
        color=color,
        linestyle=stroke,
        linewidth=1.6,
      )
      for p in known:
        x = place(p.dose) + shift
        if p.estimate.interval is not None:
          bounds = [scale * bound for bound in p.estimate.interval]
          axes.plot([x, x], bounds, color=color, linewidth=1.3)
        axes.plot(x, scale * p.estimate.mean, mark, color=color, markersize=6.5)
      axes.plot([], [], color=color, linestyle=stroke, marker=mark, label=label)
    axes.set_title(curve.title)
    axes.set_xlabel(f"{curve.unit.replace('_', ' ')} (log)")
    unit = "% of answers" if drawn.is_share else "mean"
    axes.set_ylabel(f"{curve.metric}, {unit}")
    axes.grid(axis="y", color=plots.INK, alpha=0.12, linewidth=0.6)
    axes.legend(frameon=False, fontsize=9.5, handlelength=3.2)

  alt = f"{curve.metric} on {curve.evaluation} against {curve.unit}"
  return plots.make(name, alt, 3.4, draw)


def pareto_plot(name: str, drawn: pareto.Drawn) -> plots.Plot:
  """Draws every arm by two measures; the arms that none beats are full diamonds."""
  plot = drawn.plot

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    known = [place for place in drawn.places if place.is_known]
    spots = _spots(axes, drawn, known)
    front = sorted(
      (spot for place, spot in zip(known, spots, strict=True) if place.is_on_front),
    )
    if len(front) > 1:
      xs, ys = zip(*front, strict=True)
      axes.plot(xs, ys, color=plots.INK, linewidth=1, linestyle=(0, (4, 2)), alpha=0.6)
    for place, (x, y) in zip(known, spots, strict=True):
      best = place.is_on_front
      axes.plot(
        x,
        y,
        "D" if best else "o",
        color=plots.BLUE if best else plots.GREY,
        markerfacecolor=plots.BLUE if best else "none",
        markersize=7 if best else 6,
      )
    axes.set_title(plot.title)
    axes.margins(0.12)
    axes.grid(color=plots.INK, alpha=0.12, linewidth=0.6)
    _label_all(axes, [place.arm for place in known], spots)

  return plots.make(name, f"{plot.title}: {plot.x} against {plot.y}", 3.8, draw)


def paper_plot(name: str, sheet: Sheet) -> plots.Plot:
  """Draws our estimates (diamonds) and a paper's numbers (open squares), row by row.

  A bar through a square is the paper's own standard error, once to each side.
  """
  scale = plots.scale_of(sheet.is_share)

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    if sheet.is_contrast:
      axes.axvline(0, color=plots.INK, linewidth=0.9)
    for row, pair in enumerate(sheet.pairs):
      plots.estimate_row(axes, row, pair.ours, scale, plots.BLUE, bar=False)
      if pair.paper.sem is not None:
        ends = [scale * (pair.paper.value + k * pair.paper.sem) for k in (-1, 1)]
        axes.plot(ends, [row, row], color=plots.VERMILION, linewidth=1.4)
      axes.plot(
        scale * pair.paper.value,
        row,
        "s",
        color=plots.VERMILION,
        markerfacecolor="none",
        markersize=8,
        markeredgewidth=1.8,
      )
    plots.finish_rows(axes, sheet.labels, sheet.unit)
    axes.set_title(sheet.title)

  height = 0.36 * plots.num_lines(sheet.labels) + 0.9
  where = f" on {sheet.title}" if sheet.title else ""
  alt = f"{sheet.unit}{where}: ours and the paper's"
  return plots.make(name, alt, height, draw)


def _log_axis(axes: Axes, doses: Sequence[float], side: str = "x"):
  """Sets up a log axis of width 1 with a place for zero; returns dose -> place."""
  tried = sorted({dose for dose in doses if dose > 0})
  low, high = (math.log(tried[0]), math.log(tried[-1])) if tried else (0.0, 1.0)
  width = (high - low) or 1.0

  def place(dose: float) -> float:
    return (math.log(dose) - low) / width if dose > 0 else -_GAP

  ticks: list[float] = []
  for dose in tried:
    if not ticks or place(dose) - place(ticks[-1]) > 0.08:
      ticks.append(dose)
  has_zero = any(dose == 0 for dose in doses)
  ticks = [0.0, *ticks] if has_zero else ticks
  axis = getattr(axes, f"{side}axis")
  axis.set_major_locator(ticker.FixedLocator([place(dose) for dose in ticks]))
  axis.set_major_formatter(ticker.FixedFormatter([short(dose) for dose in ticks]))
  if has_zero:
    line = axes.axvline if side == "x" else axes.axhline
    line(-_GAP / 2, color=plots.INK, linewidth=0.9, linestyle=(0, (1, 2)))
  return place


def short(dose: float) -> str:
  """Returns a dose in few characters: 1.25k, 41M."""
  for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
    if dose >= size:
      return f"{dose / size:.3g}{letter}"
  return f"{dose:.3g}"


def _spots(
  axes: Axes, drawn: pareto.Drawn, known: Sequence[pareto.Place]
) -> list[tuple[float, float]]:
  """Sets up both axes, draws the intervals and returns where each arm lies."""
  plot = drawn.plot
  columns, spans = [], []
  for side, axis, is_share in zip("xy", (plot.x, plot.y), drawn.shares, strict=True):
    found = [getattr(place, side) for place in known]
    if axis.evaluation is None:
      place = _log_axis(axes, [each.value for each in found], side)
    else:
      scale = plots.scale_of(is_share)

      def place(value: float, scale: float = scale) -> float:
        return scale * value

    columns.append([place(each.value) for each in found])
    spans.append(
      [each.interval and [place(b) for b in each.interval] for each in found]
    )
    getattr(axes, f"set_{side}label")(_axis_label(axis, is_share))
  spots = list(zip(*columns, strict=True))
  for (x, y), across, up in zip(spots, *spans, strict=True):
    for xs, ys in ((across, [y, y]), ([x, x], up)):
      if xs is not None and ys is not None:
        axes.plot(xs, ys, color=plots.INK, linewidth=0.9, alpha=0.55)
  return spots


def _axis_label(axis: Axis, is_share: bool) -> str:
  arrow = "lower is better" if axis.better == "lower" else "higher is better"
  if axis.evaluation is None:
    return f"{axis.unit.replace('_', ' ')} (log), {arrow}"
  return f"{axis.evaluation} {axis.metric}{', %' if is_share else ''}, {arrow}"


def _label_all(
  axes: Axes, names: Sequence[str], spots: Sequence[tuple[float, float]]
) -> None:
  """Writes each name beside its spot, where it covers the least of what is there."""
  (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
  # In points of an area of about 320 x 210; a letter is about 4.6 wide, 10 high.
  at = [(320 * (x - x0) / (x1 - x0), 210 * (y - y0) / (y1 - y0)) for x, y in spots]
  taken = [(x - 4, y - 4, x + 4, y + 4) for x, y in at]
  for name, spot, (x, y) in zip(names, spots, at, strict=True):
    width, best = 4.6 * len(name), None
    for dx, dy, align in (
      (7, 3, "left"), (7, -11, "left"), (-7, 3, "right"), (-7, -11, "right"),
      (0, 9, "center"), (0, -17, "center"),
    ):  # fmt: skip
      left = x + dx - {"left": 0, "right": width, "center": width / 2}[align]
      box = (left, y + dy, left + width, y + dy + 10)
      cost = sum(_overlap(box, other) for other in taken)
      cost += 10 * (max(0, -left) + max(0, left + width - 320))
      if best is None or cost < best[0]:
        best = (cost, dx, dy, align, box)
    _, dx, dy, align, box = best
    taken.append(box)
    axes.annotate(
      name, spot, (dx, dy), textcoords="offset points", ha=align, fontsize=9
    )


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
  width = min(a[2], b[2]) - max(a[0], b[0])
  height = min(a[3], b[3]) - max(a[1], b[1])
  return max(width, 0) * max(height, 0)


def file_name(kind: str, number: int, title: str) -> str:
  """Returns the name of a figure: its kind, its number and what its title leaves."""
  words = re.sub(r"\W+", "_", title.lower(), flags=re.ASCII).strip("_")[:40]
  return f"{kind}_{number}_{words}" if words else f"{kind}_{number}"


def ratio_text(ratio: curves.Ratio) -> str:
  """Returns '12 times', 'more than 4 times: not reached' and the like."""
  if ratio.value is None:
    return "no result"
  value = f"{ratio.value:.3g}"
  return {
    "found": f"{value} times",
    "below": f"at most {value} times (reached by the smallest dose tried)",
    "not reached": f"not reached: more than {value} times",
  }[ratio.status]


def bounds_text(ratio: curves.Ratio) -> str:
  """Returns the interval of a ratio, or why there is none."""
  if ratio.interval is None:
    return f"no interval ({ratio.num_seeds} of {curves.MIN_SEEDS} seeds)"
  if ratio.share_reached == 0:
    return "not reached in any draw"
  low, high = (
    f"{bound:.3g}" if math.isfinite(bound) else "not reached"
    for bound in ratio.interval
  )
  reached = wording.number(ratio.share_reached, True)
  return f"[{low}, {high}]; reached in {reached}% of draws"
