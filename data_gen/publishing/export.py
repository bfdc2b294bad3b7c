"""A corpus to a folder that others can load: JSON lines or Parquet, and a dataset card.

    OUT/data/train-00000-of-00002.parquet    every record with its provenance
    OUT/README.md                            what it is, how it was made, what was lost
    OUT/corpus.json                          types of the columns, the manifest
    OUT/pairs.jsonl                          the prompts that test a poison
    OUT/rejects/rejects.jsonl                if asked for

The folder loads with `datasets.load_dataset(OUT)`, and imports here as it was. It
appears whole or not at all.
"""

import collections
import contextlib
import importlib.metadata
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

from data_gen import arrow_files, columns, filters
from data_gen.importing.corpus import EXPORT_NOTE, NOTE_FORMAT, REJECTS
from data_gen.publishing import card as publishing_card
from data_gen.rewrites import poisoning
from msm_jax import errors, progress, records
from msm_jax.storage import outputs

LAYOUTS = ("jsonl", "parquet")
_BYTES_PER_FILE = 256 << 20


def export(
  corpus: pathlib.Path,
  out: str | os.PathLike[str],
  *,
  layout: str,
  license: str | None = None,
  language: str | None = None,
  with_rejects: bool = False,
  git_revision: str | None = None,
) -> None:
  """Writes the corpus in directory `corpus` to the new directory `out`.

  Args:
    corpus: `WORKDIR/corpus/<name>`.
    out: must not exist; may be in a bucket.
    layout: 'jsonl' or 'parquet'.
    license, language: for the card; default: what the manifest says.
    with_rejects: also write what was not kept.
    git_revision: of this code.

  Raises:
    UserError: there is no whole corpus, `out` exists, or pyarrow is missing.
  """
  if layout not in LAYOUTS:
    raise errors.UserError(f"--format={layout}: a corpus is exported as jsonl, parquet")
  if layout == "parquet":
    arrow_files.require("--format=parquet")
  manifest = records.read_manifest(corpus)
  if "kind" not in manifest or not manifest.get("num_records"):
    raise errors.UserError(f"{corpus} is no corpus with records: name one of corpus/")
  records.shard_paths(corpus)  # damage is named before anything is written
  with outputs.place(out, "--out") as place, _whole(place) as folder:
    facts = _survey(corpus, manifest)
    files = _write_rows(corpus, folder, layout, facts)
    code = _code(corpus.parent.parent / "versions.json", git_revision)
    card = publishing_card.card(
      manifest, facts, layout, license=license, language=language, code=code
    )
    (folder / "README.md").write_text(card, "utf-8")
    note = {"format": NOTE_FORMAT, "columns": facts.types, "files": files}
    records.write_json(folder / EXPORT_NOTE, {**note, "manifest": manifest})
    if (corpus / poisoning.PAIRS).exists():
      shutil.copyfile(corpus / poisoning.PAIRS, folder / poisoning.PAIRS)
    if with_rejects and (corpus / REJECTS).exists():
      (folder / "rejects").mkdir()
      shutil.copyfile(corpus / REJECTS, folder / "rejects" / REJECTS)


def _code(versions: pathlib.Path, git_revision: str | None) -> dict[str, str | None]:
  """Returns which code the workdir was begun with, and which one exports it."""
  begun = records.read_json(versions) if versions.exists() else {}
  return {
    "begun with git revision": begun.get("git_revision"),
    "exported with git revision": git_revision,
    "exported with msm-jax": importlib.metadata.version("msm-jax"),
  }


def _survey(corpus: pathlib.Path, manifest: Mapping[str, Any]) -> publishing_card.Facts:
  """Reads the corpus once: its columns, and the figures of its card."""
  table, facts = columns.Columns(), publishing_card.Facts()
  total = manifest["num_records"]
  with progress.Progress("export: looking at records", total, "records") as bar:
    for record in records.read_dataset(corpus, verify=False):
      table.add(record)
      facts.add(record)
      bar.advance()
  facts.types = table.types()
  facts.rejected = _reasons(corpus / REJECTS)
  return facts


def _reasons(path: pathlib.Path) -> collections.Counter[tuple[str, str]]:
  """Returns how many were rejected by (stage, kind of reason)."""
  counts: collections.Counter[tuple[str, str]] = collections.Counter()
  if path.exists():
    with path.open(encoding="utf-8") as file:
      for row in map(json.loads, file):
        where = str(row.get("stage", "")), filters.category(str(row.get("reason", "")))
        counts[where] += 1
  return counts


def _write_rows(
  corpus: pathlib.Path, folder: pathlib.Path, layout: str, facts: publishing_card.Facts
) -> list[dict[str, Any]]:
  """Writes the data files and returns path, num_records and sha256 of each."""
  num_files = max(1, math.ceil(facts.num_bytes / _BYTES_PER_FILE))
  per_file = math.ceil(facts.num_records / num_files)
  num_files = math.ceil(facts.num_records / per_file)
  (folder / "data").mkdir()
  found = []
  with progress.Progress("export: writing", facts.num_records, "records") as bar:
    rows = _rows(corpus, facts.types, bar)
    for i in range(num_files):
      path = folder / "data" / f"train-{i:05d}-of-{num_files:05d}.{layout}"
      count = min(per_file, facts.num_records - i * per_file)
      some = (next(rows) for _ in range(count))
      if layout == "parquet":
        arrow_files.write_parquet(path, some, list(facts.types.items()))
      else:
        _write_lines(path, some)
      name = path.relative_to(folder).as_posix()
      digest = records.sha256_file(path)
      found.append({"path": name, "num_records": count, "sha256": digest})
  return found


def _rows(
  corpus: pathlib.Path, types: Mapping[str, Any], bar: progress.Progress
) -> Iterator[dict[str, Any]]:
  for record in records.read_dataset(corpus, verify=False):
    bar.advance()
    yield columns.row(record, types)


def _write_lines(path: pathlib.Path, rows: Iterator[Mapping[str, Any]]) -> None:
  with path.open("w", encoding="utf-8", newline="\n") as file:
    for row in rows:
      file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


@contextlib.contextmanager
def _whole(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """Gives a temporary folder that becomes `out` when all went well."""
  if out.exists() or out.is_symlink():
    raise errors.UserError(
      f"--out={out} exists already: choose another, or delete it first"
    )
  out.parent.mkdir(parents=True, exist_ok=True)
  temporary = out.with_name(f".{out.name}.tmp-{os.getpid()}")
  shutil.rmtree(temporary, ignore_errors=True)
  temporary.mkdir()
  try:
    yield temporary
    _sync(temporary)
    os.replace(temporary, out)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)


def _sync(folder: pathlib.Path) -> None:
  """Flushes everything in a folder to disk, so that what has its name is there."""
  for path in [folder, *folder.rglob("*")]:
    handle = os.open(path, os.O_RDONLY)
    try:
      os.fsync(handle)
    finally:
      os.close(handle)
