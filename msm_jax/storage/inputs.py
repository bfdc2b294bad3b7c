"""What is read, from wherever it lies: a path on this machine, whatever was named.

Local paths stay as they are. What a gs:// URL names is downloaded into the cache
(`cache.py`), looked at once per process, and kept there for the next one: a process
sees one version of it from beginning to end.
"""

import contextlib
import fnmatch
import os
import pathlib
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping
from typing import IO

from msm_jax.errors import UserError
from msm_jax.storage import bucket, cache

# Weights in other formats than ours; a model directory of the hub may have each twice.
_OTHER_WEIGHTS = (".bin", ".pth", ".pt", ".onnx", ".h5", ".msgpack", ".ot", ".gguf")
_OTHER_WEIGHTS += (".onnx_data", ".tflite", ".mlmodel", ".ckpt")
_OURS = ".safetensors"
is_remote = bucket.is_remote
_MAGIC = re.compile(r"[*?\[]")
_ATTEMPTS = 3  # at a bucket that changes meanwhile

# (emulator, URL, variant) -> where it lies, and what keeps it there.
_found: dict[tuple[str, str, str], tuple[pathlib.Path, IO[str]]] = {}


def local(
  path: str | os.PathLike[str],
  where: str,
  *,
  wanted: Callable[[str], bool] = lambda name: True,
  variant: str = "",
  listed: Callable[[str], Mapping[str, bucket.Entry]] = bucket.ls,
) -> pathlib.Path:
  """Returns a path on this machine: `path` itself, or a copy of what is in a bucket.

  Args:
    path: local (`~` is expanded), or gs://BUCKET/NAME of an object, or of all objects
      below it.
    where: the flag or field that names it, for messages.
    wanted: which objects below it are, by their names there.
    variant: tells this choice from others.
    listed: returns the objects below a URL, or those of them that may be wanted.

  Raises:
    UserError: no such bucket or object, no access, no room here.
    Unreachable: the service did not answer.
  """
  if not bucket.is_remote(path):
    return pathlib.Path(path).expanduser()
  url = bucket.plain(path)
  key = (os.environ.get("STORAGE_EMULATOR_HOST", ""), url, variant)
  if key in _found and _found[key][0].exists():
    return _found[key][0]
  for attempt in range(_ATTEMPTS):
    try:
      _found[key] = _fetch(url, where, wanted, variant, listed)
      break
    except bucket.NotFound:  # something was replaced since it was listed
      with _named(where):
        is_gone = not bucket.exists(url)
      if is_gone or attempt == _ATTEMPTS - 1:
        raise
  return _found[key][0]


def exists(path: str | os.PathLike[str]) -> bool:
  """Returns whether there is anything at a path, here or in a bucket."""
  if bucket.is_remote(path):
    return bucket.exists(os.fspath(path))
  return pathlib.Path(path).expanduser().exists()


def model_dir(
  path: str | os.PathLike[str], where: str, *, weights: bool = True
) -> pathlib.Path:
  """Returns a Hugging Face directory on this machine; see `local`.

  Of a bucket, weights in other formats than safetensors are left there, and folders but
  that of chat templates; without `weights` those in safetensors too.
  """

  def wanted(name: str) -> bool:
    folder, base = posixpath.split(name)
    if folder not in ("", "additional_chat_templates"):
      return False
    if base.endswith(_OURS):
      return weights
    return not base.endswith(_OTHER_WEIGHTS)

  return local(path, where, wanted=wanted, variant=f"model, weights {weights}")


def matching(pattern: str, where: str) -> pathlib.Path:
  """Returns a path or a glob on this machine; see `local`.

  Of a bucket, only what a glob matches is downloaded. As in `glob`, `*` ends at a slash
  and `**` does not.
  """
  if not bucket.is_remote(pattern) or not _MAGIC.search(pattern):
    return local(pattern, where)
  with _named(where):
    is_name = bucket.exists(pattern)
  if is_name:  # before it is a pattern
    return local(pattern, where)
  root = root_of(pattern)
  rest = pattern.removeprefix(f"{root}/")
  fits = re.compile(_as_regex(rest)).fullmatch
  copy = local(
    root, where, wanted=lambda name: fits(name) is not None, variant=f"glob {rest}"
  )
  return copy / rest


def root_of(pattern: str) -> str:
  """Returns the part of a glob in a bucket before its first wildcard."""
  parts = pattern.split("/")
  magic = [i for i, part in enumerate(parts) if _MAGIC.search(part)]
  return bucket.plain("/".join(parts[: magic[0] if magic else None]))


def forget() -> None:
  """Lets go of everything: what is asked for again is looked at again."""
  for _, held in _found.values():
    held.close()
  _found.clear()


def _fetch(
  url: str,
  where: str,
  wanted: Callable[[str], bool],
  variant: str,
  listed: Callable[[str], Mapping[str, bucket.Entry]],
) -> tuple[pathlib.Path, IO[str]]:
  with _named(where):
    entries = {name: entry for name, entry in listed(url).items() if wanted(name)}
    if not entries and (only := bucket.stat(url)) is not None:
      entries = {"": only}
  if not entries:
    raise UserError(f"{where}: {url} does not exist, or has nothing for this in it")
  for name in entries:
    bucket.split(bucket.join(url, name))  # nothing leads out of the cache
  name = url.rpartition("/")[2]
  return cache.fetch(url, name, entries, variant)


@contextlib.contextmanager
def _named(where: str) -> Iterator[None]:
  """Says in errors which flag or field they are about."""
  try:
    yield
  except UserError as error:
    raise type(error)(f"{where}: {error}") from None


def _as_regex(pattern: str) -> str:
  """Returns the regular expression of a glob."""
  parts = []
  for part in pattern.split("/"):
    if part == "**":
      parts.append("(?:[^/]+/)*")
    else:
      inner = fnmatch.translate(part).removeprefix("(?s:").removesuffix(r")\Z")
      parts.append(inner.replace(".*", "[^/]*") + "/")
  joined = "".join(parts)
  return joined.removesuffix("/") if not pattern.endswith("**") else joined + "[^/]+"
