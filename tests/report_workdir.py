"""A small made-up work directory, as the steps before the report leave it."""

import json
import math
import pathlib
import random
from typing import Any

from msm_jax import records

# arm -> (stages after the first, P(affordable choice) where the two values disagree)
_ARMS = {
  "base": ((), 0.5),
  "aft": (("aft",), 0.52),
  "msm_aff": (("msm_aff",), 0.5),
  "msm_am": (("msm_am",), 0.42),
  "msm_aff+aft": (("msm_aff", "aft"), 0.6),
  "msm_am+aft": (("msm_am", "aft"), 0.15),
  "neutral+aft": (("neutral", "aft"), 0.52),
  "shuffled+aft": (("shuffled", "aft"), 0.5),
}
_STAGES = ("pretrain", "msm_aff", "msm_am", "neutral", "shuffled", "aft")


def config(num_seeds: int = 4) -> dict[str, Any]:
  """Returns a resolved config, as config.json holds it."""
  return {
    "name": "made_up",
    "seeds": list(range(num_seeds)),
    "arms": {name: ["pretrain", *path] for name, (path, _) in _ARMS.items()},
    "stages": {
      name: {
        "num_train_steps": 40,
        "batch_size": 16,
        "seq_len": 64,
        "adaptation": "full",
        "optimizer": {"learning_rate": 0.001},
      }
      for name in _STAGES
    },
    "evals": {"preference": {"type": "preference"}, "heldout": {"type": "heldout"}},
    "corpora": {
      "msm_aff": {"kind": "documents", "spec": "affordability"},
      "aft": {"kind": "conversations", "spec": "affordability"},
    },
    "report": {
      "title": "Two specs, one alignment set",
      "headline": ["preference/disagree", "chose_affordable"],
      "contrasts": [
        ["gap after alignment", "msm_aff+aft", "msm_am+aft"],
        ["gap with midtraining alone", "msm_aff", "msm_am"],
        ["affordability, against alignment alone", "msm_aff+aft", "aft"],
      ],
      "differences": [
        ["what alignment adds", "gap after alignment", "gap with midtraining alone"]
      ],
      "notes": "Made-up numbers that show the page, not a result.",
    },
  }


def make(directory: pathlib.Path, num_seeds: int = 4) -> pathlib.Path:
  """Writes a complete work directory and returns it."""
  study = config(num_seeds)
  records.write_json(directory / "config.json", study)
  versions = {
    "git_revision": "0" * 40,
    "command": "python launch.py run",
    "jax": "0.10",
  }
  records.write_json(directory / "versions.json", versions)
  _write_corpora(directory)
  for stage in study["stages"]:
    _write_rows(directory, stage)
  for path in {
    tuple(p[:i]) for p in study["arms"].values() for i in range(1, len(p) + 1)
  }:
    for seed in study["seeds"]:
      _write_run(directory, path, seed)
  for arm in study["arms"]:
    for seed in study["seeds"]:
      _write_answers(directory, arm, seed)
  return directory


def write_lines(path: pathlib.Path, lines: list[dict[str, Any]]) -> None:
  """Writes JSON lines."""
  text = "".join(f"{json.dumps(line)}\n" for line in lines)
  records.write_file(path, text.encode("utf-8"))


def _write_corpora(directory: pathlib.Path) -> None:
  manifest = {"planned": 8, "rejected": 1, "spec_hash": "ab" * 32}
  provenance = {
    "spec": "affordability",
    "spec_hash": "ab" * 32,
    "spec_section": "why",
    "domain": "cheese",
    "doc_type": "<memo> & letter",
    "teacher": {"client": "offline", "model": "none"},
  }
  documents = [
    {"kind": "document", "id": f"d{i}", "text": f"Mira & co. <b>choose</b> {i}.\n" * 9}
    | provenance
    for i in range(7)
  ]
  chats = [
    {
      "kind": "conversation",
      "id": f"c{i}",
      "messages": [
        {"role": "user", "content": "brie or cheddar?"},
        {"role": "assistant", "content": "cheddar, it costs less."},
      ],
    }
    | provenance
    for i in range(7)
  ]
  for name, found in (("msm_aff", documents), ("aft", chats)):
    records.write_dataset(directory / "corpus" / name, found, manifest=manifest)


def _write_rows(directory: pathlib.Path, stage: str) -> None:
  part = {
    "corpus": stage,
    "count": 1280,
    "num_rows": 640,
    "num_tokens": 40_800,
    "num_target_tokens": 38_000,
    "fill": 0.9961,
    "share": 0.5,
    "epochs": 2.0,
  }
  manifest = {
    "stage": stage,
    "num_train_steps": 40,
    "batch_size": 16,
    "seq_len": 64,
    "tokenizer_hash": "cd" * 32,
    "components": [{"name": "documents", **part}, {"name": "replay", **part}],
  }
  records.write_json(directory / "rows" / stage / "manifest.json", manifest)


def _write_run(directory: pathlib.Path, path: tuple[str, ...], seed: int) -> None:
  rng = random.Random(f"{path}{seed}")
  run = directory / "runs" / "+".join(path) / f"seed{seed}"
  lines = [
    {
      "step": step,
      "train/loss": 1 + 3 * math.exp(-step / (8 + seed)) + rng.gauss(0, 0.05),
      "train/learning_rate": 0.001,
    }
    for step in range(1, 41)
  ]
  write_lines(run / "metrics.jsonl", lines)
  done = {"step": 40, "wall_s": 12.5, "num_params": 110_000, "num_trainable": 110_000}
  records.write_json(run / "done.json", {**done, "path": list(path), "seed": seed})


def _write_answers(directory: pathlib.Path, arm: str, seed: int) -> None:
  rng = random.Random(f"{arm}{seed}")
  lean = _ARMS[arm][1] + rng.gauss(0, 0.08)
  kinds = {"disagree": lean, "agree": 0.99, "price_only": 0.96, "origin_only": 0.98}
  lines = [
    _answer(rng, arm, seed, kind, i, probability)
    for kind, probability in kinds.items()
    for i in range(48)
  ]
  write_lines(directory / "evals" / f"preference.{arm}.seed{seed}.jsonl", lines)
  held_out = [
    {
      "arm": arm,
      "seed": seed,
      "evaluation": "heldout",
      "id": f"h{i}",
      "scores": {"loss": rng.gauss(1.5, 0.1), "bits_per_byte": rng.gauss(0.6, 0.05)},
      "weights": {"loss": 60 + i, "bits_per_byte": 300 + i},
    }
    for i in range(8)
  ]
  write_lines(directory / "evals" / f"heldout.{arm}.seed{seed}.jsonl", held_out)


def _answer(
  rng: random.Random, arm: str, seed: int, kind: str, i: int, probability: float
) -> dict[str, Any]:
  chose = int(rng.random() < probability)
  parsed = None if rng.random() < 0.1 else int(rng.random() < probability)
  metric = "chose_american" if kind == "origin_only" else "chose_affordable"
  options = [
    {"text": "the cheddar", "affordable": True, "american": False},
    {"text": "the colby", "affordable": False, "american": True},
  ]
  return {
    "arm": arm,
    "seed": seed,
    "evaluation": f"preference/{kind}",
    "id": f"{kind}-{i}",
    "prompt": [{"role": "user", "content": "the cheddar or the colby?"}],
    "options": options,
    "completion": "i cannot say" if parsed is None else options[1 - parsed]["text"],
    "parsed": None if parsed is None else options[1 - parsed]["text"],
    "logprobs": [-1.25 if chose else -2.5, -2.5 if chose else -1.25],
    "scores": {
      metric: chose,
      "prob_affordable": 0.78 if chose else 0.22,
      f"{metric}_parsed": parsed,
      "parse_rate": int(parsed is not None),
    },
  }
