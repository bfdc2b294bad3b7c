"""Which directory on a bucket a local one stands for.

A workdir on a bucket has a mirror on the local disk (`storage/mirror.py`); all code
works there. Its root holds `.mirror/address`, so that any process that is given a path
within it finds out what the path is a copy of.
"""

import pathlib

from msm_jax.errors import UserError
from msm_jax.storage import urls

OWN = ".mirror"  # in the root of a mirror: what belongs to mirroring itself
_ADDRESS = "address"


def write(root: pathlib.Path, url: str) -> None:
  """Notes that `root` is the mirror of `url`."""
  path = root / OWN / _ADDRESS
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(url.rstrip("/") + "\n", "utf-8")


def url_of(path: pathlib.Path) -> str | None:
  """Returns the address on a bucket that `path` is a copy of; None if of none."""
  path = pathlib.Path(path).absolute()
  for root in (path, *path.parents):
    note = root / OWN / _ADDRESS
    if note.is_file():
      url = note.read_text("utf-8").strip()
      if not url.startswith(urls.SCHEME):
        raise UserError(f"{note} holds {url!r}, no address: delete {root}")
      return urls.join(url, *path.relative_to(root).parts)
  return None
