"""Which evaluations of an experiment take a grader, and what their scores depend on."""

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax import evaluation, prepare, records
from msm_jax import experiment as experiment_lib
from msm_jax.evals import agreement, judge
from msm_jax.evals.grading import Stage
from msm_jax.evals.kinds import KINDS, Kind
from msm_jax.experiment import Experiment


def names(experiment: Experiment) -> list[str]:
  """Returns the evaluations that take a grader."""
  return [name for name in experiment.evals if kind_of(experiment, name).grade]


def kind_of(experiment: Experiment, name: str) -> Kind:
  """Returns the kind of an evaluation."""
  return KINDS[experiment.evals[name]["type"]]


def fields_of(experiment: Experiment, name: str) -> Any:
  """Returns the fields of an evaluation as its kind has them."""
  return experiment_lib.eval_config(name, experiment.evals[name])


def spec_of(experiment: Experiment, name: str) -> str | None:
  """Returns the name of the spec that the grader of an evaluation reads."""
  return getattr(fields_of(experiment, name), "spec", None)


def stages_of(experiment: Experiment, name: str) -> Sequence[Stage] | None:
  """Returns what a grader is asked for an evaluation; None: its kind does not say."""
  stages = kind_of(experiment, name).stages
  return None if stages is None else stages(fields_of(experiment, name))


def digests(
  experiment: Experiment, config: Mapping[str, Any], role: str = agreement.JUDGE
) -> dict[str, str]:
  """Returns evaluation -> digest of grader, prompts and spec.

  Args:
    experiment: what is evaluated.
    config: the whole config, as plain dicts.
    role: who grades.
  """
  found = {}
  for name in names(experiment):
    asked = [stage.name for stage in stages_of(experiment, name) or ()]
    found[name] = judge.identity(config, role, asked, spec_of(experiment, name))
  return found


def plan(
  experiment: Experiment, config: Mapping[str, Any], workdir: pathlib.Path
) -> tuple[list[Any], list[str]]:
  """Returns (what graders will be asked, lines on what is not known of it).

  Args:
    experiment: what is evaluated, all arms and seeds of it.
    config: the whole config, as plain dicts.
    workdir: of the study; nothing is written.
  """
  found, unknown = [], []
  for name in names(experiment):
    stages, each = stages_of(experiment, name), _num_answers(experiment, name, workdir)
    if stages is None or each is None:
      corpus = experiment.evals[name].get("corpus")
      why = "its kind does not say what it asks"
      if stages is not None and corpus is not None:
        why = f"corpus {corpus} is not there yet"
      unknown.append(f"evaluation {name}: what grading costs is not known: {why}")
      continue
    found += _asked(experiment, config, workdir, name, stages, each)
  return found, unknown


def _asked(
  experiment: Experiment,
  config: Mapping[str, Any],
  workdir: pathlib.Path,
  name: str,
  stages: Sequence[Stage],
  each: int,
) -> Iterator[Any]:
  subjects = [arm for arm in experiment.subjects if name in experiment.evaluations(arm)]
  num_models = len(subjects) * len(experiment.seeds)
  done = sum(
    evaluation.path_of(workdir, "", name, arm, seed).exists()
    for arm in subjects
    for seed in experiment.seeds
  )
  about = (
    f"graded, {len(subjects)} arms x {len(experiment.seeds)} seeds x {each:,} answers"
  )
  shared = {
    "spec": spec_of(experiment, name),
    "answer_tokens": getattr(fields_of(experiment, name), "max_new_tokens", 0),
  }
  for stage in stages:
    per_model = math.ceil(each * stage.per_answer + stage.per_model)
    yield judge.asked(
      config,
      stage,
      evaluation=name,
      about=about,
      role=agreement.JUDGE,
      requests=per_model * num_models,
      answered=per_model * done,
      **shared,
    )
  second = agreement.settings(config)
  if second is None or not kind_of(experiment, name).compared:
    return
  sample = min(second.max_items, each * num_models)
  heard = (workdir / "evals" / "agreement.json").exists()
  for stage in stages:
    yield judge.asked(
      config,
      stage,
      evaluation=f"{name} (second opinions)",
      about=f"graded, {sample:,} answers",
      role=agreement.SECOND,
      requests=math.ceil(sample * stage.per_answer),
      answered=math.ceil(sample * stage.per_answer) * heard,
      **shared,
    )


def _num_answers(
  experiment: Experiment, name: str, workdir: pathlib.Path
) -> int | None:
  """Returns the answers of one arm and seed; None: its corpus is not there yet."""
  fields, kind = fields_of(experiment, name), kind_of(experiment, name)
  corpus, num_records = getattr(fields, "corpus", None), None
  if corpus is not None:
    directory = prepare.corpus_dir(workdir, corpus)
    if not (directory / records.MANIFEST).exists():
      return None
    num_records = records.read_manifest(directory)["num_records"]
  if kind.num_answers is not None:
    return kind.num_answers(fields, num_records)
  if num_records is None:
    return None
  most = getattr(fields, "max_items", None)
  count = num_records if most is None else min(num_records, most)
  return count * getattr(fields, "num_samples", 1)
