"""What went into the study: corpora, rows, stages, runs, and where each came from."""

import dataclasses
import itertools
import math
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.report import files
from msm_jax.report.settings import Settings

_CURVE = "train/loss"
_SHA256 = re.compile("[0-9a-f]{64}")
_REMEDY = "delete that line, or the run's directory to train it again"
_NUM_SAMPLES = 3
_NUM_READ = 300  # records of a corpus among which the samples are spread


@dataclasses.dataclass(kw_only=True)
class Run:
  """One trained stage of one seed.

  Attributes:
    path: stage names from the first to this one.
    done: done.json, None when the run has not ended.
    losses: step -> training loss (nats per target token).
    peak_learning_rate: the largest one logged.
  """

  path: tuple[str, ...]
  seed: int
  done: dict[str, Any] | None
  losses: dict[int, float]
  peak_learning_rate: float | None

  @property
  def state(self) -> str:
    """'done', 'not finished' or 'not started'."""
    if self.done is not None:
      return "done"
    return "not finished" if self.losses else "not started"


@dataclasses.dataclass(kw_only=True)
class Materials:
  """Everything but the answers.

  Attributes:
    corpora: name -> manifest (without shards) | {"manifest_sha256"}.
    samples: name -> a few records.
    rows: stage -> manifest | {"manifest_sha256"}.
    stages: one dict per stage for the table and summary.json.
    versions: versions.json, empty when absent.
    missing: sentences on what should be there and is not.
  """

  corpora: dict[str, dict[str, Any]]
  samples: dict[str, list[dict[str, Any]]]
  rows: dict[str, dict[str, Any]]
  runs: list[Run]
  stages: list[dict[str, Any]]
  versions: dict[str, Any]
  missing: list[str]


def load(workdir: pathlib.Path, settings: Settings) -> Materials:
  """Reads manifests, a few records, metrics and versions.

  Raises:
    UserError: naming the damaged file, and the line of a metrics.jsonl.
  """
  missing: list[str] = []
  corpora, samples = _load_corpora(workdir, settings, missing)
  rows = {name: _load_rows(workdir, name, missing) for name in settings.stages}
  runs = [
    _load_run(workdir, path, seed)
    for path in settings.run_paths()
    for seed in settings.seeds
  ]
  for run in runs:
    _check_run(run, missing)
  versions = files.read_object(workdir / "versions.json")
  if versions is None:
    missing.append("versions.json is absent: versions and git revision are unknown")
  stages = [
    _describe_stage(name, settings, rows[name], runs, missing)
    for name in settings.stages
  ]
  return Materials(
    corpora=corpora,
    samples=samples,
    rows=rows,
    runs=runs,
    stages=stages,
    versions=versions or {},
    missing=missing,
  )


def _check_run(run: Run, missing: list[str]) -> None:
  where = f"run {'+'.join(run.path)} seed {run.seed}"
  if run.done is None:
    missing.append(f"{where}: {run.state}")
  broken = [step for step, loss in run.losses.items() if not math.isfinite(loss)]
  if broken:
    missing.append(f"{where}: the loss is not finite from step {broken[0]}")


def _load_corpora(
  workdir: pathlib.Path, settings: Settings, missing: list[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, list[dict[str, Any]]]]:
  corpora, samples = {}, {}
  for name in settings.corpora:
    directory = workdir / "corpus" / name
    try:
      manifest = records.read_manifest(directory)
      samples[name] = _pick(directory)
    except UserError as error:
      missing.append(f"corpus {name}: {error}".replace(f"{workdir}/", ""))
      continue
    kept = {key: value for key, value in manifest.items() if key != "shards"}
    corpora[name] = {**kept, "manifest_sha256": records.sha256_json(manifest)}
  return corpora, samples


def _pick(directory: pathlib.Path) -> list[dict[str, Any]]:
  """Returns a few records spread over the beginning of a corpus."""
  head = list(itertools.islice(records.read_dataset(directory), _NUM_READ))
  count = min(_NUM_SAMPLES, len(head))
  return [head[i * len(head) // count] for i in range(count)]


def _load_rows(workdir: pathlib.Path, stage: str, missing: list[str]) -> dict[str, Any]:
  manifest = files.read_object(workdir / "rows" / stage / "manifest.json")
  if manifest is None:
    missing.append(f"rows of stage {stage}: not prepared")
    return {}
  kept = {key: value for key, value in manifest.items() if key != "shards"}
  return {**kept, "manifest_sha256": records.sha256_json(manifest)}


def _load_run(workdir: pathlib.Path, path: tuple[str, ...], seed: int) -> Run:
  directory = workdir / "runs" / "+".join(path) / f"seed{seed}"
  losses: dict[int, float] = {}
  rates: list[float] = []
  metrics = directory / "metrics.jsonl"
  if metrics.exists():
    for number, line in files.read_lines(metrics, _REMEDY):
      if "step" not in line:
        raise UserError(f"{metrics} line {number} has no field 'step': {_REMEDY}")
      if (
        line.get(_CURVE) is not None
      ):  # a step logged again after a restart counts once
        losses[int(line["step"])] = float(line[_CURVE])
      if line.get("train/learning_rate") is not None:
        rates.append(float(line["train/learning_rate"]))
  return Run(
    path=path,
    seed=seed,
    done=files.read_object(directory / "done.json"),
    losses=dict(sorted(losses.items())),
    peak_learning_rate=max(rates, default=None),
  )


def _describe_stage(
  name: str,
  settings: Settings,
  rows: Mapping[str, Any],
  runs: list[Run],
  missing: list[str],
) -> dict[str, Any]:
  """Returns one row of the table of stages: planned, packed and done."""
  config = settings.stages[name]
  own = [run for run in runs if run.path[-1] == name]
  steps = rows.get("num_train_steps", config.get("num_train_steps"))
  sizes = {
    field: rows.get(field, config.get(field)) for field in ("batch_size", "seq_len")
  }
  done = sorted({run.done["step"] for run in own if run.done and "step" in run.done})
  if steps is not None and any(step != steps for step in done):
    missing.append(f"stage {name}: {steps} steps planned, runs ended at {done}")
  known = [steps, *sizes.values()]
  return {
    "stage": name,
    "num_train_steps": steps,
    "steps_done": done,
    **sizes,
    "num_slots": None if None in known else known[0] * known[1] * known[2],
    "learning_rate": _learning_rate(rows, config, own),
    "adaptation": config.get("adaptation"),
    "components": list(rows.get("components") or ()),
    "runs_done": sum(run.done is not None for run in own),
    "runs_expected": len(own),
    "wall_s": sum(run.done.get("wall_s", 0) for run in own if run.done),
    "num_params": _one(own, "num_params"),
    "num_trainable": _one(own, "num_trainable"),
  }


def _learning_rate(
  rows: Mapping[str, Any], config: Mapping[str, Any], runs: list[Run]
) -> float | None:
  """Returns the configured learning rate, or else the largest one logged."""
  for section in (rows, config, config.get("optimizer")):
    if isinstance(section, Mapping) and section.get("learning_rate") is not None:
      return float(section["learning_rate"])
  rates = [r.peak_learning_rate for r in runs if r.peak_learning_rate is not None]
  return max(rates, default=None)


def _one(runs: list[Run], field: str) -> Any:
  values = [run.done[field] for run in runs if run.done and field in run.done]
  return values[0] if values else None


def curves(runs: list[Run]) -> dict[tuple[str, ...], dict[int, dict[int, float]]]:
  """Returns path -> seed -> step -> loss for the runs that logged any."""
  found: dict[tuple[str, ...], dict[int, dict[int, float]]] = defaultdict(dict)
  for run in runs:
    if run.losses:
      found[run.path][run.seed] = run.losses
  return dict(found)


def hashes(materials: Materials) -> list[tuple[str, str]]:
  """Returns (what, hash) of specs, corpora, rows and whatever else states one."""
  found = []
  for kind, manifests in (("corpus", materials.corpora), ("rows", materials.rows)):
    for name, manifest in manifests.items():
      for field, value in _walk_hashes(manifest):
        found.append((f"{kind} {name}: {field}", value))
  return found


def _walk_hashes(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
  """Yields (dotted path, hash); entries of a list go by their name or number."""
  if isinstance(value, Mapping):
    items = list(value.items())
  elif isinstance(value, list):
    items = [
      (item.get("name", i) if isinstance(item, Mapping) else i, item)
      for i, item in enumerate(value)
    ]
  else:
    if isinstance(value, str) and (_SHA256.fullmatch(value) or "hash" in path):
      yield path, value
    return
  for key, item in items:
    yield from _walk_hashes(item, f"{path}.{key}" if path else str(key))
