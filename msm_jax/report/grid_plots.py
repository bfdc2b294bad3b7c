"""The figure of a grid: one line of marks for each row, one mark for each column."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from msm_jax.report import factorial, plots

_COLORS = (plots.BLUE, plots.VERMILION, plots.GREEN, plots.PURPLE, plots.GREY)
_MARKS = ("o", "s", "^", "D", "v", "P", "X", "*")
_PAPER = "open: the paper"
_SPREAD = 0.62  # of a row, from its first mark to its last


def grid_plot(name: str, drawn: factorial.Drawn) -> plots.Plot:
  """Draws levels with their intervals; open marks are a paper's numbers.

  Columns differ by colour, mark and height in the row. A grid with more columns than
  colours, and fewer rows than columns, is turned.
  """
  grid, cells = drawn.grid, drawn.cells
  lines, series = grid.rows, grid.columns
  if len(series) > len(_COLORS) and len(lines) < len(series):
    lines, series = series, lines
    cells = tuple(zip(*cells, strict=True))

  known = [any(map(factorial.is_usable, line)) for line in zip(*cells, strict=True)]
  shown = [label for label, is_known in zip(series, known, strict=True) if is_known]
  if drawn.has_paper:
    shown.append(_PAPER)

  def draw(figure: Figure) -> None:
    axes = figure.subplots()
    for i, label in enumerate(series):
      shift = _SPREAD * (i / (len(series) - 1) - 0.5) if len(series) > 1 else 0.0
      color, mark = _COLORS[i % len(_COLORS)], _MARKS[i % len(_MARKS)]
      for row, line in enumerate(cells):
        if factorial.is_usable(line[i]):
          _draw_cell(axes, row + shift, line[i], color, mark)
      if known[i]:
        axes.plot([], [], mark, color=color, label=plots.wrap(label))
    if drawn.has_paper:
      axes.plot([], [], "o", color=plots.INK, fillstyle="none", label=_PAPER)
    plots.finish_rows(axes, lines, drawn.unit)
    for row in range(1, len(lines)):
      axes.axhline(row - 0.5, color=plots.INK, alpha=0.12, linewidth=0.6)
    axes.set_title(grid.title)
    _add_legend(figure, shown)

  needed = max(0.36, 0.15 * len(series) + 0.14)
  height = needed * plots.num_lines(lines) + 0.24 * (len(shown) // 2) + 1.1
  return plots.make(name, f"{drawn.unit} by two factors: {grid.title}", height, draw)


def _draw_cell(
  axes: Axes, y: float, cell: factorial.Cell, color: str, mark: str
) -> None:
  scale, estimate = plots.scale_of(cell.is_share), cell.estimate
  if estimate.interval is not None:
    bounds = [scale * bound for bound in estimate.interval]
    axes.plot(bounds, [y, y], color=color, linewidth=1.3)
  if cell.paper is not None:
    axes.plot(
      scale * cell.paper.value, y, mark, color=color, markersize=7, fillstyle="none"
    )
  if estimate.mean is not None:
    axes.plot(scale * estimate.mean, y, mark, color=color, markersize=5.5)


def _add_legend(figure: Figure, labels: Sequence[str]) -> None:
  longest = max(len(line) for label in labels for line in plots.wrap(label).split("\n"))
  figure.legend(
    loc="outside lower left",
    ncols=max(1, min(len(labels), 56 // (longest + 5))),
    frameon=False,
    fontsize=9.5,
    handletextpad=0.3,
  )
