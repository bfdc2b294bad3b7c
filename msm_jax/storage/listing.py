"""What lies below a workdir on a bucket, but for its checkpoints.

A listing names every object below a prefix, and checkpoints of many hosts have very
many. So the runs are listed directory by directory, each without what is not wanted.
"""

from collections.abc import Collection

from msm_jax.storage import bucket, threads, urls

_RUNS = "runs"


def without(url: str, unwanted: Collection[str]) -> dict[str, bucket.Entry]:
  """Returns the objects below `url` by name, but for those of a run that lie in a
  directory with one of the `unwanted` names.

  Raises:
    NotFound: there is no such bucket.
  """
  found, folders = bucket.level(url)
  runs = [name for name in folders if name == _RUNS]
  whole = [name for name in folders if name != _RUNS]
  with threads.pool() as pool:
    while runs:  # level by level, all directories of a level at once
      levels = threads.each(pool, lambda name: bucket.level(urls.join(url, name)), runs)
      below = []
      for name, (objects, inner) in zip(runs, levels, strict=True):
        found |= {f"{name}/{key}": entry for key, entry in objects.items()}
        below += [f"{name}/{each}" for each in inner if each not in unwanted]
      runs = below
    trees = threads.each(pool, lambda name: bucket.ls(urls.join(url, name)), whole)
  for name, objects in zip(whole, trees, strict=True):
    found |= {f"{name}/{key}": entry for key, entry in objects.items()}
  return found
