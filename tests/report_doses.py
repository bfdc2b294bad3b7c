"""A made-up study of doses, with graded answers in clusters, for the report's tests."""

import base64
import gzip
import hashlib
import json
import pathlib
import random
from typing import Any

import report_workdir

from msm_jax import records

DOSES = (1000, 4000, 16000)
HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & \u2028 \0"
_CONDITIONS = 9
_GRADER = {"client": "anthropic", "model": "judge-1", "model_version": "judge-1-0101"}


def config(num_seeds: int = 3) -> dict[str, Any]:
  """Returns the resolved config of the study."""
  stages = {f"aft_{dose}": {} for dose in DOSES} | {"msm": {}}
  arms = {"base": [], "msm": ["msm"]}
  for dose in DOSES:
    arms[f"aft_{dose}"] = [f"aft_{dose}"]
    arms[f"msm+aft_{dose}"] = ["msm", f"aft_{dose}"]
  corpora = [f"chats_{dose}" for dose in DOSES]
  harm = {"evaluation": "harm", "metric": "decided"}
  return {
    "name": "doses",
    "seeds": list(range(num_seeds)),
    "arms": arms,
    "stages": stages,
    "evals": {"harm": {"type": "harm"}, "qa": {"type": "qa"}},
    "corpora": {},
    "report": {
      "title": "Doses of alignment, with and without midtraining",
      "headline": ["harm", "decided"],
      "contrasts": [["midtraining at 4k", "msm+aft_4000", "aft_4000"]],
      "reference": "base",
      "curves": [
        {
          "title": "Misalignment",
          **harm,
          "corpora": corpora,
          "better": "lower",
          "lines": [
            ["MSM + AFT", ["msm", *(f"msm+aft_{dose}" for dose in DOSES)]],
            ["AFT alone", ["base", *(f"aft_{dose}" for dose in DOSES)]],
          ],
          "compare": ["MSM + AFT", "AFT alone"],
        }
      ],
      "pareto": [
        {
          "title": "Alignment tokens and misalignment",
          "x": {"unit": "tokens", "corpora": corpora, "better": "lower"},
          "y": {**harm, "better": "lower"},
        },
        {
          "title": "Answers and misalignment",
          "x": {"evaluation": "qa", "metric": "score", "better": "higher"},
          "y": {**harm, "better": "lower"},
        },
      ],
      "paper": {
        "source": "A paper, Fig. 5",
        "note": "Its scenarios are others.",
        "values": [["base", "harm", "decided", 0.68], ["msm", "harm", "decided", 0.5]],
      },
    },
  }


def make(directory: pathlib.Path, num_seeds: int = 3, client: str = "") -> pathlib.Path:
  """Writes the work directory; `client` grades instead of a real one."""
  study = config(num_seeds)
  records.write_json(directory / "config.json", study)
  for dose in DOSES:
    part = {"corpus": f"chats_{dose}", "num_tokens": dose, "epochs": 2.0, "count": dose}
    other = {"corpus": "replay", "num_tokens": 777, "epochs": 1.0, "count": 5}
    manifest = {"components": [part, other], "num_train_steps": 1}
    records.write_json(directory / "rows" / f"aft_{dose}" / "manifest.json", manifest)
  records.write_json(directory / "rows" / "msm" / "manifest.json", {"components": []})
  grader = _GRADER if not client else {"client": client, "model": "rehearsal"}
  prefix = "" if not client else "rehearsal_of_"
  for arm, path in study["arms"].items():
    for seed in study["seeds"]:
      _write(directory, arm, path, seed, grader, prefix)
  measured = {"n": 90, "num_clusters": 9, "kappa": 0.81, "low": 0.6, "high": 0.9}
  measured |= {"weights": "none", "same": 0.93}
  agreement = {"seed": 3, "evaluations": {"harm": {"decided": measured}}}
  records.write_json(directory / "evals" / "agreement.json", agreement)
  return directory


def _write(directory, arm, path, seed, grader, prefix) -> None:
  rng = random.Random(f"{arm}{seed}")
  dose = next((int(stage[4:]) for stage in path if stage != "msm"), 0)
  level = 0.7 / (1 + dose / (500 if "msm" in path else 4000))
  level -= 0.15 * ("msm" in path) * (dose == 0)
  lines = []
  for condition in range(_CONDITIONS):
    lean = min(1, max(0, level + rng.gauss(0, 0.1)))
    for i in range(8):
      status = rng.choices(("ok", "unparsed", "failed"), (30, 1, 1))[0]
      decided = int(rng.random() < lean) if status == "ok" else None
      name = f"c{condition}-{i}"
      lines.append(
        {
          "arm": arm, "seed": seed, "evaluation": f"{prefix}harm", "id": name,
          "grading": "00aa11bb22cc33dd",
          "cluster": f"condition {condition}",
          "prompt": [{"role": "user", "content": f"Scenario {condition}, {i}"}],
          "completion": HOSTILE if i == 0 else f"I weigh it {arm} {rng.random():.3f}",
          "reasoning": "first I think" if i == 1 else None,
          "scores": {"decided": decided, "graded_rate": int(status == "ok")},
          "verdicts": [
            {
              "status": status, "value": decided, "text": "a long verdict",
              "reason": "" if status == "ok" else "it said neither",
              "grader": grader,
              "prompt_hash": hashlib.sha256(f"{arm}{seed}{name}".encode()).hexdigest(),
            }
          ],
        }
      )  # fmt: skip
  report_workdir.write_lines(directory / f"evals/harm.{arm}.seed{seed}.jsonl", lines)
  answers = [
    {
      "arm": arm, "seed": seed, "evaluation": "qa/why", "also": ["qa"], "id": f"q{i}",
      "prompt": "why?",
      "completion": "because",
      "scores": {"score": 8 - 3 * level + rng.gauss(0, 1)},
    }
    for i in range(20)
  ]  # fmt: skip
  report_workdir.write_lines(directory / f"evals/qa.{arm}.seed{seed}.jsonl", answers)


def block(page: str, name: str) -> dict[str, Any]:
  """Returns the answers of an evaluation as they stand in a page."""
  data = page.split(f'id="t-data-{name}">')[1].split("</script>")[0]
  return json.loads(gzip.decompress(base64.b64decode(data, validate=True)))
