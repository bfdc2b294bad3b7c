"""What takes a grader in an experiment, and what its scores depend on."""

import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax import evaluation
from msm_jax import experiment as experiment_lib
from msm_jax.evals import agreement, judge, reasoning_patterns
from msm_jax.evals.grading import REHEARSAL, Stage
from msm_jax.evals.kinds import KINDS, Kind
from msm_jax.experiment import Experiment
from msm_jax.planning import answers
from msm_jax.planning.sizes import CorpusSize


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
  experiment: Experiment,
  config: Mapping[str, Any],
  workdir: pathlib.Path,
  corpora: Mapping[str, CorpusSize],
) -> tuple[list[Any], list[str]]:
  """Returns (what graders will be asked, lines on what is not known of it).

  Args:
    experiment: what is evaluated, all arms and seeds of it.
    config: the whole config, as plain dicts.
    workdir: of the study; nothing is written.
    corpora: their sizes, as they are or as they are planned.
  """
  found, unknown = [], []
  for name in names(experiment):
    stages = stages_of(experiment, name)
    each = answers.num_answers(experiment, name, corpora)
    if stages is None or each is None:
      corpus = experiment.evals[name].get("corpus")
      why = "its kind does not say what it asks"
      if stages is not None and corpus is not None:
        why = f"corpus {corpus} is not there yet"
      unknown.append(f"evaluation {name}: what grading costs is not known: {why}")
      continue
    found += _asked(experiment, config, workdir, name, stages, each)
  for name in experiment.analyses:
    analysed = list(_analysed(experiment, config, workdir, name, corpora))
    found += analysed
    if not analysed:
      why = "how many transcripts it reads is not known yet"
      unknown.append(f"analysis {name}: what it costs is not known: {why}")
  return found, unknown


def _analysed(
  experiment: Experiment,
  config: Mapping[str, Any],
  workdir: pathlib.Path,
  name: str,
  corpora: Mapping[str, CorpusSize],
) -> Iterator[Any]:
  """Yields what an analysis asks; nothing if its transcripts cannot be counted yet."""
  fields = experiment_lib.analysis_config(name, experiment.analyses[name])
  each = [
    answers.num_answers(experiment, evaluation_, corpora)
    for evaluation_ in fields.evaluations
  ]
  if None in each:
    return
  models = [(arm, seed) for arm in experiment.subjects for seed in experiment.seeds]
  asked = [len(answers.models(experiment, one)) for one in fields.evaluations]
  total = sum(n * times for n, times in zip(each, asked, strict=True))
  said = REHEARSAL if judge.is_rehearsal(config, agreement.JUDGE) else ""
  results = [evaluation.path_of(workdir, "", f"{said}{name}", *one) for one in models]
  is_done = all(path.exists() for path in results)
  proposed = (workdir / "evals" / "patterns" / f"{said}{name}.toml").exists()
  read = [experiment.evals[one] for one in fields.evaluations]
  longest = max(settings.get("max_new_tokens", 0) for settings in read)
  for stage, requests, more in reasoning_patterns.planned(fields, total):
    is_over = is_done or (proposed and stage.name != reasoning_patterns.PRESENT)
    yield judge.asked(
      config,
      stage,
      evaluation=f"{name} (analysis)",
      about=f"patterns, {total:,} transcripts of {len(models)} models",
      role=agreement.JUDGE,
      requests=requests,
      answered=requests * is_over,
      spec=None,
      answer_tokens=longest,
      more=more,
    )


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
