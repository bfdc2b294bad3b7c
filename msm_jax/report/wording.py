"""Numbers and findings as text. Every sentence is made from the numbers given."""

from collections.abc import Iterable, Sequence

from msm_jax.report import graders, paper
from msm_jax.report.contrasts import Contrast
from msm_jax.report.results import Results, seed_list
from msm_jax.report.settings import Settings
from msm_jax.report.statistics import ANSWERS, Estimate

MINUS = "\u2212"
DASH = "\u2013"


def number(value: float, is_share: bool, signed: bool = False) -> str:
  """Returns a value: shares in per cent with one decimal, others with three."""
  scaled, decimals = (100 * value, 1) if is_share else (value, 3)
  scaled = round(scaled, decimals) + 0.0  # no negative zero
  text = f"{scaled:{'+' if signed and scaled else ''}.{decimals}f}"
  return text.replace("-", MINUS)


def interval(
  estimate: Estimate, is_share: bool, signed: bool = False, words: bool = False
) -> str:
  """Returns the interval as '[low, high]' ('low to high' in words), or why none."""
  if estimate.interval is None:
    return "n=1, no interval" if estimate.num_seeds else "no result"
  low, high = (number(value, is_share, signed) for value in estimate.interval)
  if words:
    return f"{low} to {high}"
  return f"[{low}, {high}]" + (" in one seed" if estimate.unit == ANSWERS else "")


def signs(estimate: Estimate) -> str:
  """Returns how many seeds share the sign of the mean: '5 of 6 positive'."""
  if not estimate.num_seeds:
    return DASH
  negative = estimate.mean < 0
  count = estimate.num_negative if negative else estimate.num_positive
  return f"{count} of {estimate.num_seeds} {'negative' if negative else 'positive'}"


def contrast_sentence(contrast: Contrast, is_share: bool) -> str:
  """Returns one contrast with its interval, sign count and what it does not show."""
  estimate = contrast.estimate
  label = contrast.label[:1].upper() + contrast.label[1:]
  start = f"{label} ({contrast.a} minus {contrast.b}): "
  if estimate.mean is None:
    return start + "no seed has both sides, not measured."
  text = start + number(estimate.mean, is_share, signed=True)
  text += " points" if is_share else ""
  if estimate.interval is None:
    text += " (n=1, no interval)"
  elif estimate.unit == ANSWERS:
    text += (
      f" (95% interval {interval(estimate, is_share, signed=True, words=True)} within "
      "the only seed, over its answers; it says nothing about another seed)"
    )
  else:
    text += (
      f" (95% interval {interval(estimate, is_share, signed=True, words=True)}; "
      f"n={estimate.num_seeds} seeds, {signs(estimate)})"
    )
  if estimate.includes_zero:
    text += "; the interval includes zero"
  if contrast.missing_seeds:
    text += f"; without {seed_list(contrast.missing_seeds)}"
  return text + "."


def beside(drawn: paper.Drawn) -> str:
  """Returns how many of a paper's numbers have one of ours, and how far apart."""
  measured, bounded, inside = drawn.counts
  parts = [f"{measured} of {len(drawn.pairs)} numbers are measured here"]
  if bounded:
    parts.append(f"the difference includes zero for {inside} of {bounded}")
  for is_contrast, what in ((False, "levels"), (True, "differences between arms")):
    gap = drawn.mean_gap(is_contrast)
    if gap is not None:
      parts.append(f"{what} differ by {number(gap, True)} points on average")
  return "; ".join(parts) + "."


def own_sentences(results: Results, contrasts: Sequence[Contrast]) -> list[str]:
  """Returns a sentence for each contrast with an evaluation of its own."""
  found = []
  for contrast in contrasts:
    rehearsed = any(
      name in contrast.evaluation.split(" - ") for name in results.rehearsed
    )
    mark = " (REHEARSAL: measures nothing)" * rehearsed
    sentence = contrast_sentence(contrast, contrast.is_share)
    found.append(f"On {contrast.evaluation}{mark}, {contrast.metric}: {sentence}")
  return found


def headline(
  settings: Settings,
  results: Results,
  contrasts: Sequence[Contrast],
  own: Sequence[Contrast] = (),
) -> list[str]:
  """Returns the sentences that open the report: the first one is the headline.

  Args:
    settings: the study's.
    results: its numbers.
    contrasts: on the headline.
    own: those with an evaluation of their own.
  """
  evaluation, metric = settings.headline
  if not results.values:
    return ["No evaluation has been run yet: there is no result to report."]
  others = own_sentences(results, own)
  if metric not in results.metrics.get(evaluation, ()):
    line = f"There is no result for {metric} on {evaluation} yet"
    if f"{graders.REHEARSAL}{evaluation}" in results.metrics:
      line += ": its grading was a rehearsal, which measures nothing"
    return [f"{line}.", *others]
  is_share = results.is_share(evaluation, metric)
  lines = [contrast_sentence(contrast, is_share) for contrast in contrasts]
  rehearsed = " (REHEARSAL: measures nothing)" * (evaluation in results.rehearsed)
  first = (
    f"On {evaluation}{rehearsed}, {metric}: "
    f"{_levels(settings, results, [*contrasts, *own])}."
  )
  lines = [f"{first} {lines[0]}", *lines[1:]] if lines else [first]
  lines += others
  lacking = results.num_expected - results.num_present
  if lacking:
    lines.append(
      f"Missing: {lacking} of {results.num_expected} sets of answers (evaluation, arm, "
      "seed); they are listed below and count in no number."
    )
  return lines


def _levels(settings: Settings, results: Results, contrasts: Sequence[Contrast]) -> str:
  """Returns the means of the arms of the headline's first contrast.

  Without one they are those of every arm.
  """
  evaluation, metric = settings.headline
  arms: Iterable[str] = settings.arms
  on_it = [
    contrast
    for contrast in contrasts
    if not contrast.is_difference
    and (contrast.evaluation, contrast.metric) == settings.headline
  ]
  if on_it:
    arms = (on_it[0].a, on_it[0].b)
  is_share = results.is_share(evaluation, metric)
  parts = []
  for arm in arms:
    estimate = results.estimate(arm, evaluation, metric)
    if estimate.mean is None:
      parts.append(f"{arm} no result")
      continue
    shown = number(estimate.mean, is_share) + ("%" if is_share else "")
    parts.append(
      f"{arm} {shown}" + ("" if on_it else f" ({interval(estimate, is_share)})")
    )
  return ", ".join(parts)
