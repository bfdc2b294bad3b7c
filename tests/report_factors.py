"""A made-up study of two factors and two values, for the report's tests."""

import pathlib
import random
from typing import Any

import report_workdir

from msm_jax import records

MSM, AFT = ("none", "rules", "values"), ("none", "rules", "values")
HARM = ("harm", "decided")
VALUES = {v: (f"preference/{v}", f"chose_{v}") for v in ("env", "new")}
GONE = ("preference/gone", "chose_x")  # of no answer


def arm(msm: str, aft: str) -> str:
  """Returns the arm of a cell of the grid."""
  parts = [f"msm_{msm}"] * (msm != "none") + [f"aft_{aft}"] * (aft != "none")
  return "+".join(parts) or "base"


def config(num_seeds: int = 4) -> dict[str, Any]:
  """Returns the resolved config of the study."""
  names = {(m, a): arm(m, a) for m in MSM for a in AFT}
  arms = {name: [] for name in names.values()}
  contrasts: list[list[str]] = [["alignment", "aft_rules", "base"]]
  for value, column in VALUES.items():
    sides = ("msm_values+aft_rules", "msm_values", "msm_rules+aft_rules", "msm_rules")
    for kind, (a, b) in (("values", sides[:2]), ("rules", sides[2:])):
      contrasts.append([f"{value}: stacking on {kind}", a, b, *column])
  return {
    "name": "factors",
    "seeds": list(range(num_seeds)),
    "arms": arms,
    "stages": {},
    "evals": {"harm": {"type": "harm"}, "preference": {"type": "preference"}},
    "corpora": {},
    "report": {
      "title": "Which spec to midtrain on, and which to align with",
      "headline": list(HARM),
      "contrasts": contrasts,
      "differences": [
        [f"{v}: what attribution adds", f"{v}: stacking on values",
         f"{v}: stacking on rules"]
        for v in VALUES
      ] + [["two values", "env: stacking on values", "new: stacking on values"],
           ["own and general", "env: stacking on values", "alignment"]],
      "grids": [
        {
          "title": "Midtraining by alignment", "evaluation": "harm",
          "metric": "decided",
          "rows": [f"MSM {m}" for m in MSM], "columns": [f"AFT {a}" for a in AFT],
          "cells": [[names[m, a] for a in AFT] for m in MSM],
        },
        {
          "title": "Values", "rows": ["base", "MSM", "MSM + AFT"],
          "columns": [*VALUES, "gone"],
          "cells": [
            [[a, *column] for column in (*VALUES.values(), GONE)]
            for a in ("base", "msm_values", "msm_values+aft_rules")
          ],
        },
        {
          "title": "Two by two", "evaluation": "harm", "metric": "decided",
          "rows": ["alone", "MSM rules"], "columns": ["alone", "AFT rules"],
          "cells": [["base", "aft_rules"], ["msm_rules", "msm_rules+aft_rules"]],
        },
      ],
      "paper": [
        {
          "title": "Figure 14", "source": "A paper, Figure 14", "num_seeds": 4,
          "values": [
            ["base", *HARM, 0.68, 0.02], ["msm_values+aft_rules", *HARM, 0.25],
            ["base", *GONE, 0.4],
          ],
        },
        {
          "title": "App. C.4", "source": "A paper, App. C.4",
          "contrasts": [
            [f"{v}: what attribution adds", *column, 0.11, 0.03]
            for v, column in VALUES.items()
          ] + [["alignment", *HARM, -0.05],
               ["alignment", *GONE, 0.1]],
        },
      ],
    },
  }  # fmt: skip


def make(directory: pathlib.Path, num_seeds: int = 4) -> pathlib.Path:
  """Writes the work directory."""
  study = config(num_seeds)
  records.write_json(directory / "config.json", study)
  for msm in MSM:
    for aft in AFT:
      for seed in study["seeds"]:
        _write(directory, msm, aft, seed)
  return directory


def _write(directory: pathlib.Path, msm: str, aft: str, seed: int) -> None:
  name, rng = arm(msm, aft), random.Random(f"{msm}{aft}{seed}")
  strength = {"none": 0.0, "rules": 0.15, "values": 0.25}
  harm = 0.7 - strength[msm] - 0.5 * strength[aft] + rng.gauss(0, 0.03)
  likes = 0.5 + 0.4 * strength[msm] + 0.3 * strength[aft] * (msm == "values")
  for file, rates in (
    ("harm", {HARM: harm}),
    ("preference", dict.fromkeys(VALUES.values(), likes + rng.gauss(0, 0.03))),
  ):
    lines = [
      {
        "arm": name, "seed": seed, "evaluation": evaluation, "id": f"{metric}{i}",
        "prompt": "which?", "completion": "this",
        "scores": {metric: int(rng.random() < rate)},
      }
      for (evaluation, metric), rate in rates.items()
      for i in range(40)
    ]  # fmt: skip
    path = directory / "evals" / f"{file}.{name}.seed{seed}.jsonl"
    report_workdir.write_lines(path, lines)
