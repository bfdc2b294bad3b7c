"""An import from its files to its shards: streamed, checked, every loss with a reason.

Beside the shards: `rejects.jsonl`, and in the manifest the sha256 of every source file,
the licence, and which shapes the rows had.
"""

import collections
import functools
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from data_gen import arrow_files, filters
from data_gen.importing import (
  choices,
  choosing,
  dataset_card,
  expected,
  folders,
  readers,
  shapes,
)
from data_gen.importing.settings import ImportCorpus
from data_gen.kinds import sizes
from msm_jax import errors, progress, records

REJECTS = "rejects.jsonl"
# What a folder that we exported says about its columns.
EXPORT_NOTE, NOTE_FORMAT = "corpus.json", "msm-jax corpus 1"
_ORIGIN = ("name", "kind", "hashes", "config", "universe")
_RECORDS_PER_SHARD = 16384
_HOPELESS = 10_000  # rows without a record: a field has another name
_MANY_BYTES = 256 << 20  # from here on, hashing is announced
_MB = 1 << 20
_SHAPE_WORDS = {
  "conversations": "ShareGPT conversations, roles renamed",
  "prompt": "prompts and completions, each a conversation",
}


def identity(name: str, corpus: ImportCorpus) -> dict[str, Any] | None:
  """Returns the sha256 of every source file by name; None if there are no files.

  Raises:
    UserError: what lies there cannot be used, or is not what is expected.
  """
  if not folders.exists(corpus):
    return None
  source = folders.find(name, corpus)
  if source.num_bytes > _MANY_BYTES:
    progress.say(f"corpus {name}: hashing {source.num_bytes >> 20} MB")
  files: dict[str, str] = {}
  for file in source.files:
    stat = file.path.stat()
    files[file.name] = _sha256(str(file.path), stat.st_size, stat.st_mtime_ns)
  expected.check_files(name, corpus, source, files)
  return {"files": files, "split": source.split}


def count(name: str, corpus: ImportCorpus) -> tuple[int, int, int]:
  """Returns (rows that would be taken, bytes, files); rows are counted unchecked."""
  source = folders.find(name, corpus)
  num_rows = sum(readers.count(f, corpus.max_row_mb << 20) for f in source.files)
  if corpus.max_records is not None:
    num_rows = min(num_rows, corpus.max_records)
  return num_rows, source.num_bytes, len(source.files)


def make(
  directory: pathlib.Path, name: str, corpus: ImportCorpus, base: Mapping[str, Any]
) -> dict[str, Any]:
  """Writes the corpus and returns its manifest.

  Args:
    directory: where it appears when it is whole.
    name: in `config.corpora`.
    corpus: what to import.
    base: what the manifest says beside, with `config.source` as `identity` gave it.

  Raises:
    UserError: nothing is there, nothing of it is a record, or it changed meanwhile.
  """
  source = folders.find(name, corpus)
  _remove_leftovers(directory)
  with tempfile.TemporaryFile() as lost:
    run = _Import(name, corpus, source, lost)
    manifest = records.write_dataset(
      directory,
      run.records(),
      manifest=lambda: {**base, **run.manifest(base["config"]["source"]["files"])},
      records_per_shard=_RECORDS_PER_SHARD,
      extra_files={REJECTS: lost},
    )
  run.say()
  return manifest


class _Import:
  """One pass over the files (two, if records are drawn)."""

  def __init__(
    self, name: str, corpus: ImportCorpus, source: folders.Source, lost: BinaryIO
  ):
    self._name, self._corpus, self._source = name, corpus, source
    self._lost = lost
    self._note = _export_note(source)
    self._columns = self._note.get("columns")
    self._shaper = shapes.Shaper(corpus, self._columns)
    self._reasons: collections.Counter[str] = collections.Counter()
    self._kinds: collections.Counter[str] = collections.Counter()
    self._first = ""
    self._num_rows = self._num_words = 0
    self._choice: choosing.Choice = choosing.First()
    self._stats = {f.name: f.path.stat() for f in source.files}

  def records(self) -> Iterator[dict[str, Any]]:
    """Yields the records; rejected rows go to the open file, with their reason."""
    limit, self._choice = self._corpus.max_records, self._chosen()
    for place, made in self._rows("importing"):
      if isinstance(made, readers.Bad):
        self._reject(place, made)
      elif self._choice.takes(place):
        self._count(made)
        yield made
        if limit is not None and self._kinds.total() == limit:
          break
    if not self._kinds:
      raise self._nothing()

  def manifest(self, files: Mapping[str, str]) -> dict[str, Any]:
    """Returns what the manifest says of a finished pass."""
    for file in self._source.files:
      before, now = self._stats[file.name], file.path.stat()
      same = before.st_size == now.st_size and before.st_mtime_ns == now.st_mtime_ns
      if not same:
        raise errors.UserError(f"{file.path} changed while it was read: run again")
    kept, rejected = self._kinds.total(), self._reasons.total()
    corpus = self._corpus
    revision = expected.revision(corpus, self._source)
    return {
      "planned": kept + rejected,
      "rejected": rejected,
      "num_words": self._num_words,
      "record_kinds": dict(self._kinds),
      "shapes": dict(self._shaper.shapes),
      "source_files": [
        {"path": file.name, "num_bytes": file.size, "sha256": files[file.name]}
        for file in self._source.files
      ],
      **self._choice.told(),
      "columns_left_out": self._left_out(),
      "license": corpus.license or dataset_card.license_of(self._source.card),
      "source": corpus.source,
      **({} if revision is None else {"revision": revision}),
      "language": corpus.language or self._origin("language"),
      "origin": {key: self._origin(key) for key in _ORIGIN} if self._note else None,
    }

  def _origin(self, key: str) -> Any:
    """Returns what the manifest of the corpus said that was exported to this folder."""
    return self._note.get("manifest", {}).get(key)

  def say(self) -> None:
    """Says what was done to the rows beside being kept."""
    for shape, words in _SHAPE_WORDS.items():
      if self._shaper.shapes[shape]:
        progress.say(f"corpus {self._name}: the rows are {words}")
    if left_out := self._left_out():
      names = ", ".join(left_out)
      progress.say(f"corpus {self._name}: binary columns are left out ({names})")
    if self._reasons:
      counts = ", ".join(f"{n} {reason}" for reason, n in self._reasons.most_common(5))
      progress.say(f"corpus {self._name}: rejected {counts}; {REJECTS} has each row")

  def _rows(self, doing: str) -> Iterator[tuple[str, dict[str, Any] | readers.Bad]]:
    """Yields (place, record or what is wrong) of every row."""
    limit = self._corpus.max_row_mb << 20
    total, done, num_good = -(-self._source.num_bytes // _MB), 0, 0
    fault = ""
    with progress.Progress(f"corpus {self._name}: {doing}", total, "MB") as bar:
      for file in self._source.files:
        prune = file.format in ("parquet", "arrow")
        for number, row, share in readers.rows(file, limit):
          place = f"{file.name}:{number}"
          self._num_rows += 1
          made = self._shaper.record(row, place, prune)
          if isinstance(made, readers.Bad):
            fault = fault or f"{place}: {made.reason}"
          else:
            num_good += 1
          yield place, made
          at = -(-(done + int(share * file.size)) // _MB)
          bar.advance(at - bar.done, rows=self._num_rows)
        done += file.size
    if num_good:  # else it is said what the rows have instead
      expected.check_count(self._name, self._corpus, num_good, self._num_rows, fault)

  def _chosen(self) -> choosing.Choice:
    """Returns which rows are taken, after a first pass if it takes one to know."""
    corpus = self._corpus
    if sizes.budget_field(corpus) is not None:
      found = (made for _, made in self._good("measuring"))
      choice = choosing.Budgeted(self._name, corpus, found)
    elif corpus.seed is not None:
      choice = choosing.Drawn(corpus, (place for place, _ in self._good("drawing")))
    else:
      return choosing.First()
    self._shaper = shapes.Shaper(corpus, self._columns)
    self._num_rows = 0
    return choice

  def _good(self, doing: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for place, made in self._rows(doing):
      if not isinstance(made, readers.Bad):
        yield place, made

  def _count(self, record: Mapping[str, Any]) -> None:
    self._kinds[record["kind"]] += 1
    texts = [turn["content"] for turn in record.get("messages", ())]
    texts += [option["text"] for option in record.get("options", ())]
    self._num_words += sum(map(filters.num_words, [*texts, record.get("text", "")]))

  def _reject(self, place: str, bad: readers.Bad) -> None:
    category = filters.category(bad.reason)
    if self._corpus.shape == choices.SHAPE and category != choices.MIRRORED:
      raise errors.UserError(
        f"config.corpora.{self._name}: {place}: {bad.reason}; an evaluation set is "
        "taken whole or not at all: mend the row, or the columns in `choice`"
      )
    self._reasons[category] += 1
    self._first = self._first or f"{place}: {bad.reason}"
    row = {"stage": "import", "id": place, "reason": bad.reason, "text": bad.excerpt}
    line = json.dumps(row, ensure_ascii=False) + "\n"
    self._lost.write(line.encode("utf-8", "backslashreplace"))
    if not self._kinds and self._reasons.total() == _HOPELESS:
      raise self._nothing()

  def _nothing(self) -> errors.UserError:
    path = f"config.corpora.{self._name}.path={self._corpus.path}"
    if not self._num_rows:
      return errors.UserError(f"{path} has no rows: check the file")
    return errors.UserError(
      f"{path}: none of {self._num_rows} rows became a record (the first: "
      f"{self._first}); {self._shaper.did_you_mean()}"
    )

  def _left_out(self) -> list[str]:
    found: dict[str, None] = {}
    for file in self._source.files:
      if file.format in ("parquet", "arrow"):
        found |= dict.fromkeys(arrow_files.left_out(file.path, file.format))
    return list(found)


def _export_note(source: folders.Source) -> Mapping[str, Any]:
  """Returns what we wrote beside the data of an export; {} for all other folders."""
  for folder in (source.root, source.root.parent):
    try:
      note = records.read_json(folder / EXPORT_NOTE)
    except (FileNotFoundError, errors.UserError):
      continue
    if isinstance(note, dict) and note.get("format") == NOTE_FORMAT:
      return note
  return {}


@functools.lru_cache(maxsize=4096)
def _sha256(path: str, size: int, mtime_ns: int) -> str:
  return records.sha256_file(path)


def _remove_leftovers(directory: pathlib.Path) -> None:
  """Removes what a killed import of this corpus has left beside it."""
  for path in directory.parent.glob(f".{directory.name}.tmp-*"):
    pid = path.name.rsplit("-", 1)[1]
    if pid.isdigit() and not _is_alive(int(pid)):
      shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
  try:
    os.kill(pid, 0)
  except ProcessLookupError:
    return False
  except OSError:
    return True
  return True
