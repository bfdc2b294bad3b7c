"""The page: one HTML file that asks nothing of the network."""

import base64
import functools
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from msm_jax.report import (
  agreement,
  curve_plots,
  graders,
  materials,
  plots,
  samples,
  tables,
  transcripts,
  within,
  wording,
)
from msm_jax.report.contrasts import Contrast, compare
from msm_jax.report.extras import Extras
from msm_jax.report.materials import Materials
from msm_jax.report.results import Results
from msm_jax.report.settings import Settings
from msm_jax.report.statistics import Estimate

_HERE = pathlib.Path(__file__).parent
_MAX_FINDINGS = 12  # sentences at the top; the rest is folded
_GIT = ("git_revision", "git", "revision")


def draw(
  results: Results,
  settings: Settings,
  contrasts: Sequence[Contrast],
  inputs: Materials,
) -> dict[str, list[plots.Plot]]:
  """Returns section -> plots; a section without data has none."""
  evaluation, metric = settings.headline
  found: dict[str, list[plots.Plot]] = {
    "headline": [],
    "contrasts": [],
    "controls": [],
    "loss": [],
  }
  if metric in results.metrics.get(evaluation, ()):
    found["headline"] = [plots.headline_bars(results, settings)]
    if contrasts:
      is_share = results.is_share(evaluation, metric)
      found["contrasts"] = [plots.contrast_forest(contrasts, is_share)]
    panels = tables.families(results, settings)[evaluation.split("/")[0]]
    if len(panels) > 1:
      found["controls"] = [
        plots.evaluation_bars(results, settings, *panel) for panel in panels
      ]
  for path, curves in materials.curves(inputs.runs).items():
    found["loss"].append(plots.loss_curves("+".join(path), curves, plots.BLUE))
  return found


def render(
  config: Mapping[str, Any],
  results: Results,
  settings: Settings,
  contrasts: Sequence[Contrast],
  inputs: Materials,
  drawn: Mapping[str, Sequence[plots.Plot]],
  beside: Extras,
  answers: transcripts.Collector,
) -> str:
  """Returns the whole page as HTML."""
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_HERE),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {
    "plain": samples.plain,
    "count": _count,
    "raw": markupsafe.Markup,
  }
  return environment.get_template("page.html.jinja").render(
    settings=settings,
    sentences=wording.headline(settings, results, contrasts, beside.own),
    max_findings=_MAX_FINDINGS,
    wording=wording,
    own_contrasts=tables.own_groups(beside.own, settings),
    missing=[*results.missing, *inputs.missing],
    plots=drawn,
    colors=_colors(settings),
    roles=_roles(settings),
    inputs=inputs,
    samples={
      name: [samples.record(record) for record in found]
      for name, found in inputs.samples.items()
    },
    questions=samples.questions(results, settings),
    hashes=materials.hashes(inputs),
    versions=_versions(inputs.versions),
    config_text=samples.pretty(config),
    beside=beside,
    sections=_sections(beside, settings, results),
    num_draws=within.NUM_DRAWS,
    number=wording.number,
    cell=functools.partial(_cell, settings),
    ratio_text=curve_plots.ratio_text,
    bounds_text=curve_plots.bounds_text,
    agreement=agreement,
    **_graded(results),
    **_browser(settings, answers),
    **_result_tables(results, settings, contrasts),
  )


def _cell(
  settings: Settings, estimate: Estimate, is_share: bool, signed: bool = False
) -> tables.Cell:
  """Returns an estimate as text."""
  limits = (0.0, 1.0)  # of dots that are not shown
  return tables.cell(estimate, len(settings.seeds), is_share, limits, signed=signed)


def _sections(
  beside: Extras, settings: Settings, results: Results
) -> list[tuple[str, str]]:
  """Returns (id, title) of the sections that the config asks for."""
  known = [
    ("curves", "Doses", beside.curves),
    ("pareto", "Pareto", beside.pareto),
    ("grids", "Two factors", beside.grids),
    ("paper", "Paper", beside.papers),
    ("reference", "Reference", settings.reference and results.metrics),
    ("graders", "Graders", results.graded or beside.agreement),
  ]
  return [(name, title) for name, title, found in known if found]


def _graded(results: Results) -> dict[str, Any]:
  """Returns who graded what, and which evaluations are rehearsals."""
  graded = graders.by_evaluation(results.graded)
  return {
    "graded": graded,
    "rehearsed": graders.is_rehearsed,
    "rehearsals": [name for name in results.metrics if name in results.rehearsed],
  }


def _browser(settings: Settings, answers: transcripts.Collector) -> dict[str, Any]:
  """Returns what the browser of answers needs: data, script and the script's hash."""
  script = (_HERE / "page.js.jinja").read_text("utf-8")
  digest = hashlib.sha256(script.encode("utf-8")).digest()
  arms = json.dumps(list(settings.arms)).replace("<", "\\u003c")
  return {
    "blocks": answers.blocks(),
    "share": answers.share,
    "max_bytes": transcripts.MAX_BYTES,
    "max_chars": transcripts.MAX_CHARS,
    "arms_json": arms,
    "script": script,
    "script_hash": f"sha256-{base64.b64encode(digest).decode()}",
  }


def _result_tables(
  results: Results, settings: Settings, contrasts: Sequence[Contrast]
) -> dict[str, Any]:
  evaluation, metric = settings.headline
  grids = {
    family: tables.grid(results, settings, columns)
    for family, columns in tables.families(results, settings).items()
  }
  metrics = [(evaluation, name) for name in results.metrics.get(evaluation, ())]
  return {
    "main": grids.pop(evaluation.split("/")[0], None),
    "scores": tables.grid(results, settings, metrics) if metrics else None,
    "others": grids,
    "contrasts": tables.contrast_cells(
      contrasts, settings, results.is_share(evaluation, metric)
    ),
    "more_contrasts": _more_contrasts(results, settings),
    "reference": _against_reference(results, settings),
    "per_seed": {
      name: {key: tables.per_seed(results, settings, (name, key)) for key in keys}
      for name, keys in results.metrics.items()
    },
  }


def _against_reference(results: Results, settings: Settings) -> dict[str, tables.Grid]:
  """Returns evaluation -> differences to the reference arm on all of its metrics."""
  if settings.reference is None:
    return {}
  return {
    name: tables.difference_grid(results, settings, [(name, key) for key in keys])
    for name, keys in results.metrics.items()
  }


def _more_contrasts(
  results: Results, settings: Settings
) -> list[tuple[str, str, list[tuple[Contrast, tables.Cell, str]]]]:
  """Returns (evaluation, metric, rows) of the contrasts on all but the headline."""
  found = []
  for evaluation, metrics in results.metrics.items():
    for metric in metrics:
      if (evaluation, metric) != settings.headline and settings.contrasts:
        rows = tables.contrast_cells(
          compare(results, settings, evaluation, metric),
          settings,
          results.is_share(evaluation, metric),
        )
        found.append((evaluation, metric, rows))
  return found


def _colors(settings: Settings) -> dict[str, str]:
  """Returns the colour of each arm in the page's own terms."""
  return {
    arm: plots.PAGE_COLORS.get(color, color)
    for arm, color in plots.arm_colors(settings).items()
  }


def _roles(settings: Settings) -> dict[str, str]:
  """Returns the shape of each arm's mark: 'a', 'b' or 'other', as its colour."""
  shapes = {plots.BLUE: "a", plots.VERMILION: "b"}
  return {
    arm: shapes.get(color, "other") for arm, color in plots.arm_colors(settings).items()
  }


def _versions(versions: Mapping[str, Any]) -> dict[str, Any]:
  """Returns {git, command, packages} of versions.json."""
  packages = {**versions, **versions.get("packages", {})}
  return {
    "git": next((versions[key] for key in _GIT if versions.get(key)), None),
    "command": versions.get("command"),
    "packages": {
      key: value
      for key, value in packages.items()
      if key not in (*_GIT, "command", "packages")
    },
  }


def _count(value: Any) -> str:
  """Returns a count with thin spaces between the thousands."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return samples.plain(value)
  return f"{value:,.0f}".replace(",", "\u2009")
