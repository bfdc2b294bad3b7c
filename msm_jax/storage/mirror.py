"""A workdir on a bucket, as a directory of the local disk that is kept equal to it.

    gs://BUCKET/STUDY/...                   the files, under their names
    gs://BUCKET/STUDY/.mirror/index.json    which of them there are
    gs://BUCKET/STUDY/.mirror/lease.json    who may write (lease.py)
    MIRROR/.mirror/state.json               what was equal when it was last compared

The index makes many uploads one change: it is written after all of them, so a run that
is killed in the middle leaves new datasets unnamed and the old ones named, and who
reads the index sees each whole or not at all. An object of another generation than the
index says was written by a push that did not come to its end, or by hand: it is newer,
and it is whole. What is named in neither, or whose object is gone, does not exist.

The bucket is what counts; a mirror may be deleted at any time. But what a mirror has
that did not reach the bucket is pushed, or laid aside where both have changed.
"""

import contextlib
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping

from msm_jax import progress
from msm_jax.errors import Stopped
from msm_jax.storage import (
  addresses,
  bucket,
  cache,
  listing,
  service,
  threads,
  transfers,
  urls,
  workfiles,
)

_STATE, _INDEX = f"{addresses.OWN}/state.json", f"{addresses.OWN}/index.json"
_INCOMING = f"{addresses.OWN}/incoming"
_ASIDE = f"{addresses.OWN}/aside"
_ROUNDS = 20  # of a pull whose files are written meanwhile, or of a push
_LOOKS = 5  # at a bucket that a run writes to
_WHOLE_BYTES = transfers.PART // 2  # larger files are sent in parts
_SAID_BYTES = 64 * 10**6
_SHARE = 10  # of the time, at most, is a large file being sent in the background

Wanted = Callable[[str], bool]


class Mirror:
  """The local side of a workdir on a bucket; not for several threads at a time.

  Attributes:
    url: of the workdir.
    root: the local directory.
    generation: of the index that was last read or written, 0 before there is one.
  """

  def __init__(
    self, url: str, root: pathlib.Path, may_write: Callable[[], bool] = lambda: False
  ):
    """Knows what was equal when it was last compared.

    Args:
      url, root: see above.
      may_write: asked when an object is of another generation than is known: whether
        this run may replace it all the same, as it (still) is the one that writes.
    """
    self.url, self.root, self.generation = url, root, 0
    self._may_write = may_write
    addresses.write(root, url)
    # Path -> what it was here and in the bucket when both were equal.
    self._equal: dict[str, tuple[workfiles.Stat, bucket.Entry]] = {}
    self._not_before: dict[str, float] = {}
    self._index: dict[str, bucket.Entry] = {}
    self._read_state()

  # From the bucket.

  def pull(self, *, keeps_ours: bool, wanted: Wanted = lambda path: True) -> None:
    """Makes the local files those of the bucket, as a listing shows them.

    Args:
      keeps_ours: files that did not reach the bucket stay, for `push`.
      wanted: which files.

    Raises:
      UserError: no such bucket, no access, no room here.
      Unreachable: the bucket does not answer.
    """
    for _ in range(_ROUNDS):
      there = self._there()
      with contextlib.suppress(bucket.NotFound):  # written meanwhile: look again
        return self._adopt(there, wanted, keeps_ours)
    raise Stopped(f"{self.url}: its files change too fast to be read: run again")

  def follow(self, wanted: Wanted) -> None:
    """Makes the local files those of the index as it is now."""
    for _ in range(_ROUNDS):
      self._read_index()
      with contextlib.suppress(bucket.NotFound):
        return self._adopt(self._index, wanted, False)
    raise Stopped(f"{self.url}: its files change too fast to be read: run again")

  def _there(self) -> dict[str, bucket.Entry]:
    """Returns what the workdir on the bucket consists of."""
    at = urls.join(self.url, _INDEX)
    for _ in range(_LOOKS):  # a listing is no picture of one moment
      self._read_index()
      found = listing.without(self.url, workfiles.CHECKPOINTS)
      now = bucket.stat(at)
      if self.generation == (now.generation if now else 0):
        break
    own = f"{addresses.OWN}/"
    found = {path: entry for path, entry in found.items() if not path.startswith(own)}
    if not self.generation:  # put there by other means: taken as it is
      return {
        p: e for p, e in found.items() if all(map(workfiles.counts, p.split("/")))
      }
    return {path: found[path] for path in self._index if path in found}

  def _adopt(
    self, there: Mapping[str, bucket.Entry], wanted: Wanted, keeps_ours: bool
  ) -> None:
    there = {path: entry for path, entry in there.items() if wanted(path)}
    found = workfiles.scan(self.root)
    here = {path: stat for path, stat in found.items() if wanted(path)}
    fetched, gone = [], []
    for path in {**there, **here}:
      entry, stat = there.get(path), here.get(path)
      then = self._equal.get(path)
      is_ours = stat is not None and (then is None or then[0] != stat)
      is_theirs = entry is not None and (then is None or then[1] != entry)
      if entry is None:
        if not (is_ours and keeps_ours):  # deleted there
          gone.append(path)
      elif is_ours and workfiles.is_same(self.root / path, entry):
        self._equal[path] = stat, entry
      elif is_ours and keeps_ours and not is_theirs:
        continue  # is to be pushed
      elif is_ours and keeps_ours and workfiles.has_grown(self.root / path, entry):
        # It was sent, the process was killed, and more had been written: push that.
        self._equal[path] = (0, entry.size), entry
      elif stat is None or is_theirs or is_ours:
        if is_ours and keeps_ours and not workfiles.is_note(path):
          self._lay_aside(path)
        fetched.append(path)
    try:
      self._download({path: there[path] for path in fetched})
      for path in gone:
        (self.root / path).unlink(missing_ok=True)
      workfiles.remove_empty(self.root, gone)
      for path in [p for p in self._equal if wanted(p) and p not in there]:
        del self._equal[path]
    finally:  # what has come is not taken for ours next time
      self._write_state()

  def _download(self, entries: Mapping[str, bucket.Entry]) -> None:
    if not entries:
      return
    size = sum(entry.size for entry in entries.values())
    cache.check_room(self.url, size, self.root, "MSM_JAX_MIRROR")
    for path in entries:  # a directory may have become a file, or the reverse
      _make_way(self.root, path)
    path_at = {urls.join(self.url, path): path for path in entries}

    def landed(url: str) -> None:
      path = path_at[url]
      self._equal[path] = _stat(self.root / path), entries[path]

    if size > _SAID_BYTES:
      progress.say(f"{self.url}: {size / 1e6:.0f} MB to pull")
    with cache.scratch(self.root / _INCOMING) as new:
      transfers.download_all(
        {at: entries[path] for at, path in path_at.items()},
        {at: self.root / path for at, path in path_at.items()},
        new,
        landed=landed,
      )

  def _lay_aside(self, path: str) -> None:
    target = self.root / _ASIDE / f"{time.time_ns()}" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    os.replace(self.root / path, target)
    progress.say(
      f"WARNING: {urls.join(self.url, path)} was changed there and here; that of the "
      f"bucket counts, the other is {target}"
    )

  # To the bucket.

  def push(self, *, spares_large: bool = False) -> list[str]:
    """Makes the bucket's files those here; returns what is still to be sent.

    Args:
      spares_large: leaves out files that were sent a short while ago in relation to
        the time that it took.

    Raises:
      Changed: another run took the place of this one.
      Unreachable, UserError: what was sent is not sent again.
    """
    for _ in range(_ROUNDS):
      here = workfiles.scan(self.root)
      changed = [path for path, stat in here.items() if self._is_changed(path, stat)]
      gone = {p: entry for p, (_, entry) in self._equal.items() if p not in here}
      late = self._late(changed) if spares_large else []
      sent = [path for path in changed if path not in late]
      try:
        for is_last in (False, True):
          self._upload([p for p in sent if workfiles.is_last(p) == is_last], here)
      except FileNotFoundError:  # renamed meanwhile: look again
        continue
      for path in gone:
        del self._equal[path]
      self._commit()
      self._delete(gone)
      self._write_state()
      return late
    return changed

  def unsent(self) -> list[str]:
    """Returns the files that are not in the bucket as they are here."""
    here = workfiles.scan(self.root)
    return sorted(path for path, stat in here.items() if self._is_changed(path, stat))

  def _is_changed(self, path: str, stat: workfiles.Stat) -> bool:
    then = self._equal.get(path)
    return then is None or (then[0] != stat and not workfiles.is_note(path))

  def _late(self, paths: Collection[str]) -> set[str]:
    now = time.monotonic()
    return {path for path in paths if self._not_before.get(path, 0.0) > now}

  def _upload(self, paths: Collection[str], here: Mapping[str, workfiles.Stat]) -> None:
    def send(path: str) -> None:
      known = self._equal[path][1].generation if path in self._equal else 0
      size = here[path][1]
      entry = self._replace(path, known, lambda was: self._send(path, size, was))
      self._equal[path] = here[path], entry

    with threads.pool() as pool:
      threads.each(pool, send, paths)

  def _replace(
    self, path: str, known: int, write: Callable[[int], bucket.Entry]
  ) -> bucket.Entry:
    """Writes an object over the generation that is known.

    Over another one only as long as this run is the one that writes: then that is by
    hand, of a push of ours whose answer did not come, or of a run that was asleep.
    """
    while True:
      try:
        return write(known)
      except bucket.Changed:
        if not self._may_write():
          raise
      found = bucket.stat(urls.join(self.url, path))
      known = found.generation if found else 0

  def _delete(self, entries: Mapping[str, bucket.Entry]) -> None:
    def delete(path: str) -> None:
      with contextlib.suppress(bucket.Changed):  # nothing that we know
        bucket.delete(urls.join(self.url, path), entries[path].generation)

    with threads.pool() as pool:
      threads.each(pool, delete, entries)

  def _send(self, path: str, size: int, generation: int) -> bucket.Entry:
    started = time.monotonic()
    with self._still(path, size) as still:
      entry = transfers.upload(still, urls.join(self.url, path), generation)
    took = time.monotonic() - started
    if size > _WHOLE_BYTES:
      self._not_before[path] = time.monotonic() + (_SHARE - 1) * took
    return entry

  @contextlib.contextmanager
  def _still(self, path: str, size: int) -> Iterator[pathlib.Path]:
    """Yields a file that does not grow while it is sent in parts."""
    if size <= _WHOLE_BYTES or not workfiles.is_appended(path):
      yield self.root / path
      return
    copy = self.root / addresses.OWN / f"sending-{path.replace('/', '-')[-100:]}"
    try:
      with (self.root / path).open("rb") as source, copy.open("wb") as target:
        while left := size - target.tell():
          if not (data := source.read(min(left, 2**20))):
            break  # it was cut meanwhile
          target.write(data)
      yield copy
    finally:
      copy.unlink(missing_ok=True)

  def _commit(self) -> None:
    """Writes the index, if it does not say so already."""
    index = {path: entry for path, (_, entry) in self._equal.items()}
    if index == self._index and self.generation:
      return
    files = {p: [e.size, e.crc32c, e.generation] for p, e in sorted(index.items())}
    data = json.dumps({"files": files}, indent=0).encode()
    at = urls.join(self.url, _INDEX)
    entry = self._replace(
      _INDEX, self.generation, lambda was: bucket.write_bytes(at, data, was)
    )
    self._index, self.generation = index, entry.generation

  def _read_index(self) -> None:
    try:
      data, self.generation = bucket.read(urls.join(self.url, _INDEX))
    except service.NoBucket:
      raise
    except bucket.NotFound:
      self._index, self.generation = {}, 0
    else:
      self._index = _entries(json.loads(data)["files"])

  # The state.

  def _read_state(self) -> None:
    try:
      said = json.loads((self.root / _STATE).read_text("utf-8"))
    except (FileNotFoundError, ValueError):
      return
    entries = _entries({path: each["there"] for path, each in said.items()})
    self._equal = {
      path: (tuple(said[path]["here"]), entry) for path, entry in entries.items()
    }

  def _write_state(self) -> None:
    said = {
      path: {"here": stat, "there": [entry.size, entry.crc32c, entry.generation]}
      for path, (stat, entry) in self._equal.items()
    }
    path = self.root / _STATE
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    temporary.write_text(json.dumps(said), "utf-8")
    os.replace(temporary, path)


def _entries(said: Mapping[str, list]) -> dict[str, bucket.Entry]:
  return {
    path: bucket.Entry(int(size), crc32c, int(generation))
    for path, (size, crc32c, generation) in said.items()
  }


def _stat(path: pathlib.Path) -> workfiles.Stat:
  stat = path.stat()
  return stat.st_mtime_ns, stat.st_size


def _make_way(root: pathlib.Path, path: str) -> None:
  """Removes what stands where a file, or a directory that leads to it, comes."""
  for folder in pathlib.PurePosixPath(path).parents:
    if (root / folder).is_file():
      (root / folder).unlink()
  if (root / path).is_dir():
    shutil.rmtree(root / path)
