"""What lies below a workdir on a bucket, but for its checkpoints.

A listing names every object below a prefix, and checkpoints of many hosts have very
many. So the runs are listed directory by directory, each without what is not wanted.
"""

import concurrent.futures
import json
from collections.abc import Collection

from msm_jax.storage import bucket, service, urls

_RUNS = "runs"
_FIELDS = "nextPageToken,prefixes,items(name,size,crc32c,generation)"


def without(url: str, unwanted: Collection[str]) -> dict[str, bucket.Entry]:
  """Returns the objects below `url` by name, but for those of a run that lie in a
  directory with one of the `unwanted` names.

  Raises:
    NotFound: there is no such bucket.
  """
  found, folders = _level(url)
  with concurrent.futures.ThreadPoolExecutor(bucket.NUM_THREADS) as pool:
    whole = [name for name in folders if name != _RUNS]
    runs = [_RUNS] if _RUNS in folders else []
    while runs:  # level by level, all directories of a level at once
      levels = list(pool.map(lambda name: _level(urls.join(url, name)), runs))
      below = []
      for name, (objects, inner) in zip(runs, levels, strict=True):
        found |= {f"{name}/{key}": entry for key, entry in objects.items()}
        below += [f"{name}/{each}" for each in inner if each not in unwanted]
      runs = below
    for name, objects in zip(
      whole, pool.map(lambda name: bucket.ls(urls.join(url, name)), whole), strict=True
    ):
      found |= {f"{name}/{key}": entry for key, entry in objects.items()}
  return found


def _level(url: str) -> tuple[dict[str, bucket.Entry], list[str]]:
  """Returns (objects, names of directories) right below a URL."""
  host, name = urls.split(url)
  prefix = f"{name}/" if name else ""
  found: dict[str, bucket.Entry] = {}
  folders: list[str] = []
  params = {"prefix": prefix, "delimiter": "/", "fields": _FIELDS}
  while True:
    reply = service.ask(url, "GET", f"storage/v1/b/{host}/o", params)[1]
    page = json.loads(reply)
    for each in page.get("items", []):
      if each["name"] != prefix:  # what consoles write for a folder
        found[each["name"].removeprefix(prefix)] = bucket.Entry(
          int(each["size"]), each["crc32c"], int(each["generation"])
        )
    folders += [p.removeprefix(prefix).rstrip("/") for p in page.get("prefixes", [])]
    if "nextPageToken" not in page:
      return found, folders
    params["pageToken"] = page["nextPageToken"]
