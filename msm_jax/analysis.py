"""Analyses of a study: what transcripts of all arms and seeds have in common.

    WORKDIR/evals/patterns/<name>.toml          patterns; people may edit them
    WORKDIR/evals/patterns/<name>.json          what was proposed, edited and merged
    WORKDIR/evals/<name>.<arm>.seed<k>.jsonl    which transcript has which pattern

An analysis waits until every arm and seed of the study is evaluated: patterns are the
same for all of them, and so is what is merged. When transcripts or patterns change, it
is made again; what the grader said before is in its ledger.
"""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from msm_jax import experiment as experiment_lib
from msm_jax import progress, records
from msm_jax.evals import items, pattern_files, reasoning_patterns
from msm_jax.evals.grading import Grader
from msm_jax.evals.pattern_files import Patterns
from msm_jax.evaluation import Evaluation


@dataclasses.dataclass(frozen=True)
class Analysis:
  """One analysis of a study, `config.analyses.<name>`.

  Attributes:
    evaluation: of the study.
    name: of the analysis.
    grading: digest of the grader and its prompts.
    rehearsal: what a grader that measures nothing writes is named so; "" for others.
  """

  evaluation: Evaluation
  name: str
  grading: str
  rehearsal: str = ""

  @property
  def config(self) -> reasoning_patterns.ReasoningPatternsConfig:
    """Returns its fields."""
    value = self.evaluation.experiment.analyses[self.name]
    return experiment_lib.analysis_config(self.name, value)

  @property
  def patterns_path(self) -> pathlib.Path:
    """Returns where people read and edit the patterns."""
    folder = self.evaluation.workdir / "evals" / "patterns"
    return folder / f"{self.rehearsal}{self.name}.toml"

  @property
  def state_path(self) -> pathlib.Path:
    """Returns where it stands what was proposed, edited and merged."""
    return self.patterns_path.with_suffix(".json")

  def missing(self) -> list[pathlib.Path]:
    """Returns the transcripts that it waits for."""
    return [path for _, _, paths in self._runs() for path in paths if not path.exists()]

  def is_done(self) -> bool:
    """Returns whether the results are those of these transcripts and patterns."""
    results = [self._result_path(arm, seed) for arm, seed, _ in self._runs()]
    if not all(path.exists() for path in [self.patterns_path, *results]):
      return False
    return self._state().get("inputs") == self._inputs()

  def run(self, grader: Grader) -> None:
    """Finds the patterns if nobody has, classifies all transcripts, writes results.

    Raises:
      UserError: no patterns can be found, or their file was edited into nonsense.
      Stopped: see `Grader`; a rerun goes on.
    """
    if not self.patterns_path.exists():
      self._propose(grader)
    edited = pattern_files.read(self.patterns_path)
    found = [
      reasoning_patterns.values(self._verdicts(lines, edited, grader), edited)
      for _, _, lines in self._lines()
    ]
    used, merged = reasoning_patterns.merge(np.concatenate(found), edited, self.config)
    for arm, seed, lines in self._lines():
      verdicts = self._verdicts(lines, edited, grader)
      name = f"{self.rehearsal}{self.name}"
      scored = reasoning_patterns.score_lines(name, lines, verdicts, used)
      self._write(arm, seed, scored)
    self._note(edited, merged, sum(map(len, found)))

  def _verdicts(self, lines, patterns: Patterns, grader: Grader):
    return reasoning_patterns.classify(lines, patterns, grader)

  def _propose(self, grader: Grader) -> None:
    """Writes the patterns that the config or the grader proposes."""
    config, where = self.config, f"config.analyses.{self.name}"
    num_reasons = 0
    if config.start is not None:
      patterns = pattern_files.read(pattern_files.path_of(config.start))
    else:
      reasons = reasoning_patterns.extract(self._sample(), grader)
      num_reasons = len(reasons)
      patterns = reasoning_patterns.group(reasons, config.max_patterns, grader, where)
    state = {"start": config.start, "num_reasons": num_reasons}
    # The state first: without its patterns it means nothing.
    records.write_json(self.state_path, {**state, "proposed": patterns.record()})
    pattern_files.write(self.patterns_path, self.name, patterns)
    progress.say(f"{self.patterns_path}: patterns to read, and to edit if need be")

  def _sample(self) -> list[str]:
    """Returns the transcripts that reasons are extracted from, evenly of all runs."""
    texts = [
      [text for text in map(reasoning_patterns.transcript, lines) if text]
      for _, _, lines in self._lines()
    ]
    sizes, most = [len(part) for part in texts], self.config.max_extracted
    shares = sizes if most is None else items.shares(most, sizes)
    return [
      text
      for part, share in zip(texts, shares, strict=True)
      for text in items.taken(part, share)
    ]

  def _note(self, edited: Patterns, merged: list[Any], num_transcripts: int) -> None:
    """Writes what was proposed, what a person made of it, and what was merged."""
    state = self._state()
    proposed = Patterns(**state.get("proposed") or {"definitions": {}})
    changes = pattern_files.edits(proposed, edited)
    state |= {
      "proposed": proposed.record(),
      "used": edited.record(),
      "edited": changes,
      "overlap": "Jaccard index: transcripts with both / with at least one",
      "merge_overlap": self.config.merge_overlap,
      "merged": merged,
      "num_transcripts": num_transcripts,
      "grading": self.grading,
      "inputs": self._inputs(),
    }
    records.write_json(self.state_path, state)
    told = [f"{len(names)} {what}" for what, names in changes.items() if names]
    pairs = [f"{each['from']} into {each['into']}" for each in merged]
    progress.say(
      f"{self.name}: {len(edited.definitions)} patterns on {num_transcripts} "
      f"transcripts; by hand: {', '.join(told) or 'nothing'}; merged as they overlap: "
      f"{', '.join(pairs) or 'none'}"
    )

  def _runs(self) -> Iterator[tuple[str, int, list[pathlib.Path]]]:
    """Yields (arm, seed, scores of the evaluations) of the whole study."""
    study = self.evaluation.experiment
    for arm in study.subjects:
      for seed in study.seeds:
        paths = [
          self.evaluation.eval_path(name, arm, seed)
          for name in self.config.evaluations
          if name in study.evaluations(arm)
        ]
        yield arm, seed, paths

  def _lines(self) -> Iterator[tuple[str, int, list[dict[str, Any]]]]:
    for arm, seed, paths in self._runs():
      texts = [text for path in paths for text in path.read_text("utf-8").splitlines()]
      yield arm, seed, [json.loads(text) for text in texts]

  def _result_path(self, arm: str, seed: int) -> pathlib.Path:
    return self.evaluation.eval_path(f"{self.rehearsal}{self.name}", arm, seed)

  def _write(self, arm: str, seed: int, lines: list[dict[str, Any]]) -> None:
    stamp = {"arm": arm, "seed": seed, "grading": self.grading}
    data = "".join(json.dumps({**stamp, **line}) + "\n" for line in lines)
    records.write_file(self._result_path(arm, seed), data.encode("utf-8"))

  def _state(self) -> dict[str, Any]:
    return records.read_json(self.state_path) if self.state_path.exists() else {}

  def _inputs(self) -> str:
    """Returns a digest of all that the results depend on."""
    paths = [
      self.patterns_path,
      *(path for _, _, found in self._runs() for path in found),
    ]
    found: list[Any] = [dataclasses.asdict(self.config), self.grading]
    return records.sha256_json([*found, *map(records.sha256_file, paths)])
