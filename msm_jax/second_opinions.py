"""A second grader reads a sample of what the first one read; how far do they agree?

    WORKDIR/evals/agreement.json                 kappa per evaluation and metric
    WORKDIR/evals/grader/second_opinions.jsonl   both scores of every answer, verdicts

Asked for by `config.second_judge` (a client, like config.judge) and `config.agreement`
(`max_items` of each evaluation over all arms and seeds, chosen by `seed`). It is done
when all arms and seeds have scores, so that the sample is one of all answers.
"""

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax import graded, progress, records
from msm_jax.evals import agreement, grading, judge
from msm_jax.evals.agreement import AgreementConfig
from msm_jax.evals.grading import Grader
from msm_jax.evaluation import Evaluation

_Place = tuple[str, str, int]  # evaluation, arm, seed


@dataclasses.dataclass(frozen=True)
class SecondOpinions:
  """The comparison of two graders in a study.

  Attributes:
    evaluation: of the study.
    config: the whole config, as plain dicts.
  """

  evaluation: Evaluation
  config: Mapping[str, Any]

  @functools.cached_property
  def settings(self) -> AgreementConfig | None:
    """How they are compared; None: not at all."""
    return agreement.settings(self.config) if self._compared() else None

  @property
  def path(self) -> pathlib.Path:
    """Where the result lies."""
    return self.evaluation.workdir / "evals" / "agreement.json"

  def is_wanted(self) -> bool:
    """Returns whether a second grader is asked for and has not been heard."""
    if self.settings is None:
      return False
    return not self.path.exists() or not self._is_whole() or self._is_old()

  def compare(self) -> None:
    """Asks the second grader and writes what it said, if all answers have scores."""
    if not self.is_wanted() or not self._is_whole():
      return
    asked = {name: self._chosen(name) for name in self._compared()}
    found: dict[_Place, list[dict[str, Any]]] = {}
    directory = self.evaluation.workdir
    with judge.open_grader(self.config, directory, agreement.SECOND) as grader:
      grader.together(
        functools.partial(self._second, (name, *place), ids, found)
        for name, places in asked.items()
        for place, ids in places.items()
      )
      is_rehearsal = grader.is_rehearsal
    pairs = [pair for place in sorted(found) for pair in found[place]]
    self._write(pairs, is_rehearsal)

  def _second(
    self,
    place: _Place,
    ids: set[str],
    found: dict[_Place, list[dict[str, Any]]],
    grader: Grader,
  ) -> None:
    """Has some answers of one evaluation, arm and seed graded again."""
    name, arm, seed = place
    experiment = self.evaluation.experiment
    kind, fields = graded.kind_of(experiment, name), graded.fields_of(experiment, name)
    answers = [a for a in self.evaluation.answers(*place) if a["id"] in ids]
    again = {line["id"]: line for line in kind.grade(name, fields, answers, grader)}
    found[place] = [
      {
        "evaluation": name,
        "arm": arm,
        "seed": seed,
        "id": line["id"],
        "cluster": line.get("cluster", line["id"]),
        "first": {metric: line["scores"].get(metric) for metric in kind.compared},
        "second": {
          metric: again[line["id"]]["scores"].get(metric) for metric in kind.compared
        },
        "verdicts": again[line["id"]].get("verdicts", []),
      }
      for line in self.evaluation.lines(*place)
      if line["id"] in again
    ]

  def _chosen(self, name: str) -> dict[tuple[str, int], set[str]]:
    """Returns (arm, seed) -> ids of the answers that the second grader reads."""
    metrics = graded.kind_of(self.evaluation.experiment, name).compared
    keys = [
      (arm, seed, line["id"])
      for arm, seed in self._places(name)
      for line in self.evaluation.lines(name, arm, seed)
      if any(line["scores"].get(metric) is not None for metric in metrics)
    ]
    found: dict[tuple[str, int], set[str]] = {}
    for arm, seed, number in agreement.chosen(keys, self.settings):
      found.setdefault((arm, seed), set()).add(number)
    return found

  def _write(self, pairs: list[dict[str, Any]], is_rehearsal: bool) -> None:
    opinions = self.path.parent / "grader" / "second_opinions.jsonl"
    data = "".join(json.dumps(pair) + "\n" for pair in pairs)
    records.write_file(opinions, data.encode("utf-8"))
    is_drawn = is_rehearsal or judge.is_rehearsal(self.config, agreement.JUDGE)
    found: dict[str, dict[str, Any]] = {}
    for name in self._compared():
      shown = f"{grading.REHEARSAL}{name}" if is_drawn else name
      mine = [pair for pair in pairs if pair["evaluation"] == name]
      found[shown] = {
        metric: _measured(mine, metric, self.settings.seed)
        for metric in graded.kind_of(self.evaluation.experiment, name).compared
      }
      for metric, measured in found[shown].items():
        progress.say(_told(shown, metric, measured))
    records.write_json(
      self.path,
      {
        "identity": self._identity(),
        "graders": {role: judge.who(self.config, role) for role in agreement.ROLES},
        **dataclasses.asdict(self.settings),
        "agreement": found,
      },
    )

  def _compared(self) -> list[str]:
    experiment = self.evaluation.experiment
    names = graded.names(experiment)
    return [name for name in names if graded.kind_of(experiment, name).compared]

  def _places(self, name: str) -> Iterator[tuple[str, int]]:
    """Yields (arm, seed) of all that an evaluation asks."""
    experiment = self.evaluation.experiment
    for arm in experiment.subjects:
      if name in experiment.evaluations(arm):
        yield from ((arm, seed) for seed in experiment.seeds)

  def _is_whole(self) -> bool:
    return all(
      self.evaluation.eval_path(name, arm, seed).exists()
      for name in self._compared()
      for arm, seed in self._places(name)
    )

  def _is_old(self) -> bool:
    return records.read_json(self.path)["identity"] != self._identity()

  def _identity(self) -> str:
    """Returns a digest of what the comparison depends on."""
    found: list[Any] = [dataclasses.asdict(self.settings)]
    for role in agreement.ROLES:
      found.append(graded.digests(self.evaluation.experiment, self.config, role))
    for name in self._compared():
      for arm, seed in self._places(name):
        found.append(next(self.evaluation.lines(name, arm, seed), {}).get("identity"))
    return records.sha256_json(found)[:16]


def _measured(
  pairs: Sequence[Mapping[str, Any]], metric: str, seed: int
) -> dict[str, Any]:
  both = [p for p in pairs if None not in (p["first"][metric], p["second"][metric])]
  found = agreement.measure(
    [(pair["first"][metric], pair["second"][metric]) for pair in both],
    [pair["cluster"] for pair in both],
    seed,
  )
  return found | {"num_without_both": len(pairs) - len(both)}


def _told(name: str, metric: str, measured: Mapping[str, Any]) -> str:
  if measured["kappa"] is None:
    return f"agreement on {name} {metric}: no kappa, the scores do not vary"
  ends = (measured["low"], measured["high"])
  within = "" if None in ends else f" (95 % interval {ends[0]:.2f} to {ends[1]:.2f})"
  return (
    f"agreement on {name} {metric}: kappa {measured['kappa']:.2f}{within}, the same in "
    f"{measured['same']:.0%} of {measured['n']} answers"
  )
