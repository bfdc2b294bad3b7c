"""Looks closer at a corpus or a shard: a draw, figures, one record, its bytes.

Plain text for people; nothing is held but what is shown.
"""

import collections
import heapq
import json
import pathlib
import random
import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from msm_jax import records, rejects, words
from msm_jax import show as show_lib
from msm_jax.errors import UserError

_BODY = ("text", "messages", "options")
_GROUPS = ("kind", "spec_section", "domain", "doc_type", "question_type", "category")
_LISTED = 8
_MAX_NAMES = 10_000  # of one field; free text is no group


class Corpus:
  """A corpus directory, or one shard of it.

  Attributes:
    directory: where the manifest lies.
    manifest: what it says.
    shards: entries of the manifest that are looked at.
  """

  def __init__(self, path: pathlib.Path):
    """Finds the corpus at `path`.

    Raises:
      UserError: there is none, or it is of packed rows.
    """
    is_shard = path.suffix == ".array_record" and path.is_file()
    self.directory = path.parent if is_shard else path
    self.manifest = records.read_manifest(self.directory)
    self.shards = self.manifest["shards"]
    if "components" in self.manifest:
      raise UserError(
        f"{path} holds packed rows: --sample, --stats, --row and --verify are for "
        "corpora and their shards; name a directory under corpus/"
      )
    if is_shard:
      self.shards = [s for s in self.shards if s["path"] == path.name]
      if not self.shards:
        raise UserError(
          f"{path} is not listed in {self.directory / records.MANIFEST}: name another"
        )

  def __iter__(self) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Yields (number in the corpus, shard, record)."""
    number = 0
    for shard in self.manifest["shards"]:
      if shard in self.shards:
        path = self.directory / shard["path"]
        if not path.exists():
          raise UserError(f"{path} is missing, its manifest lists it: restore it")
        data = records.read_shard(path, shard["num_records"])
        for offset, record in enumerate(map(records.decode, data)):
          yield number + offset, shard["path"], record
      number += shard["num_records"]


def show(
  path: pathlib.Path, asked: Mapping[str, Any], *, limit: int, seed: int, colour: bool
) -> Iterator[str]:
  """Yields the lines of one way to look closer, or of `show.show` if none is asked for.

  Args:
    path: a corpus or a shard; for a row also the rows of one component of a stage.
    asked: one of sample, stats, row (with the id or number) and verify, or nothing.
    limit, seed: of a draw.
    colour: of packed rows.

  Raises:
    UserError: more than one way is asked for.
  """
  if len(asked) > 1:
    raise UserError(f"show: one of --{' and --'.join(asked)} at a time")
  if not asked:
    return show_lib.show(path, limit=limit, colour=colour)
  (way,) = asked
  if way == "row" and show_lib.is_rows(path):
    return show_lib.packed_row(path, asked[way], colour=colour)
  if way == "row":
    return row(path, asked[way])
  if way == "sample":
    return sample(path, limit=limit, seed=seed)
  return stats(path) if way == "stats" else verify(path)


def sample(path: pathlib.Path, *, limit: int, seed: int) -> Iterator[str]:
  """Yields `limit` records drawn at random, in the order of the corpus."""
  corpus = Corpus(path)
  total = sum(shard["num_records"] for shard in corpus.shards)
  drawn = set(random.Random(seed).sample(range(total), min(limit, total)))
  yield f"{len(drawn)} of {total} records, drawn with seed {seed}"
  for place, (number, _, record) in enumerate(corpus):
    if place in drawn:
      yield ""
      yield f"--- {number}  {record.get('id', '')}"
      yield from _about(record)
      yield from _body(record)


def row(path: pathlib.Path, which: str) -> Iterator[str]:
  """Yields one record with everything that is known of it.

  Args:
    path: of a corpus or a shard.
    which: its id, the beginning of its id, or its number in the corpus.

  Raises:
    UserError: there is no such record, or several begin like that.
  """
  corpus = Corpus(path)
  found = []
  for number, shard, record in corpus:
    identity = str(record.get("id", ""))
    if which in (identity, str(number)):
      found = [(number, shard, record)]
      break
    if identity.startswith(which) and len(found) < 3:
      found.append((number, shard, record))
  if len(found) > 1:
    names = ", ".join(str(record["id"]) for _, _, record in found[:2])
    raise UserError(f"--row={which}: several ids begin like that ({names}): say more")
  if not found:
    yield from _rejected(corpus, which)
    return
  number, shard, record = found[0]
  yield f"record {number} of {corpus.manifest['num_records']}, in {shard}"
  yield from _about(record)
  for name, value in (corpus.manifest.get("hashes") or {}).items():
    if value:
      yield f"  {'sha256 of ' + name:20} {value}"
  yield ""
  yield from _body(record)


def stats(path: pathlib.Path) -> Iterator[str]:
  """Yields figures of the records, and of what was rejected."""
  corpus = Corpus(path)
  groups = {name: collections.Counter[str]() for name in _GROUPS}
  teachers, lengths = collections.Counter[str](), []
  for _, _, record in corpus:
    lengths.append(_num_words(record))
    for name, counts in groups.items():
      value = record.get(name)
      if isinstance(value, str) and (value in counts or len(counts) < _MAX_NAMES):
        counts[value] += 1
    teacher = record.get("teacher")
    if isinstance(teacher, Mapping):
      version = teacher.get("model_version") or teacher.get("model")
      teachers[f"{teacher.get('client')}: {version}"] += 1
  facts = {k: v for k, v in corpus.manifest.items() if not isinstance(v, dict | list)}
  yield json.dumps(facts, ensure_ascii=False)
  yield f"{len(lengths)} records, {sum(lengths)} words"
  if lengths:
    yield (
      f"words per record: least {min(lengths)}, median "
      f"{statistics.median(lengths):.0f}, mean {statistics.mean(lengths):.1f}, most "
      f"{max(lengths)}"
    )
  for name, counts in {**groups, "teacher": teachers}.items():
    yield from _counted(name, counts)
  yield from _counted("rejected because", _reasons(corpus))
  if (corpus.directory / "audit.json").exists():
    audit = records.read_json(corpus.directory / "audit.json")
    yield from (f"audit: {line}" for line in audit.get("violations") or ())
    yield f"more figures: {corpus.directory / 'audit.html'}"


def verify(path: pathlib.Path) -> Iterator[str]:
  """Yields a line for every shard whose bytes and records are as the manifest says.

  Raises:
    UserError: naming what is missing, changed or not listed.
  """
  corpus = Corpus(path)
  for shard in corpus.shards:
    if sha256 := _other_sha256(corpus.directory / shard["path"], shard["sha256"]):
      raise UserError(
        f"{corpus.directory / shard['path']} {sha256}: restore it, or delete the "
        "directory and make the corpus again"
      )
    yield f"{shard['path']}: {shard['num_records']} records, sha256 {shard['sha256']}"
  seen: set[str] = set()
  twice = num_records = 0
  for _, _, record in corpus:
    num_records += 1
    identity = str(record.get("id", num_records))
    twice += identity in seen
    seen.add(identity)
  listed = {shard["path"] for shard in corpus.manifest["shards"]}
  there = {found.name for found in corpus.directory.glob("*.array_record")}
  if there - listed:
    raise UserError(
      f"{corpus.directory / min(there - listed)} is not listed in the manifest: it "
      "does not belong here; move it away"
    )
  total = sum(shard["num_records"] for shard in corpus.manifest["shards"])
  if total != corpus.manifest.get("num_records"):
    raise UserError(
      f"{corpus.directory / records.MANIFEST}: num_records is "
      f"{corpus.manifest.get('num_records')}, the shards have {total}: the manifest "
      "was changed; restore it"
    )
  if twice:
    yield f"{twice} records have the id of an earlier one"
  yield f"verified: {len(corpus.shards)} shards, {num_records} records"


def _other_sha256(path: pathlib.Path, sha256: str) -> str:
  """Returns what is wrong with the bytes of a shard, "" if nothing is."""
  if not path.exists():
    return "is missing, its manifest lists it"
  found = records.sha256_file(path)
  if found == sha256:
    return ""
  return f"is truncated or was changed (its sha256 is {found}, not {sha256})"


def _rejected(corpus: Corpus, which: str) -> Iterator[str]:
  for line in _reject_rows(corpus):
    if str(line.get("id", "")) == which:
      yield f"rejected: {line.get('reason')}"
      yield from _about(line)
      yield ""
      yield from _body(line)
      return
  raise UserError(
    f"--row={which}: neither a record nor a reject of {corpus.directory} has this id "
    f"or number (there are {corpus.manifest['num_records']} records)"
  )


def _reject_rows(corpus: Corpus) -> Iterator[dict[str, Any]]:
  path = corpus.directory / rejects.REJECTS
  if path.exists():
    with path.open(encoding="utf-8") as file:
      yield from (json.loads(line) for line in file if line.strip())


def _reasons(corpus: Corpus) -> collections.Counter[str]:
  counts: collections.Counter[str] = collections.Counter()
  for line in _reject_rows(corpus):
    counts[rejects.category(str(line.get("reason", "")))] += 1
  return counts


def _counted(name: str, counts: collections.Counter[str]) -> Iterator[str]:
  if not counts:
    return
  yield f"{name}: {len(counts)}"
  best = heapq.nsmallest(_LISTED, counts.items(), key=lambda pair: (-pair[1], pair[0]))
  for value, count in best:
    yield f"  {count:>8}  {value}"
  if len(counts) > _LISTED:
    yield f"  {counts.total() - sum(n for _, n in best):>8}  others"


def _about(record: Mapping[str, Any]) -> Iterator[str]:
  """Yields a line for every field that is not the text itself."""
  for name, value in record.items():
    if name not in _BODY and value not in (None, "", {}, []):
      text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
      yield f"  {name:20} {text}"


def _body(record: Mapping[str, Any]) -> Iterator[str]:
  for role, text in _turns(record):
    yield f"{role}: {text}" if role else text


def _num_words(record: Mapping[str, Any]) -> int:
  """Returns how many words manifests count: no thoughts, and nothing of options."""
  turns = record.get("messages") or ()
  said = [str(turn.get("content") or "") for turn in turns]
  return sum(map(words.num_words, [str(record.get("text", "")), *said]))


def _turns(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  if "text" in record:
    yield "", str(record["text"])
  for message in record.get("messages") or ():
    if message.get("reasoning_content"):
      yield f"{message.get('role')}, thinking", str(message["reasoning_content"])
    yield str(message.get("role")), str(message.get("content") or "")
  for option in record.get("options") or ():
    yield "option", json.dumps(option, ensure_ascii=False)
