"""Evaluations of a study: models are asked, a grader reads what they said.

    WORKDIR/evals/transcripts/   completions as they land, until their answers are whole
    WORKDIR/evals/answers/       what models said, for the kinds that a grader reads
    WORKDIR/evals/*.jsonl        scores: <evaluation>.<arm>.seed<k>.jsonl

Whatever lies there is not asked again. A grader is asked after all models, by the first
process alone: it needs no accelerator.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax

from msm_jax import (
  distributed,
  experiment,
  exporting,
  prepare,
  progress,
  records,
  subjects,
)
from msm_jax.errors import UserError
from msm_jax.evals import grading as grading_lib
from msm_jax.evals import items as items_lib
from msm_jax.evals.exam import Exam
from msm_jax.evals.grading import Grader
from msm_jax.evals.kinds import KINDS, Kind
from msm_jax.evals.transcripts import Transcripts
from msm_jax.runs import Runs
from msm_jax.subjects import Subject
from msm_jax.training.watchdog import Watchdog


class Evaluation(Runs):
  """The evaluations of an experiment in a workdir, on a mesh."""

  def eval_path(self, name: str, arm: str, seed: int) -> pathlib.Path:
    """Returns where the scores of one evaluation of an arm and seed lie."""
    return self._path("", name, arm, seed)

  def answers_path(self, name: str, arm: str, seed: int) -> pathlib.Path:
    """Returns where the answers lie that a grader reads."""
    return self._path("answers", name, arm, seed)

  def _path(self, folder: str, name: str, arm: str, seed: int) -> pathlib.Path:
    return path_of(self.workdir, folder, name, arm, seed)

  def missing(self, arm: str, seed: int) -> list[str]:
    """Returns the evaluations of an arm and seed that have no scores yet.

    Raises:
      UserError: scores are there that another model, set or setting gave.
    """
    names = self.experiment.evaluations(arm)
    return [name for name in names if not self._is_there("", name, arm, seed)]

  def unasked(self, arm: str, seed: int) -> list[str]:
    """Returns those of them for which the model has to be asked."""
    return [
      name
      for name in self.missing(arm, seed)
      if self._kind(name).grade is None
      or not self._is_there("answers", name, arm, seed)
    ]

  def _is_there(self, folder: str, name: str, arm: str, seed: int) -> bool:
    path = self._path(folder, name, arm, seed)
    if not path.exists():
      return False
    with path.open(encoding="utf-8") as file:
      first = json.loads(file.readline() or "{}")
    if first.get("identity") != self._identity(name, arm, seed):
      raise UserError(
        f"{path} holds the answers of another run (other weights, items or "
        "settings): delete it to evaluate again, or use another --workdir"
      )
    return True

  def _identity(self, name: str, arm: str, seed: int) -> str:
    """Returns what answers depend on, as a digest that each of them carries."""
    path, settings = self.experiment.subject_path(arm), self.experiment.evals[name]
    found = [self.meta(path, seed), settings]
    if settings.get("corpus") is not None:
      corpus = prepare.corpus_dir(self.workdir, settings["corpus"])
      shards = records.read_manifest(corpus)["shards"]
      found.append([shard["sha256"] for shard in shards])
      if self._kind(name).read is not None:
        found.append(self._items(name))
      elif self._is_drawn(name):
        found.append([item["id"] for item in self._items(name)])
    found.append(self.tokenizer.sha256())
    sources = self._kind(name).sources
    if sources is not None:
      found.append(dict(sources(self._config(name))))
    if arm in self.experiment.asked:
      found.append({"asked": subjects.identity(self, arm)})
    return records.sha256_json(found)[:16]

  def _is_drawn(self, name: str) -> bool:
    """Returns whether it asks a part of pairs, of which it is drawn who stands for whom
    (`items.taken`).
    """
    some = getattr(self._config(name), "max_items", None) is not None
    return some and any("pair_id" in item for item in self._items(name))

  def _kind(self, name: str) -> Kind:
    return KINDS[self.experiment.evals[name]["type"]]

  def _config(self, name: str) -> Any:
    return experiment.eval_config(name, self.experiment.evals[name])

  def ask_all(self, seeds: Sequence[int], arms: Iterable[str] | None = None) -> None:
    """Asks the models what was not asked; an arm that is not trained is an error."""
    arms = self.experiment.subjects if arms is None else arms
    todo = [(seed, arm) for seed in seeds for arm in arms if self.unasked(arm, seed)]
    with self._watched(), progress.Progress("evaluate", len(todo), "model") as bar:
      for seed, arm in todo:
        subject = subjects.open_(self, arm, seed)
        for name in self.unasked(arm, seed):
          self._ask(name, arm, seed, subject)
        bar.advance()

  @contextlib.contextmanager
  def _watched(self) -> Iterator[None]:
    """Ends this process within its block when another one is lost."""
    watchdog = Watchdog(
      self.workdir,
      step_deadline_s=None,
      process_deadline_s=self.experiment.run.process_deadline_s,
    )
    with watchdog, watchdog.guard():
      yield

  def _ask(self, name: str, arm: str, seed: int, subject: Subject) -> None:
    kind, config = self._kind(name), self._config(name)
    identity = self._identity(name, arm, seed)
    path = self._path("transcripts", name, arm, seed)
    exam = Exam(
      name=name,
      config=config,
      items=self._items(name),
      subject=dataclasses.replace(subject.model),  # what it keeps goes with the exam
      transcripts=Transcripts(path, identity),
      about=subject.about,
      export=functools.partial(self._export, arm, seed),
      system_prompt=subject.system_prompt,
      differs_in_text=subject.differs_in_text,
    )
    with jax.set_mesh(self.mesh):
      lines = list(kind.ask(exam))
    folder = "" if kind.grade is None else "answers"
    with distributed.together():  # nobody looks for it before it is there
      if distributed.is_first():
        _write(self._path(folder, name, arm, seed), lines, arm, seed, identity)
    exam.transcripts.remove()

  def _export(self, arm: str, seed: int, out: pathlib.Path) -> None:
    """Writes a model as a Hugging Face directory."""
    exporting.export(self, arm, seed, step=None, layout="merged", out=out)

  def _items(self, name: str) -> list[dict[str, Any]]:
    """Returns the items, at most `max_items` of them, evenly taken from the corpus."""
    config, read = self._config(name), self._kind(name).read
    if getattr(config, "corpus", None) is None:
      return []
    corpus = prepare.corpus_dir(self.workdir, config.corpus)
    if read is None:
      items = list(records.read_dataset(corpus))
    else:
      items = read(corpus, f"config.evals.{name}.corpus")
    return items_lib.taken(items, getattr(config, "max_items", None))

  def ungraded(self, seeds: Sequence[int], arms: Iterable[str]) -> list[tuple]:
    """Returns (evaluation, arm, seed) of answers that no grader has read."""
    return [
      (name, arm, seed)
      for arm in arms
      for seed in seeds
      for name in self.missing(arm, seed)
      if self._kind(name).grade is not None
      and self._is_there("answers", name, arm, seed)
    ]

  def grade_all(
    self,
    seeds: Sequence[int],
    arms: Iterable[str],
    grader: Grader,
    gradings: Mapping[str, str],
  ) -> None:
    """Has a grader read the answers that it has not; for one process alone.

    Args:
      seeds, arms: whose answers.
      grader: reads them.
      gradings: evaluation -> digest of grader, prompts and spec.
    """
    grader.together(
      functools.partial(self._grade, *one, gradings[one[0]])
      for one in self.ungraded(seeds, arms)
    )

  def _grade(
    self, name: str, arm: str, seed: int, grading: str, grader: Grader
  ) -> None:
    answers = list(self.answers(name, arm, seed))
    path = self.eval_path(name, arm, seed)
    lines = list(self._kind(name).grade(name, self._config(name), answers, grader))
    if grader.is_rehearsal:
      lines = [grading_lib.rehearsed(line) for line in lines]
    if lost := grading_lib.num_lost(lines):
      progress.say(
        f"{path.name}: {lost} of {len(lines)} answers have no verdict and no score; "
        "delete it and run again to ask for them once more"
      )
    lines = [{"grading": grading, **line} for line in lines]
    _write(path, lines, arm, seed, self._identity(name, arm, seed))

  def answers(self, name: str, arm: str, seed: int) -> Iterator[dict[str, Any]]:
    """Yields what a grader reads of one evaluation of an arm and seed."""
    return _lines(self.answers_path(name, arm, seed))

  def lines(self, name: str, arm: str, seed: int) -> Iterator[dict[str, Any]]:
    """Yields the scores of one evaluation of an arm and seed."""
    return _lines(self.eval_path(name, arm, seed))


def path_of(
  workdir: pathlib.Path, folder: str, name: str, arm: str, seed: int
) -> pathlib.Path:
  """Returns where the lines of one evaluation of an arm and seed lie.

  Args:
    workdir: of the study.
    folder: "" for scores, 'answers' or 'transcripts'.
    name, arm, seed: of what.
  """
  return workdir / "evals" / folder / f"{name}.{arm}.seed{seed}.jsonl"


def _lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
  with path.open(encoding="utf-8") as file:
    yield from map(json.loads, file)


def _write(
  path: pathlib.Path,
  lines: Sequence[dict[str, Any]],
  arm: str,
  seed: int,
  identity: str,
) -> None:
  stamp = {"arm": arm, "seed": seed, "identity": identity}
  data = "".join(json.dumps({**stamp, **line}) + "\n" for line in lines)
  path.parent.mkdir(parents=True, exist_ok=True)
  records.write_file(path, data.encode("utf-8"))
