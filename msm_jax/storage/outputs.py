"""What is written, to wherever it should lie.

A local path is written at its place. What goes to a gs:// URL is written on this
machine first and uploaded when it is whole, the files that readers look for last: who
finds those finds everything.
"""

import contextlib
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator

from msm_jax import progress
from msm_jax.errors import Stopped, UserError
from msm_jax.storage import bucket, cache, transfers

# What readers take as the sign of something whole.
MARKERS = (
  "README.md",
  "corpus.json",
  "adapter_config.json",
  "config.json",
  "manifest.json",
  "done.json",
)
_SAID_BYTES = 64 * 10**6  # larger uploads show how far they are


def check(out: str | os.PathLike[str], where: str, *, new: bool = True) -> None:
  """Raises a UserError where `place` would; before anything that takes its time."""
  if not bucket.is_remote(out):
    return
  url = bucket.plain(out)
  if not bucket.split(url)[1]:
    raise UserError(f"{where}={url}: name a place in the bucket: {url}/NAME")
  if new and bucket.exists(url):
    raise UserError(
      f"{where}={url} exists already: name a new place, or remove it "
      f"(gcloud storage rm -r {url})"
    )


@contextlib.contextmanager
def place(
  out: str | os.PathLike[str], where: str, *, new: bool = True, writes: bool = True
) -> Iterator[pathlib.Path]:
  """Yields the path on this machine to write to; uploads it where `out` is remote.

  Args:
    out: of a file or a directory, local or gs://.
    where: the flag that names it, for messages.
    new: nothing may be in the bucket at `out` yet.
    writes: whether this process is the one that writes.

  Raises:
    UserError: there is something already; it could not be uploaded (the copy here is
      kept, and named).
    Stopped: the service did not answer; the copy here is kept.
  """
  if not bucket.is_remote(out):
    yield pathlib.Path(out)
    return
  url = bucket.plain(out)
  if writes:
    check(out, where, new=new)
  # The same for the same place, so that what was interrupted can go on.
  key = hashlib.sha256(url.encode()).hexdigest()[:20]
  home = cache.directory() / "uploads" / key
  path = home / url.rpartition("/")[2]
  if writes:
    home.mkdir(parents=True, exist_ok=True)
    _remove(path)  # of an attempt whose upload failed
  try:
    yield path
  except BaseException:
    if not any(home.glob(".*.partial")):  # nothing with which the next one goes on
      shutil.rmtree(home, ignore_errors=True)
    raise
  if writes:
    _upload(path, url, where, new)
    shutil.rmtree(home, ignore_errors=True)


def _remove(path: pathlib.Path) -> None:
  if path.is_dir():
    shutil.rmtree(path)
  path.unlink(missing_ok=True)


def _upload(path: pathlib.Path, url: str, where: str, new: bool) -> None:
  files = {url: path}
  if path.is_dir():
    below = sorted(each for each in path.rglob("*") if each.is_file())
    files = {bucket.join(url, f.relative_to(path).as_posix()): f for f in below}
  markers = [at for name in MARKERS for at in files if at == bucket.join(url, name)]
  total = sum(each.stat().st_size for each in files.values())
  try:
    with contextlib.ExitStack() as stack:
      shown = None
      if total > _SAID_BYTES:
        shown = stack.enter_context(progress.Megabytes(f"upload {url}", total))
      others = {at: files[at] for at in files if at not in markers}
      for some in (others, *({at: files[at]} for at in markers)):
        transfers.upload_all(some, shown, new=new)
  except bucket.Changed:
    raise UserError(
      f"{where}={url} was written by somebody else meanwhile: name a new place; all of "
      f"it is kept in {path}"
    ) from None
  except (UserError, Stopped) as error:
    way = f"gcloud storage cp -r {path} {url}"
    raise type(error)(f"{where}: {error}; all of it is kept in {path}: {way}") from None
  progress.say(f"uploaded to {url}")
