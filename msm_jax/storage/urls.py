"""What a path is: a local one, or a gs:// URL of a bucket and a name in it.

A URL never becomes a pathlib.Path, which would make one slash of its two.
"""

import os
import re

from msm_jax.errors import UserError

SCHEME = "gs://"
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):/")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Returns whether a path is a gs:// URL.

  Raises:
    UserError: it is another URL, or a gs:// URL with a slip.
  """
  text = os.fspath(path)
  if text.startswith(SCHEME):
    return True
  found = _URL.match(text)
  if found is None or len(found[1]) == 1:  # a drive
    return False
  if found[1].lower() in ("gs", "gcs"):
    raise UserError(f"{text}: write it as {SCHEME}BUCKET/NAME")
  raise UserError(
    f"{text}: only local paths and {SCHEME}BUCKET/NAME are understood: copy it to one"
  )


def split(url: str) -> tuple[str, str]:
  """Returns the bucket of a URL and the name in it, without slashes around it.

  Raises:
    UserError: no bucket, or one that cannot be.
  """
  bucket, _, name = url.removeprefix(SCHEME).partition("/")
  if not _BUCKET.fullmatch(bucket):
    raise UserError(f"{url}: {bucket!r} is no bucket: write {SCHEME}BUCKET/NAME")
  name = name.strip("/")
  if not name.isprintable() or "//" in name or {".", ".."} & set(name.split("/")):
    raise UserError(f"{url!a}: no object has that name: write {SCHEME}BUCKET/NAME")
  return bucket, name


def plain(url: str | os.PathLike[str]) -> str:
  """Returns a URL without slashes at its end."""
  bucket, name = split(os.fspath(url))
  return join(f"{SCHEME}{bucket}", name) if name else f"{SCHEME}{bucket}"


def join(url: str, *names: str) -> str:
  """Returns the URL of something below another."""
  return "/".join([url.rstrip("/"), *(name.strip("/") for name in names)])
