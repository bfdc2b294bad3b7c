"""Where the checkpoints of a run lie: beside it on a disk, or on a bucket.

On a bucket they are written and read by all hosts directly and are never copied to a
mirror. There nothing can be renamed at once and there are no empty directories, so what
is done to whole steps is here, for both places.
"""

import os
import pathlib
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Union

from msm_jax.storage import addresses, service, urls

if TYPE_CHECKING:  # takes a tenth of a second, and few commands need it
  from etils import epath

COMMITTED = "commit_success.txt"  # what Orbax writes last into a step
_NAME = "checkpoints"
_DAMAGED = "damaged"  # beside it

Directory = Union[pathlib.Path, "epath.Path"]


def of(run_dir: pathlib.Path) -> Directory:
  """Returns the directory of the checkpoints of a run; it may not exist."""
  url = addresses.url_of(run_dir)
  if url is None:
    return pathlib.Path(run_dir).absolute() / _NAME
  from etils import epath

  service.prepare_libraries(url)
  return epath.Path(url) / _NAME


def is_remote(directory: Directory) -> bool:
  """Returns whether it lies on a bucket."""
  return urls.is_remote(str(directory))


def half_written(directory: Directory) -> list[str]:
  """Returns the steps of which a save was stopped, by name."""
  if not directory.exists():
    return []
  return [
    path.name
    for path in sorted(directory.iterdir())
    if path.is_dir() and not (path / COMMITTED).exists()
  ]


def put_away(directory: Directory, step: int, reason: str) -> None:
  """Moves a damaged step aside.

  On a bucket this copies it, there, object by object; when that is stopped in the
  middle, the step remains and is found to be damaged once more.
  """
  source = directory / str(step)
  target = directory.with_name(_DAMAGED) / f"{step}-{time.time_ns()}"
  target.parent.mkdir(exist_ok=True)
  if not is_remote(directory):
    os.replace(source, target)
    return
  # Without it the library finds no directory to move something into.
  (target.parent / f"{target.name}.txt").write_text(reason + "\n")
  source.rename(target)


def runs_saved(workdir: pathlib.Path) -> Iterator[pathlib.Path]:
  """Yields the runs of a workdir, `runs/<path>/seed<k>`, that have a checkpoint."""
  for run_dir in sorted((workdir / "runs").glob("*/*")):
    directory = of(run_dir)
    if directory.exists() and any(directory.iterdir()):
      yield run_dir
