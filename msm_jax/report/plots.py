"""The figures, each drawn once and written twice: a PNG and an SVG for the page.

Colours are of Okabe and Ito's palette, which the colour-blind can tell apart. Ink,
paper and two of the colours are given up in the SVG for the page's own, so that a
figure follows the light or dark theme.
"""

import dataclasses
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msm_jax.report.contrasts import Contrast
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings
from msm_jax.report.statistics import Estimate

BLUE, VERMILION, GREEN, PURPLE, GREY = (
  "#0072b2",
  "#d55e00",
  "#009e73",
  "#cc79a7",
  "#888888",
)
INK, PAPER = "#101112", "#fefdfc"
PAGE_COLORS = {  # what a theme of the page may change
  INK: "currentColor",
  PAPER: "var(--paper)",
  BLUE: "var(--blue)",
  VERMILION: "var(--vermilion)",
}
_WIDTH = 5.2  # inches; 374 units of the SVG, so that text keeps its size on a phone
_LABEL_CHARS = 24
_MAX_POINTS = 160  # of a loss curve
_STYLE = {
  "font.size": 10.5,
  "axes.titlesize": 10.5,
  "axes.titlelocation": "left",
  "axes.labelsize": 10.5,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.linewidth": 0.8,
  "axes.axisbelow": True,
  "text.parse_math": False,
  "svg.fonttype": "none",
  **{
    key: INK
    for key in ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color")
  },
  "ytick.color": INK,
  "figure.facecolor": PAPER,
  "axes.facecolor": "none",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plot:
  """A figure in both forms.

  Attributes:
    name: of the PNG file, without ending.
    svg: an <svg> element that stands alone, without XML header, links or metadata.
    alt: what the figure shows, for those who do not see it.
  """

  name: str
  alt: str
  png: bytes
  svg: str


def arm_colors(settings: Settings) -> dict[str, str]:
  """Returns blue and vermilion for the two sides of contrasts, grey for other arms.

  The first contrast that names an arm decides; what is compared with an arm that has a
  colour already stays grey.
  """
  colors = dict.fromkeys(settings.arms, GREY)
  for _, a, b, *_ in (*settings.contrasts, *settings.own_contrasts):
    if colors[a] == colors[b] == GREY:
      colors[a], colors[b] = BLUE, VERMILION
  return colors


def headline_bars(results: Results, settings: Settings) -> Plot:
  """Draws every arm on the headline: bar, 95 % interval, one dot per seed."""
  evaluation, metric = settings.headline

  def draw(figure: Figure) -> None:
    _arm_bars(figure.subplots(), results, settings, evaluation, metric)

  height = 0.36 * num_lines(settings.arms) + 0.7
  return make("headline", f"{metric} on {evaluation} for every arm", height, draw)


def evaluation_bars(
  results: Results, settings: Settings, evaluation: str, metric: str
) -> Plot:
  """Draws every arm on one metric, as the headline but with a title and less high."""

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    _arm_bars(axes, results, settings, evaluation, metric)
    axes.set_title(evaluation)

  name = f"{evaluation}_{metric}".replace("/", "_")
  height = 0.27 * num_lines(settings.arms) + 0.8
  return make(name, f"{metric} on {evaluation} for every arm", height, draw)


def contrast_forest(
  contrasts: Sequence[Contrast],
  is_share: bool,
  name: str = "contrasts",
  about: str = "",
) -> Plot:
  """Draws each contrast: mean, 95 % interval, one dot per seed, a line at zero."""

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    axes.axvline(0, color=INK, linewidth=0.9)
    for row, contrast in enumerate(contrasts):
      color = PURPLE if contrast.is_difference else GREEN
      mark = "s" if contrast.is_difference else "o"
      scale = scale_of(is_share)
      estimate_row(axes, row, contrast.estimate, scale, color, bar=False, mark=mark)
    unit = "points" if is_share else contrasts[0].metric
    finish_rows(axes, [c.label for c in contrasts], f"difference, {unit}")

  height = 0.42 * num_lines([c.label for c in contrasts]) + 0.7
  alt = f"differences between arms{about}, paired by seed"
  return make(name, alt, height, draw)


def loss_curves(
  name: str, curves: Mapping[int, Mapping[int, float]], color: str
) -> Plot:
  """Draws the training loss of one path of stages: seeds thin, their mean thick.

  Args:
    name: the path.
    curves: seed -> step -> loss (nats per target token).
    color: of the lines.
  """

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    for losses in curves.values():  # what is not finite leaves a gap
      axes.plot(*_thin(losses), color=color, linewidth=0.7, alpha=0.5)
    shared = set.intersection(*(set(losses) for losses in curves.values()))
    mean = {
      step: float(np.mean([losses[step] for losses in curves.values()]))
      for step in sorted(shared)
    }
    if mean and len(curves) > 1:
      axes.plot(*_thin(mean), color=color, linewidth=2.2)
    axes.set_title(f"{name} ({len(curves)} seed{'s' * (len(curves) > 1)})")
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats / target token")
    axes.grid(color=INK, alpha=0.12, linewidth=0.6)

  return make(f"loss_{name}", f"training loss of {name}", 2.5, draw)


def _arm_bars(
  axes: Axes, results: Results, settings: Settings, evaluation: str, metric: str
) -> None:
  is_share = results.is_share(evaluation, metric)
  colors = arm_colors(settings)
  if is_share:
    axes.axvline(50, color=INK, linewidth=0.8, linestyle=(0, (1, 2)))
  for row, arm in enumerate(settings.arms):
    estimate = results.estimate(arm, evaluation, metric)
    mark = "s" if colors[arm] == VERMILION else "o"
    scale = scale_of(is_share)
    estimate_row(axes, row, estimate, scale, colors[arm], bar=is_share, mark=mark)
  unit = f"{metric}, {'% of answers' if is_share else 'mean'}"
  if evaluation in results.rehearsed:
    unit += " (REHEARSAL: measures nothing)"
  finish_rows(axes, list(settings.arms), unit)
  if is_share:
    low, high = axes.get_xlim()
    axes.set_xlim(min(low, 0), max(high, 100))


def scale_of(is_share: bool) -> float:
  """Returns what a value is shown times."""
  return 100.0 if is_share else 1.0


def estimate_row(
  axes: Axes,
  row: int,
  estimate: Estimate,
  scale: float,
  color: str,
  bar: bool,
  mark: str = "o",
) -> None:
  """Draws one row; an arm without any seed says so."""
  if estimate.mean is None:
    axes.text(
      0.01,
      row,
      "no result",
      va="center",
      style="italic",
      transform=axes.get_yaxis_transform(),
    )
    return
  mean = scale * estimate.mean
  if bar:
    axes.barh(row, mean, height=0.62, color=color, alpha=0.3)
  dots = scale * np.array(list(estimate.values.values()))
  lift = np.linspace(-0.16, 0.16, len(dots)) if len(dots) > 1 else np.zeros(1)
  axes.plot(
    dots,
    row + lift,
    mark,
    color=color,
    markersize=4,
    alpha=0.85,
    markeredgecolor=PAPER,
    markeredgewidth=0.5,
  )
  if estimate.interval is not None:
    low, high = (scale * value for value in estimate.interval)
    axes.plot([low, high], [row, row], color=INK, linewidth=1.6)
  axes.plot(
    mean,
    row,
    "D",
    color=INK,
    markersize=5.5,
    markeredgecolor=PAPER,
    markeredgewidth=0.8,
  )


def finish_rows(axes: Axes, labels: Sequence[str], xlabel: str) -> None:
  """Labels rows from the top down."""
  axes.set_yticks(range(len(labels)), [wrap(label) for label in labels])
  axes.set_ylim(len(labels) - 0.45, -0.55)
  axes.tick_params(axis="y", length=0)
  axes.spines["left"].set_visible(False)
  axes.set_xlabel(xlabel)
  axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
  axes.grid(axis="x", color=INK, alpha=0.12, linewidth=0.6)


def wrap(label: str) -> str:
  """Returns a label in short lines, broken after '+', '_' and ' ' where it can be."""
  lines = [""]
  for part in re.findall(rf"[^+_ ]{{1,{_LABEL_CHARS}}}[+_ ]?|[+_ ]", label):
    if len(lines[-1]) + len(part) > _LABEL_CHARS + 1:
      lines.append("")
    lines[-1] += part
  return "\n".join(lines)


def num_lines(labels: Iterable[str]) -> float:
  """Returns the number of rows, where a further line of a label is half a row."""
  return sum(1 + wrap(label).count("\n") / 2 for label in labels)


def _thin(losses: Mapping[int, float]) -> tuple[np.ndarray, np.ndarray]:
  """Returns steps and losses, averaged in bins when there are very many."""
  steps, values = np.array(list(losses)), np.array(list(losses.values()))
  bins = np.array_split(np.arange(len(steps)), min(len(steps), _MAX_POINTS))
  return (
    np.array([steps[b].mean() for b in bins]),
    np.array([values[b].mean() for b in bins]),
  )


def make(name: str, alt: str, height: float, draw: Callable[[Figure], None]) -> Plot:
  """Returns what `draw` puts on a figure, `height` inches high, as PNG and SVG."""
  style: dict[str, Any] = {**_STYLE, "svg.hashsalt": name}
  with matplotlib.rc_context(style):
    figure = Figure(figsize=(_WIDTH, height), dpi=200, layout="constrained")
    draw(figure)
    figure.get_layout_engine().execute(figure)  # each savefig would do it twice
    figure.set_layout_engine(None)
    png = io.BytesIO()
    figure.savefig(png, format="png", metadata={"Software": None})
    svg = io.StringIO()
    figure.savefig(svg, format="svg", transparent=True)
  return Plot(name=name, alt=alt, png=png.getvalue(), svg=_inline(svg.getvalue(), name))


_DROPPED = (  # what an SVG inside a page has no use for, or must not have
  r"<metadata>.*?</metadata>",
  r"<style.*?</style>",
  r' xmlns(:\w+)?="[^"]*"',
  r' (width|height)="[\d.]+pt"',
  r'(?<=<g) id="[^"]*"',
  r'font-family: [^;"]*;? ?',
)


def _inline(svg: str, name: str) -> str:
  """Returns the <svg> element without header, metadata, fonts or fixed colours."""
  svg = svg[svg.index("<svg") :]
  for pattern in _DROPPED:
    svg = re.sub(pattern, "", svg, flags=re.DOTALL)
  svg = re.sub(r'font: ([\d.]+px) [^;"]*', r"font-size: \1", svg)
  for color, style in PAGE_COLORS.items():
    svg = svg.replace(color, style)
  svg = re.sub(r"\n\s*", "\n", svg)
  return "".join(_unique_ids(svg, re.sub(r"\W", "_", name)))


def _unique_ids(svg: str, name: str) -> Iterator[str]:
  """Yields the parts of `svg` with every id prefixed, as ids are of the whole page."""
  last = 0
  for match in re.finditer(r'( id="|href="#|url\(#)', svg):
    yield svg[last : match.end()]
    yield f"{name}_"
    last = match.end()
  yield svg[last:]
