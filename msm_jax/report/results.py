"""Answers -> one number per (arm, seed, evaluation, metric), and what is missing."""

import dataclasses
import functools
import math
import pathlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.report import files, graders, statistics, within
from msm_jax.report.settings import Settings

_FILE_NAME = re.compile(r"(?P<eval>[^.]+)\.(?P<arm>.+)\.seed(?P<seed>\d+)\.jsonl")
_REMEDY = "delete the file and run `evaluate` again"
_SHARE_METRIC = re.compile(
  r"^(chose|prob|share|accuracy)(_|$)|_(rate|parsed|accuracy)$"
)

_MAX_LINES = 4  # on answers without a score, for a metric
Key = tuple[str, int, str, str]  # arm, seed, evaluation, metric
_Score = tuple[float | None, float, str]  # score, weight, what is independent


@dataclasses.dataclass(frozen=True, kw_only=True)
class Value:
  """A metric of one arm and seed: sum(w v) / sum(w) over the answers with a score.

  Attributes:
    n: answers with a score.
    num_unscored: answers whose score is null or not finite; they count nowhere else.
    is_binary: every score is 0 or 1 and weighs the same.
    is_clustered: some answers share a cluster.
    interval: within the seed; None for a single answer or cluster.
    units: what it was made of, kept in studies of one seed only.
  """

  value: float
  n: int
  num_unscored: int
  is_binary: bool
  is_clustered: bool
  interval: within.Interval | None
  units: within.Units | None

  def wilson(self) -> tuple[float, float] | None:
    """Returns the interval of so many independent answers, for scores 0 or 1."""
    return statistics.wilson_interval(self.value, self.n) if self.is_binary else None


@dataclasses.dataclass(kw_only=True)
class Results:
  """Every number of the study and every number it lacks.

  Attributes:
    values: (arm, seed, evaluation, metric) -> Value, ordered.
    missing: sentences on what should be there and is not.
    answers: (evaluation, id) -> arm -> line, for the first seed; a few per evaluation.
    metrics: evaluation -> metrics seen in it.
    graded: (arm, seed, evaluation) -> who graded it, and how often in vain.
    num_expected: (evaluation file, arm, seed) that the config asks for.
    num_present: those of them with answers.
  """

  values: dict[Key, Value] = dataclasses.field(default_factory=dict)
  missing: list[str] = dataclasses.field(default_factory=list)
  answers: dict[tuple[str, str], dict[str, dict[str, Any]]] = dataclasses.field(
    default_factory=dict
  )
  metrics: dict[str, list[str]] = dataclasses.field(default_factory=dict)
  graded: dict[tuple[str, int, str], graders.Graded] = dataclasses.field(
    default_factory=dict
  )
  num_expected: int = 0
  num_present: int = 0

  @functools.cached_property
  def _columns(self) -> dict[tuple[str, str, str], dict[int, Value]]:
    """(arm, evaluation, metric) -> seed -> Value."""
    found: dict[tuple[str, str, str], dict[int, Value]] = defaultdict(dict)
    for (arm, seed, *column), value in self.values.items():
      found[arm, *column][seed] = value
    return dict(found)

  def seeds(self, arm: str, evaluation: str, metric: str) -> dict[int, Value]:
    """Returns seed -> Value."""
    return self._columns.get((arm, evaluation, metric), {})

  def by_seed(self, arm: str, evaluation: str, metric: str) -> dict[int, float]:
    """Returns seed -> value."""
    found = self.seeds(arm, evaluation, metric)
    return {seed: value.value for seed, value in found.items()}

  def estimate(self, arm: str, evaluation: str, metric: str) -> statistics.Estimate:
    """Returns mean and interval over the seeds of one arm, or within its only one."""
    estimate = statistics.estimate(self.by_seed(arm, evaluation, metric))
    for value in self.seeds(arm, evaluation, metric).values():
      if value.units is not None:
        return statistics.within_one(estimate, value.interval)
    return estimate

  def difference(
    self, a: str, b: str, evaluation: str, metric: str
  ) -> statistics.Estimate:
    """Returns arm `a` minus arm `b`, paired by seed, or by answer in the only one."""
    sides = [self.seeds(arm, evaluation, metric) for arm in (a, b)]
    estimate = statistics.paired_difference(
      *({seed: value.value for seed, value in side.items()} for side in sides)
    )
    for seed in estimate.values:
      units = [side[seed].units for side in sides]
      if None not in units:
        return statistics.within_one(estimate, within.difference(*units))
    return estimate

  @functools.cached_property
  def rehearsed(self) -> frozenset[str]:
    """The evaluations whose grader judged nothing."""
    graded = graders.by_evaluation(self.graded)
    found = (n for n in self.metrics if graders.is_rehearsed(n, graded.get(n)))
    return frozenset(found)

  def is_share(self, evaluation: str, metric: str) -> bool:
    """Whether a metric is a share, shown in per cent."""
    if _SHARE_METRIC.search(metric):
      return True
    return self._all_binary.get((evaluation, metric), False)

  @functools.cached_property
  def _all_binary(self) -> dict[tuple[str, str], bool]:
    found: dict[tuple[str, str], bool] = {}
    for (_, _, *column), value in self.values.items():
      found[tuple(column)] = found.get(tuple(column), True) and value.is_binary
    return found


def load(
  workdir: pathlib.Path,
  settings: Settings,
  num_samples: int = 3,
  take: Callable[[str, dict[str, Any]], None] | None = None,
) -> Results:
  """Reads evals/*.jsonl and lists every (evaluation, arm, seed) without answers.

  Args:
    workdir: the study's directory.
    settings: arms, seeds and evaluations that are expected.
    num_samples: questions of an evaluation kept with their answers.
    take: is shown (name of the evaluation, line) of every answer.

  Raises:
    UserError: naming file and line of a damaged answer.
  """
  results = Results()
  present: set[tuple[str, str, int]] = set()
  for path in sorted((workdir / "evals").glob("*.jsonl")):
    match = _FILE_NAME.fullmatch(path.name)
    if match is None:
      results.missing.append(f"evals/{path.name} was left out: its name has no seed")
      continue
    name, arm, seed = match["eval"], match["arm"], int(match["seed"])
    if arm not in settings.arms or seed not in settings.seeds:
      results.missing.append(
        f"evals/{path.name} was left out: the config has no such arm or seed"
      )
      continue
    if _load_file(path, name, arm, seed, settings, results, num_samples, take):
      present.add((name, arm, seed))
  _order(results, settings)
  _list_missing(results, settings, present)
  return results


def _load_file(
  path: pathlib.Path,
  name: str,
  arm: str,
  seed: int,
  settings: Settings,
  results: Results,
  num_samples: int,
  take: Callable[[str, dict[str, Any]], None] | None,
) -> int:
  """Adds the values of one file; returns its number of answers."""
  scores: dict[tuple[str, str], list[_Score]] = defaultdict(list)
  prompted: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
  num_lines = 0
  for number, line in files.read_lines(path, _REMEDY):
    where = f"{path} line {number}"
    evaluation = _check_line(line, arm, seed, where)
    names = (evaluation, *line.get("also", ()))
    cluster = line.get("cluster")
    unit = f"id {line.get('id', number)}" if cluster is None else f"cluster {cluster}"
    for metric, score in line["scores"].items():
      weight = (line.get("weights") or {}).get(metric, 1)
      pair = _number(score, weight, where, metric)
      for each in names:
        scores[each, metric].append((*pair, unit))
    if line.get("verdicts"):
      for each in names:
        graded = results.graded.setdefault((arm, seed, each), graders.Graded())
        graded.add(line, where)
    if seed == settings.seeds[0] and "prompt" in line:
      prompted[evaluation][str(line.get("id"))] = line
    if take is not None:
      take(name, line)
    num_lines += 1
  _keep_answers(arm, prompted, results, num_samples)
  for (evaluation, metric), pairs in scores.items():
    key = (arm, seed, evaluation, metric)
    _add_value(key, pairs, results, keep=settings.is_single)
  return num_lines


def _check_line(line: dict[str, Any], arm: str, seed: int, where: str) -> str:
  for field in ("arm", "seed", "evaluation", "scores"):
    if field not in line:
      raise UserError(f"{where} has no field {field!r}: {_REMEDY}")
  if (line["arm"], line["seed"]) != (arm, seed):
    raise UserError(
      f"{where} is of arm {line['arm']!r} seed {line['seed']}, not of the arm and "
      f"seed in the file's name: {_REMEDY}"
    )
  if not isinstance(line["scores"], dict):
    raise UserError(f"{where} has scores {line['scores']!r}, not an object: {_REMEDY}")
  return str(line["evaluation"])


def _number(
  score: Any, weight: Any, where: str, metric: str
) -> tuple[float | None, float]:
  """Returns (score, weight); a score that is null or not finite is no score."""
  for name, value in (("score", score), ("weight", weight)):
    if value is not None and not isinstance(value, int | float):
      raise UserError(f"{where} has the {name} {value!r} for {metric}: {_REMEDY}")
  usable = score is not None and math.isfinite(score)
  return (float(score) if usable else None), float(weight or 0)


def _add_value(key: Key, pairs: list[_Score], results: Results, keep: bool) -> None:
  scored = [pair for pair in pairs if pair[0] is not None]
  total = math.fsum(weight for _, weight, _ in scored)
  results.metrics.setdefault(key[2], [])
  if key[3] not in results.metrics[key[2]]:
    results.metrics[key[2]].append(key[3])
  if not total:
    results.missing.append(
      f"{key[2]} {key[3]}: arm {key[0]} seed {key[1]} has {len(pairs)} answers and no "
      "score among them"
    )
    return
  is_binary = all(score in (0, 1) and weight == 1 for score, weight, _ in scored)
  units = within.units(scored, is_binary=is_binary)
  results.values[key] = Value(
    value=math.fsum(score * weight for score, weight, _ in scored) / total,
    n=len(scored),
    num_unscored=len(pairs) - len(scored),
    is_binary=is_binary,
    is_clustered=units.is_clustered,
    interval=within.interval(units),
    units=units if keep else None,
  )


def _keep_answers(
  arm: str,
  prompted: dict[str, dict[str, dict[str, Any]]],
  results: Results,
  num_samples: int,
) -> None:
  """Keeps a few answers, chosen by the hash of their id: the same for every arm."""
  for evaluation, lines in prompted.items():
    for name in sorted(lines, key=records.sha256_text)[:num_samples]:
      results.answers.setdefault((evaluation, name), {})[arm] = lines[name]


def _order(results: Results, settings: Settings) -> None:
  arms = {arm: i for i, arm in enumerate(settings.arms)}
  evaluations = {
    name: i for i, name in enumerate(ordered_evaluations(results, settings))
  }
  results.metrics = {name: sorted(results.metrics[name]) for name in evaluations}
  results.values = dict(
    sorted(
      results.values.items(),
      key=lambda item: (
        arms[item[0][0]],
        item[0][1],
        evaluations[item[0][2]],
        item[0][3],
      ),
    )
  )


def ordered_evaluations(results: Results, settings: Settings) -> list[str]:
  """Returns the headline's evaluation, its family, then the others by name."""
  headline = settings.headline[0]
  family = headline.split("/")[0]
  return sorted(
    results.metrics,
    key=lambda name: (name != headline, name.split("/")[0] != family, name),
  )


def _list_missing(
  results: Results, settings: Settings, present: set[tuple[str, str, int]]
) -> None:
  names = settings.evals or tuple(sorted({name for name, _, _ in present}))
  results.num_expected = sum(
    len(settings.seeds)
    for arm in settings.arms
    for name in names
    if settings.is_asked(arm, name)
  )
  results.num_present = sum(name in names for name, _, _ in present)
  for name in names:
    lacking = {
      arm: [seed for seed in settings.seeds if (name, arm, seed) not in present]
      for arm in settings.arms
      if settings.is_asked(arm, name)
    }
    is_empty = all(seeds == list(settings.seeds) for seeds in lacking.values())
    lacking = {arm: seeds for arm, seeds in lacking.items() if seeds}
    if is_empty:
      results.missing.append(f"{name}: no arm has answers yet")
      continue
    for arm, seeds in lacking.items():
      results.missing.append(f"{name}: no answers of arm {arm}, {seed_list(seeds)}")
  _list_unscored(results)


def _list_unscored(results: Results) -> None:
  """Names what has fewer answers than the other arms, or answers without a score."""
  totals: dict[tuple[str, str], int] = defaultdict(int)
  for (_, _, *metric), value in results.values.items():
    totals[tuple(metric)] = max(totals[tuple(metric)], value.n + value.num_unscored)
  unscored: dict[tuple[str, str], list[tuple[str, int, Value]]] = defaultdict(list)
  for (arm, seed, evaluation, metric), value in results.values.items():
    answers, most = value.n + value.num_unscored, totals[evaluation, metric]
    if answers < most:
      where = f"{evaluation} {metric}: arm {arm} seed {seed}"
      results.missing.append(f"{where} has {answers} answers, others have {most}")
    if value.num_unscored and not metric.endswith("_parsed"):
      unscored[evaluation, metric].append((arm, seed, value))
  for (evaluation, metric), found in unscored.items():
    lines = [
      f"arm {arm} seed {seed} has {value.num_unscored} of "
      f"{value.n + value.num_unscored} answers without a score"
      for arm, seed, value in found
    ]
    if len(lines) > _MAX_LINES:  # each stands in the table of seeds and in results.csv
      number = sum(value.num_unscored for _, _, value in found)
      total = sum(value.n + value.num_unscored for _, _, value in found)
      lines = [
        f"{number} of {total} answers without a score, in {len(found)} sets of answers"
      ]
    results.missing += [f"{evaluation} {metric}: {line}" for line in lines]


def seed_list(seeds: Iterable[int]) -> str:
  """Returns 'seed 3' or 'seeds 3, 4'."""
  numbers = [str(seed) for seed in seeds]
  return f"seed{'s' * (len(numbers) > 1)} {', '.join(numbers)}"
