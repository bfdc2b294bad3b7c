"""What the resolved config says about the report, checked before anything is read."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import asked as asked_lib
from msm_jax import fields
from msm_jax.asked import AskedConfig
from msm_jax.errors import UserError
from msm_jax.report.curve_settings import Curve, Pareto, parse_curves, parse_pareto
from msm_jax.report.grid_settings import Grid, parse_grids
from msm_jax.report.paper_settings import Paper, parse_papers

_FIELDS = (
  "title",
  "notes",
  "headline",
  "contrasts",
  "differences",
  "controls",
  "reference",
  "curves",
  "pareto",
  "paper",
  "grids",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """The study as the report sees it.

  Attributes:
    headline: (evaluation, metric) that the first sentence is about.
    contrasts: (label, arm_a, arm_b); each is arm_a minus arm_b, paired by seed, on
      the headline and on every other evaluation and metric.
    own_contrasts: (label, arm_a, arm_b, evaluation, metric); on that one alone.
    differences: (label, contrast_label_a, contrast_label_b), paired by seed.
    own_differences: alike, with a side among `own_contrasts`; a side that is none of
      them counts on the other one's evaluation and metric.
    arms: arm -> path of stages; short paths first, then in the order of the config.
      Those of config.asked are among them, behind the arm that they are of.
    asked: arm of config.asked -> what it is, in words.
    left_out: arm of config.asked -> evaluations that it is not asked (see
      `asked.evaluations`).
    controls: arms that are marked as controls.
    reference: the arm that every other one is also compared with; None for none.
    curves, pareto: see `curve_settings`.
    papers: see `paper_settings`.
    grids: see `grid_settings`.
    notes: text shown under the headline.
  """

  name: str
  title: str
  notes: str
  headline: tuple[str, str]
  contrasts: tuple[tuple[str, str, str], ...]
  own_contrasts: tuple[tuple[str, str, str, str, str], ...]
  differences: tuple[tuple[str, str, str], ...]
  own_differences: tuple[tuple[str, str, str], ...]
  controls: tuple[str, ...]
  reference: str | None
  curves: tuple[Curve, ...]
  pareto: tuple[Pareto, ...]
  papers: tuple[Paper, ...]
  grids: tuple[Grid, ...]
  arms: dict[str, tuple[str, ...]]
  seeds: tuple[int, ...]
  evals: tuple[str, ...]
  asked: dict[str, str]
  left_out: dict[str, tuple[str, ...]]
  stages: dict[str, dict[str, Any]]
  corpora: dict[str, dict[str, Any]]

  @property
  def is_single(self) -> bool:
    """Whether the study has one seed, so that intervals are within it."""
    return len(self.seeds) == 1

  def is_asked(self, arm: str, evaluation: str) -> bool:
    """Whether an arm is asked an evaluation of the config."""
    return evaluation not in self.left_out.get(arm, ())

  def run_paths(self) -> list[tuple[str, ...]]:
    """Returns every path of stages that some arm needs trained, prefixes first."""
    prefixes = {
      path[: i + 1]: None for path in self.arms.values() for i in range(len(path))
    }
    return sorted(prefixes, key=len)


def from_config(config: Mapping[str, Any]) -> Settings:
  """Returns the settings in a resolved config (nested plain dicts, as in config.json).

  `report.controls` defaults to every arm that neither the first contrast nor one with
  an evaluation of its own names.

  Raises:
    UserError: naming the field that is missing, malformed or names what is not there.
  """
  report = config.get("report") or {}
  arms = {name: tuple(path) for name, path in (config.get("arms") or {}).items()}
  if not arms:
    raise UserError("config.arms is empty: a report needs at least one arm")
  if not config.get("seeds"):
    raise UserError("config.seeds is empty: a report needs at least one seed")
  asked = asked_lib.parse(config)
  arms = asked_lib.subjects(arms, asked)
  for name in report:
    fields.check_known(name, _FIELDS, "config.report", "the report")
  rows = _tuples(report, "contrasts", (3, 5))
  own = {row[0]: row[3:] for row in rows if len(row) == 5}
  differences = _tuples(report, "differences", (3,))
  # Label -> the one column that it is on (of two: the first one's), None for every one.
  columns = dict.fromkeys(row[0] for row in (*rows, *differences)) | own
  columns |= {
    label: own.get(a, own.get(b)) for label, a, b in differences if {a, b} & own.keys()
  }
  settings = Settings(
    name=str(config.get("name", "")),
    title=str(report.get("title") or config.get("name") or "Study"),
    notes=str(report.get("notes") or ""),
    headline=_headline(report),
    contrasts=tuple(row for row in rows if len(row) == 3),
    own_contrasts=tuple(row for row in rows if len(row) == 5),
    differences=tuple(row for row in differences if not own.keys() & {*row[1:]}),
    own_differences=tuple(row for row in differences if own.keys() & {*row[1:]}),
    controls=tuple(report.get("controls") or _controls(arms, rows)),
    reference=report.get("reference"),
    curves=parse_curves(report.get("curves"), arms),
    pareto=parse_pareto(report.get("pareto"), arms),
    papers=parse_papers(report.get("paper"), arms, columns),
    grids=parse_grids(report.get("grids"), arms),
    arms=dict(sorted(arms.items(), key=lambda item: len(item[1]))),
    seeds=tuple(int(seed) for seed in config.get("seeds") or ()),
    evals=tuple(config.get("evals") or ()),
    asked={name: one.says() for name, one in asked.items()},
    left_out=_left_out(config, asked),
    stages=dict(config.get("stages") or {}),
    corpora=dict(config.get("corpora") or {}),
  )
  _check_names(settings)
  return settings


def _left_out(
  config: Mapping[str, Any], asked: Mapping[str, AskedConfig]
) -> dict[str, tuple[str, ...]]:
  found = {}
  for name, one in asked.items():
    kept = asked_lib.evaluations(config["evals"], one)
    found[name] = tuple(each for each in config["evals"] if each not in kept)
  return found


def _headline(report: Mapping[str, Any]) -> tuple[str, str]:
  value = report.get("headline")
  if not isinstance(value, list | tuple) or len(value) != 2:
    raise UserError(
      f"config.report.headline is {value!r}: give (evaluation, metric), for example "
      "('preference/disagree', 'chose_affordable')"
    )
  return str(value[0]), str(value[1])


def _tuples(
  report: Mapping[str, Any], field: str, sizes: tuple[int, ...]
) -> tuple[tuple[str, ...], ...]:
  rows = report.get(field) or ()
  for row in rows:
    if not isinstance(row, list | tuple) or len(row) not in sizes:
      more = " (and an evaluation and metric of its own)" if 5 in sizes else ""
      raise UserError(
        f"config.report.{field} has the entry {row!r}: each needs 3 strings, "
        f"a label and the two that are compared{more}"
      )
  return tuple(tuple(str(item) for item in row) for row in rows)


def _controls(arms: Mapping[str, Any], contrasts: Sequence[Sequence[str]]) -> list[str]:
  """Returns the arms that neither the first contrast nor one of its own names."""
  named = {arm for row in contrasts if len(row) == 5 for arm in row[1:3]}
  named |= set(contrasts[0][1:3]) if contrasts else set()
  return [arm for arm in arms if arm not in named]


def _check_names(settings: Settings) -> None:
  contrasts = (*settings.contrasts, *settings.own_contrasts)
  differences = (*settings.differences, *settings.own_differences)
  labels = [row[0] for row in (*contrasts, *differences)]
  for label in labels:
    if labels.count(label) > 1:
      raise UserError(f"config.report has two contrasts called {label!r}: rename one")
  named = {f"contrasts, {row[0]!r}": row[1:3] for row in contrasts}
  named |= {"controls": settings.controls, "reference": ()}
  if settings.reference is not None:
    named["reference"] = (settings.reference,)
  for where, arms in named.items():
    _check_known(where, arms, settings.arms, "arm")
  known = [row[0] for row in contrasts]
  for label, *parts in differences:
    _check_known(f"differences, {label!r}", parts, known, "contrast")


def _check_known(where: str, names: Any, known: Any, kind: str) -> None:
  for name in names:
    if name not in known:
      raise UserError(
        f"config.report.{where} names the {kind} {name!r}, which is not there: "
        f"use one of {', '.join(known)}"
      )
