"""Plots as inline SVG: no fonts, no colours but the page's, nothing from elsewhere."""

import html
from collections.abc import Sequence

# As wide as a phone, so that text keeps its size there.
_WIDTH, _HEIGHT = 374, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 8, 18, 34


def histogram(
  edges: Sequence[float],
  counts: Sequence[int],
  *,
  xlabel: str,
  marks: Sequence[tuple[str, float]] = (),
) -> str:
  """Returns columns over an axis of numbers.

  Args:
    edges: [K + 1] of the bins, evenly spaced.
    counts: [K].
    xlabel: what the numbers are.
    marks: (name, place) of vertical lines.
  """
  low, high = edges[0], edges[-1]
  width = _WIDTH - _LEFT - _RIGHT

  def at(value: float) -> float:
    return _LEFT + width * (value - low) / (high - low)

  ticks = _ticks(low, high, 5)
  labels = [(at(tick), f"{tick:,.0f}") for tick in ticks]
  bars = [
    (at(a), at(b) - at(a), n)
    for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
  ]
  lines = [(name, at(place)) for name, place in marks]
  return _columns(bars, labels, lines, xlabel)


def columns(names: Sequence[str], counts: Sequence[int], *, xlabel: str) -> str:
  """Returns a column for every name; of many names some are written."""
  step = (_WIDTH - _LEFT - _RIGHT) / max(len(names), 1)
  every = max(1, -(-len(names) * 40 // (_WIDTH - _LEFT - _RIGHT)))
  labels = [
    (_LEFT + (i + 0.5) * step, name) for i, name in enumerate(names) if i % every == 0
  ]
  bars = [(_LEFT + i * step, step, n) for i, n in enumerate(counts)]
  return _columns(bars, labels, [], xlabel)


def bar(share: float) -> str:
  """Returns a bar for a cell of a table, `share` (0 to 1) of the cell's width."""
  width = 100 * min(max(share, 0.0), 1.0)
  return (
    '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none"'
    ' aria-hidden="true">'
    f'<rect class="rail" width="100" height="8"/><rect width="{width:.2f}" height="8"/>'
    "</svg>"
  )


def _columns(
  bars: Sequence[tuple[float, float, int]],
  labels: Sequence[tuple[float, str]],
  lines: Sequence[tuple[str, float]],
  xlabel: str,
) -> str:
  most = max((count for _, _, count in bars), default=0) or 1
  ticks = _ticks(0, most, 4)
  top = max(most, ticks[-1])
  floor = _HEIGHT - _BOTTOM

  def height(count: float) -> float:
    return (floor - _TOP) * count / top

  parts = [f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}">']
  for tick in ticks:
    y = floor - height(tick)
    parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" {_ys(y)}/>')
    parts.append(_text(_LEFT - 5, y + 4, f"{tick:,.0f}", "end"))
  for x, width, count in bars:
    tall = height(count)
    parts.append(
      f'<rect x="{x + 0.5:.1f}" y="{floor - tall:.1f}" height="{tall:.1f}"'
      f' width="{max(width - 1, 0.6):.1f}"/>'
    )
  parts.append(f'<line class="axis" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" {_ys(floor)}/>')
  parts += [_text(x, floor + 14, text, "middle") for x, text in labels]
  for name, x in lines:
    parts.append(
      f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{floor}"/>'
    )
    anchor = "end" if x > _WIDTH * 0.8 else "start"
    parts.append(_text(x + (-4 if anchor == "end" else 4), _TOP - 5, name, anchor))
  parts.append(_text((_LEFT + _WIDTH) / 2, _HEIGHT - 4, xlabel, "middle"))
  return "".join([*parts, "</svg>"])


def _ys(y: float) -> str:
  return f'y1="{y:.1f}" y2="{y:.1f}"'


def _text(x: float, y: float, text: str, anchor: str) -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
  )


def _ticks(low: float, high: float, count: int) -> list[float]:
  """Returns round whole numbers from `low` to `high`, about `count` of them."""
  scale = 1
  while True:
    for step in (scale, 2 * scale, 5 * scale):
      first = -(-low // step)
      number = int(high // step - first) + 1
      if number <= count + 1:
        return [step * (first + i) for i in range(max(number, 1))]
    scale *= 10
