"""Another study's workdir in a bucket: the part of it that one of its runs needs here.

Configuration, tokenizer and manifests are small and come at once; of checkpoints only
the last one of every run on the path comes, or the one that is asked for, and not
before its weights are needed.
"""

import pathlib
import re
from collections.abc import Sequence

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.storage import bucket, inputs

_FOLDERS = ("tokenizer", "rows", "corpus")  # small files are in the top and in these
_TOP = ("config.json", "versions.json", ".tokenizer.json")
_MANIFEST = re.compile(r"(rows|corpus)/[^/]+/manifest\.json")
_DONE = "done.json"


def fetch(
  url: str,
  path: Sequence[str],
  seed: int,
  step: int | None,
  where: str,
  *,
  weights: bool = True,
) -> pathlib.Path:
  """Returns a workdir on this machine with what a run of it needs.

  Args:
    url: of the workdir.
    path, seed: of the run.
    step: of its checkpoint; None: the last.
    where: the field that names it, for messages.
    weights: whether checkpoints are needed.

  Raises:
    UserError: there is no such run or checkpoint.
  """
  path = tuple(path)
  names = ["+".join(path[:n]) for n in range(1, len(path) + 1)]
  runs = [f"runs/{name}/seed{seed}" for name in names]

  def is_small(name: str) -> bool:
    if name in _TOP or name.startswith("tokenizer/") or _MANIFEST.fullmatch(name):
      return True
    return name in [f"{run}/{_DONE}" for run in runs]

  def listed(url: str, *folders: str) -> dict[str, bucket.Entry]:
    found = bucket.level(url)[0]  # of everything there might be a million
    for folder in (*_FOLDERS, *folders):
      inner = bucket.ls(bucket.join(url, folder))
      found |= {f"{folder}/{name}": entry for name, entry in inner.items()}
    for name in (f"{run}/{_DONE}" for run in runs):
      if entry := bucket.stat(bucket.join(url, name)):
        found[name] = entry
    return found

  small = inputs.local(
    url, where, wanted=is_small, variant=f"{runs[-1]}, small", listed=listed
  )
  if not weights:
    return small
  steps = {run: _last(small / run / _DONE) for run in runs}
  if step is not None:
    steps[runs[-1]] = step
  _check(url, runs[-1], step, where)
  below = tuple(f"{run}/checkpoints/{last}" for run, last in steps.items())
  return inputs.local(
    url,
    where,
    wanted=lambda name: is_small(name) or name.startswith(below),
    variant=f"{runs[-1]}, steps {list(steps.values())}",
    listed=lambda url: listed(url, *below),
  )


def _last(path: pathlib.Path) -> int | None:
  """Returns the step at which a run was done; None if it is not."""
  return records.read_json(path)["step"] if path.is_file() else None


def _check(url: str, run: str, step: int | None, where: str) -> None:
  if step is None:
    return
  at = bucket.join(url, run, "checkpoints")
  steps = {int(name) for name in bucket.level(at)[1] if name.isdigit()}
  if step not in steps:
    raise UserError(f"{where}: {at} has no step {step}: it has {sorted(steps)}")
