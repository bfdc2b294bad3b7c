"""The report's files, written; see `report.build`."""

import csv
import dataclasses
import io
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.report import contrasts as contrasts_lib
from msm_jax.report import (
  extras,
  files,
  graders,
  materials,
  page,
  transcripts,
  wording,
)
from msm_jax.report import results as results_lib
from msm_jax.report import settings as settings_lib

_CSV_FIELDS = (
  *("arm", "seed", "evaluation", "metric", "value", "n"),
  *("num_unscored", "low", "high", "interval", "num_units"),
  *("grader", "prompt_hash", "verdicts", "unparsed", "failed", "rehearsal"),
)


def build(workdir: pathlib.Path, study: Mapping[str, Any] | None) -> pathlib.Path:
  """See `report.build`."""
  config = files.read_object(workdir / "config.json") if study is None else study
  if config is None:
    raise UserError(f"{workdir / 'config.json'} does not exist: run the study first")
  settings = settings_lib.from_config(config)
  answers = transcripts.Collector(sorted((workdir / "evals").glob("*.jsonl")))
  results = results_lib.load(workdir, settings, take=answers.add)
  inputs = materials.load(workdir, settings)
  headline = contrasts_lib.compare(results, settings, *settings.headline)
  beside = extras.read(workdir, results, settings, inputs.rows)
  drawn = page.draw(results, settings, headline, inputs) | extras.draw(beside)
  text = page.render(
    config, results, settings, headline, inputs, drawn, beside, answers
  )

  directory = workdir / "report"
  directory.mkdir(parents=True, exist_ok=True)
  for stale in directory.glob("*.png"):
    stale.unlink()
  for plot in (plot for section in drawn.values() for plot in section):
    records.write_file(directory / f"{plot.name}.png", plot.png)
  records.write_file(directory / "results.csv", _csv(results).encode("utf-8"))
  summary = _summary(config, results, settings, headline, inputs, beside)
  encoded = json.dumps(summary, indent=1, allow_nan=False, default=str)
  records.write_file(directory / "summary.json", f"{encoded}\n".encode())
  records.write_file(directory / "index.html", text.encode("utf-8"))
  return directory / "index.html"


def _csv(results: results_lib.Results) -> str:
  buffer = io.StringIO()
  writer = csv.writer(buffer, lineterminator="\n")
  writer.writerow(_CSV_FIELDS)
  for key, value in results.values.items():
    graded = results.graded.get((key[0], key[1], key[2]))
    writer.writerow(
      (*key, repr(value.value), value.n, *_how_sure(value), *_by_whom(key[2], graded))
    )
  return buffer.getvalue()


def _how_sure(value: results_lib.Value) -> tuple[Any, ...]:
  """Returns answers without a score, the interval within the seed and what it is of."""
  found = value.interval
  if found is None:
    return value.num_unscored, "", "", "", ""
  low, high = repr(found.low), repr(found.high)
  return value.num_unscored, low, high, found.method, found.num_units


def _by_whom(evaluation: str, graded: graders.Graded | None) -> tuple[Any, ...]:
  """Returns who graded, what it read, verdicts in vain, whether it was a rehearsal."""
  rehearsal = int(graders.is_rehearsed(evaluation, graded))
  if graded is None:
    return "", "", "", "", "", rehearsal
  found = graded.to_json()
  counts = [found[key] for key in ("verdicts", "unparsed", "failed")]
  return " ".join(found["graders"]), graded.prompt_hash, *counts, rehearsal


def _summary(
  config: Mapping[str, Any],
  results: results_lib.Results,
  settings: settings_lib.Settings,
  headline: Sequence[contrasts_lib.Contrast],
  inputs: materials.Materials,
  beside: extras.Extras,
) -> dict[str, Any]:
  columns = [(name, key) for name, keys in results.metrics.items() for key in keys]
  return {
    "title": settings.title,
    "headline": {
      "evaluation": settings.headline[0],
      "metric": settings.headline[1],
      "sentences": wording.headline(settings, results, headline, beside.own),
    },
    "results": {
      arm: _nested(
        {column: _summarize(results, settings, arm, column) for column in columns}
      )
      for arm in settings.arms
    },
    "asked": settings.asked,
    "contrasts": [
      *(
        contrast.to_json()
        for column in dict.fromkeys([settings.headline, *columns])
        for contrast in contrasts_lib.compare(results, settings, *column)
      ),
      *(contrast.to_json() for contrast in beside.own),
    ],
    **beside.to_json(),
    "graders": {
      name: graded.to_json()
      for name, graded in graders.by_evaluation(results.graded).items()
    },
    "stages": inputs.stages,
    "corpora": inputs.corpora,
    "rows": inputs.rows,
    "missing": [*results.missing, *inputs.missing],
    "provenance": {
      "config_sha256": records.sha256_json(config),
      "versions": inputs.versions,
      "hashes": dict(materials.hashes(inputs)),
    },
  }


def _nested(flat: Mapping[tuple[str, str], Any]) -> dict[str, dict[str, Any]]:
  nested: dict[str, dict[str, Any]] = {}
  for (evaluation, metric), value in flat.items():
    nested.setdefault(evaluation, {})[metric] = value
  return nested


def _summarize(
  results: results_lib.Results,
  settings: settings_lib.Settings,
  arm: str,
  column: tuple[str, str],
) -> dict[str, Any]:
  """Returns the estimate of one arm and metric with its per-seed values."""
  estimate = results.estimate(arm, *column)
  seeds = {}
  for seed in estimate.values:
    value = results.values[arm, seed, *column]
    bounds = value.wilson()
    seeds[str(seed)] = {
      "value": value.value,
      "n": value.n,
      "num_unscored": value.num_unscored,
      "wilson": None if bounds is None else list(bounds),
      "interval": value.interval and dataclasses.asdict(value.interval),
    }
  return {
    **estimate.to_json(),
    "seeds": seeds,
    "missing_seeds": [seed for seed in settings.seeds if seed not in estimate.values],
  }
