"""Where a command works: a local workdir, or the mirror of one on a bucket.

    with place.opened("gs://bucket/study", "run") as workdir:
      ...  # a directory of this machine

Process 0 writes: what it makes is pushed while it goes on, and the others pull it when
they next agree on something (`distributed.together`). Each process has a mirror of its
own, `MSM_JAX_MIRROR`/<key of the URL>; hosts share nothing but the bucket.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import pathlib
import signal
import sys
from collections.abc import Iterator

from msm_jax import distributed, faults, progress, workers
from msm_jax.errors import Stopped, UserError
from msm_jax.storage import addresses, cache, lease, locks, urls, workfiles
from msm_jax.storage.mirror import Mirror
from msm_jax.storage.pushing import Pusher

MIRROR = "MSM_JAX_MIRROR"
_CACHE_DIR = "JAX_COMPILATION_CACHE_DIR"
_WRITERS = ("run", "generate", "prepare", "train", "evaluate", "report")
_LOOKS = ("plan", "report", "show")  # modes that compile nothing
_WITHOUT = ("verify", "doctor")  # look at the address alone, if at all
_PAGE = "report/index.html"


def local(workdir: str, process: int = 0) -> pathlib.Path:
  """Returns the local directory that stands for a workdir in a process of a run.

  Raises:
    UserError: it is no path and no gs:// URL.
  """
  if not urls.is_remote(workdir):
    return pathlib.Path(workdir)
  url = urls.plain(workdir)
  base = pathlib.Path(os.environ.get(MIRROR) or cache.directory() / "mirrors")
  key = hashlib.sha256(url.encode()).hexdigest()[:8]
  name = f"{url.removeprefix(urls.SCHEME).replace('/', '-')[-60:]}-{key}"
  return base.expanduser().absolute() / (
    f"{name}-process{process}" if process else name
  )


@contextlib.contextmanager
def opened(workdir: str | None, mode: str) -> Iterator[str | None]:
  """Yields the local directory in which a command works; all processes must enter it.

  Args:
    workdir: as the user gave it.
    mode: of the command: who only reads is never refused.

  Raises:
    UserError: another run works there, no access, no such bucket.
    Stopped: the bucket does not answer, or another run took the place of this one.
  """
  if workdir is None or mode in _WITHOUT or not urls.is_remote(workdir):
    yield workdir
    return
  number = distributed.process_index()
  root = local(workdir, number)
  if workers.is_worker():  # the process that began it pushes
    yield str(root)
    return
  url = urls.plain(workdir)
  _use_cache_of(root, local(workdir))
  with _at(url, root, mode), _by_address(url, root):
    yield str(root)
  if mode in ("run", "report") and not number and (root / _PAGE).exists():
    print(f"report: {urls.join(url, _PAGE)}")


@contextlib.contextmanager
def _by_address(url: str, root: pathlib.Path) -> Iterator[None]:
  """Has errors of its block name files as they are called in the bucket: there is where
  they are mended, or deleted to be made again. But for room: that is needed here.
  """
  try:
    yield
  except Exception as error:
    if full := faults.refused(error, (errno.ENOSPC, errno.EDQUOT)):
      raise UserError(
        f"{root}, where {url} is worked on: {os.strerror(full[1])}: make room, or set "
        f"{MIRROR} to another disk, then run again to go on"
      ) from error
    if not isinstance(error, UserError | Stopped):
      raise
    kind = UserError if isinstance(error, UserError) else Stopped
    raise kind(str(error).replace(str(root), url)) from error


def cache_dir(workdir: str) -> str:
  """Returns where compiled programs of a workdir are kept."""
  return str(local(workdir).absolute() / workfiles.CACHE)


def _use_cache_of(root: pathlib.Path, first: pathlib.Path) -> None:
  """Lets a process other than the first find compiled programs in its own mirror."""
  if root != first and os.environ.get(_CACHE_DIR) == str(first / workfiles.CACHE):
    own = os.environ[_CACHE_DIR] = str(root / workfiles.CACHE)
    sys.modules["jax"].config.update("jax_compilation_cache_dir", own)


@contextlib.contextmanager
def _at(url: str, root: pathlib.Path, mode: str) -> Iterator[None]:
  if mode not in _WRITERS:
    _look(url, root, mode)
    yield
    return
  session = _Session(url, root)
  with distributed.together():
    may_write = distributed.is_first() and session.begin(waits=mode != "report")
  if distributed.told_by_first(str(may_write)) != "True":
    progress.say(f"{url} is in use: the page is made here, and not put into the bucket")
    _look(url, root, mode)
    yield
    return
  with session.ending():
    with distributed.together():
      if not distributed.is_first():
        session.follow()
    with distributed.after_together(session.share):
      yield


def _look(url: str, root: pathlib.Path, mode: str) -> None:
  """Brings the local files up to date, unless a run of this machine does so."""
  addresses.write(root, url)
  with _pulling(url, root), _locked(root) as is_ours:
    if is_ours:
      all_ = mode not in _LOOKS
      Mirror(url, root).pull(
        keeps_ours=True, wanted=lambda path: all_ or _is_looked_at(path)
      )


def _is_looked_at(path: str) -> bool:
  is_row = path.startswith("rows/") and path.endswith(".array_record")
  return not (is_row or path.startswith(f"{workfiles.CACHE}/"))


@contextlib.contextmanager
def _locked(root: pathlib.Path) -> Iterator[bool]:
  """Yields whether no run of this machine uses the mirror, and keeps others out."""
  with (root / addresses.OWN / "lock").open("a") as file:
    yield locks.take(file, fcntl.LOCK_EX | fcntl.LOCK_NB) is not False


def _pulling(url: str, root: pathlib.Path) -> contextlib.AbstractContextManager[None]:
  """Lets one process at a time bring a mirror up to date; the others wait for it."""
  said = f"{url}: another process of this machine pulls it; waiting"
  return locks.alone(root / addresses.OWN / "pull", said)


class _Session:
  """A run that writes: on process 0 a lease and a pusher, on the others a follower."""

  def __init__(self, url: str, root: pathlib.Path):
    self._url = url
    self._lease = lease.Lease(urls.join(url, addresses.OWN, "lease.json"), url)
    self._mirror = Mirror(url, root, self._lease.is_ours)
    self._files = contextlib.ExitStack()
    self._heart: lease.Heart | None = None
    self._pusher: Pusher | None = None

  def begin(self, *, waits: bool) -> bool:
    """Takes the workdir and pulls it; returns whether it could be taken.

    Raises:
      UserError: another run works there.
    """
    root = self._mirror.root
    with contextlib.ExitStack() as files:
      with _pulling(self._url, root):  # who only looks has the lock while it pulls
        is_free = files.enter_context(_locked(root))
      if not is_free:
        if not waits:
          return False
        raise UserError(f"{self._url} is in use by another process of this machine")
      if not self._lease.take(waits=waits):
        return False
      self._heart = lease.Heart(self._lease, _stop)
      try:
        with _pulling(self._url, root):
          self._mirror.pull(keeps_ours=True)
        self._mirror.push()  # what a run before could not
      except BaseException:
        self._heart.end()
        raise
      self._pusher = Pusher(self._mirror)
      self._files = files.pop_all()
    return True

  def follow(self) -> None:
    """Pulls what process 0 named."""
    self._mirror.follow(lambda path: not workfiles.is_of_first(path))

  def share(self) -> None:
    """Lets all processes see what process 0 made; by itself, it need not wait."""
    if distributed.num_processes() == 1:
      self._pusher.wake()
      return
    error, generation = None, 0
    try:
      generation = self._pusher.settle() if self._pusher else 0
    except Exception as failure:
      error = failure
    distributed.agree(error)
    if int(distributed.told_by_first(str(generation))) != self._mirror.generation:
      try:
        self.follow()
      except Exception as failure:
        error = failure
    distributed.agree(error)

  @contextlib.contextmanager
  def ending(self) -> Iterator[None]:
    """Pushes at the end of its block what is left, however that ends."""
    try:
      yield
    except BaseException as error:
      self._close(error)
      raise
    with distributed.together():
      self._close(None)

  def _close(self, error: BaseException | None) -> None:
    if self._pusher is None:
      return
    with self._files:
      is_pushed = False
      try:
        if not self._heart.lost:
          self._pusher.close()
          is_pushed = True
      except (UserError, Stopped) as failure:
        if error is None:
          raise
        progress.say(f"WARNING: {failure}")
      finally:
        self._heart.end(gives_back=is_pushed)
    if self._heart.lost:
      raise Stopped(
        f"{self._url}: another run took the place of this one, which was not heard of "
        f"for {lease.lifetime_s():g} s; what it made since then is in "
        f"{self._mirror.root}"
      ) from error


def _stop() -> None:
  """Stops this process as a SIGTERM does: where nothing is lost."""
  os.kill(os.getpid(), signal.SIGTERM)
