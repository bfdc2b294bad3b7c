"""Where the rows lie: a file, a glob, a folder, also as Hugging Face lays one out.

Of a folder that somebody else made nothing is believed that leads out of it.
"""

import dataclasses
import glob
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_gen.importing import dataset_card, saved_dataset
from data_gen.importing.settings import ImportCorpus
from msm_jax.errors import UserError
from msm_jax.storage import inputs

# Ending -> format; `json` is one list, or lines in spite of its name.
_ENDINGS = {
  ".jsonl": "jsonl",
  ".ndjson": "jsonl",
  ".json": "json",
  ".parquet": "parquet",
  ".arrow": "arrow",
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
FORMATS = ".jsonl, .json (both also .gz or .zst), .parquet, .arrow"
# Files beside the data that are none.
_ABOUT = {
  "config.json",
  "corpus.json",
  "dataset_dict.json",
  "dataset_info.json",
  "dataset_infos.json",
  "manifest.json",
  "package.json",
  "rejects.jsonl",
  "state.json",
}
_SHARD = re.compile(r"(?:^|/)([\w.]+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?\.[a-z.]+$")
_SPLIT_WORDS = {
  "train": "train",
  "training": "train",
  "validation": "validation",
  "valid": "validation",
  "val": "validation",
  "dev": "validation",
  "test": "test",
  "testing": "test",
  "eval": "test",
  "evaluation": "test",
}
_WORD = re.compile(r"[^ ._0-9/-]+")


@dataclasses.dataclass(frozen=True)
class SourceFile:
  """One file of rows; `name` is its path below the folder, for people and hashes."""

  path: pathlib.Path
  name: str
  format: str
  compression: str | None
  size: int


@dataclasses.dataclass(frozen=True)
class Source:
  """The files of one import, in order, and what the folder says about them."""

  files: tuple[SourceFile, ...]
  root: pathlib.Path
  split: str | None = None
  card: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  @property
  def num_bytes(self) -> int:
    """Bytes of all files as they lie there."""
    return sum(file.size for file in self.files)


def find(name: str, corpus: ImportCorpus) -> Source:
  """Returns the files of `config.corpora.<name>`.

  Raises:
    UserError: nothing is there, it is no data, it leads out of its folder, or there
      are several splits or subsets and none was chosen.
  """
  where = f"config.corpora.{name}"
  if is_to_come(corpus):
    raise UserError(
      f"{where}.path={corpus.path} does not exist: download {corpus.source} there, or "
      "set it to where that lies"
    )
  path = inputs.matching(corpus.path, f"{where}.path")
  if path.is_dir():
    return _folder(where, corpus, _snapshot(path))
  for field in ("split", "subset"):
    if getattr(corpus, field) is not None:
      raise UserError(
        f"{where}.{field} is {getattr(corpus, field)!r}, but {where}.path={path} is no "
        f"folder: set it to None"
      )
  if path.exists() or not set("*?[") & set(str(path)):
    return Source((_file(where, path, path.name),), path.parent)
  return _glob(where, path)


def exists(corpus: ImportCorpus) -> bool:
  """Returns whether there is anything at the path of a corpus."""
  if inputs.is_remote(corpus.path):
    return inputs.exists(inputs.root_of(corpus.path))
  path = pathlib.Path(corpus.path).expanduser()
  return path.exists() or bool(glob.glob(str(path), recursive=True))


def is_to_come(corpus: ImportCorpus) -> bool:
  """Returns whether a corpus says what is to be downloaded, and it is not there yet."""
  return corpus.source is not None and not exists(corpus)


def _glob(where: str, pattern: pathlib.Path) -> Source:
  found = sorted(filter(os.path.isfile, glob.glob(str(pattern), recursive=True)))
  if not found:
    raise UserError(f"{where}.path={pattern} matches no file: check the pattern")
  root = pathlib.Path(os.path.commonpath([os.path.dirname(path) for path in found]))
  files = [
    _file(where, pathlib.Path(path), os.path.relpath(path, root)) for path in found
  ]
  return Source(_one_format(where, files), root)


def _snapshot(path: pathlib.Path) -> pathlib.Path:
  """Returns the snapshot in a folder of the hub's cache, else the folder itself."""
  main = path / "refs" / "main"
  if path.name.startswith("datasets--") and main.is_file():
    return path / "snapshots" / pathlib.PurePath(main.read_text("utf-8").strip()).name
  return path


def _folder(where: str, corpus: ImportCorpus, root: pathlib.Path) -> Source:
  saved = saved_dataset.read(where, root)
  card = {} if saved is not None else dataset_card.read(root)
  splits = saved
  if splits is None:
    splits = dataset_card.data_files(where, root, card, corpus.subset)
  elif corpus.subset is not None:
    raise UserError(f"{where}.subset is {corpus.subset!r}, but {root} has none")
  if splits is None:
    splits = _guess_splits(where, root, _walk(root))
  split, paths = _choose(where, root, splits, corpus.split)
  files = [_inside(where, root, path) for path in paths]
  return Source(_one_format(where, files), root, split, card)


def _choose(
  where: str, root: pathlib.Path, splits: Mapping[str | None, list], wanted: str | None
) -> tuple[str | None, list[pathlib.Path]]:
  names = [split for split in splits if split is not None]
  if wanted is not None and wanted not in splits:
    raise UserError(
      f"{where}.split is {wanted!r}: {root} has {', '.join(names) or 'no splits'}"
    )
  if wanted is None and len(splits) > 1:
    raise UserError(
      f"{where}.path={root} has the splits {', '.join(names)}: choose one with "
      f"{where}.split"
    )
  split = wanted if wanted is not None else next(iter(splits))
  return split, splits[split]


def _walk(root: pathlib.Path) -> list[pathlib.Path]:
  """Returns the data files below `root`; linked folders are not entered."""
  found = []
  for folder, folders, names in os.walk(root):
    folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
    found += [
      pathlib.Path(folder, name)
      for name in sorted(names)
      if _format(name) and name not in _ABOUT and not name.startswith(".")
    ]
  return found


def _guess_splits(
  where: str, root: pathlib.Path, paths: Iterable[pathlib.Path]
) -> dict[str | None, list[pathlib.Path]]:
  """Returns split -> files by the names that Hugging Face understands."""
  splits: dict[str | None, list[pathlib.Path]] = {}
  for path in paths:
    split = split_of(path.relative_to(root).as_posix())
    splits.setdefault(split, []).append(path)
  if not splits:
    raise UserError(
      f"{where}.path={root} has no file that can be read: it takes {FORMATS}"
    )
  if None in splits and len(splits) > 1:
    raise UserError(
      f"{where}.path={root}: {splits[None][0].name} belongs to no split, others do "
      f"({', '.join(filter(None, splits))}): name the files with a glob"
    )
  return splits


def split_of(name: str) -> str | None:
  """Returns the split that a file name speaks of: `data/train-00000-of-00002...`."""
  shard = _SHARD.search(name)
  if shard and shard[1] != "data":
    return shard[1]
  words = [_SPLIT_WORDS[word] for word in _WORD.findall(name) if word in _SPLIT_WORDS]
  return words[-1] if words else None


def _one_format(where: str, files: list[SourceFile]) -> tuple[SourceFile, ...]:
  formats = {file.format: file.name for file in files}
  if len(formats) > 1:
    raise UserError(
      f"{where}.path has files of several formats ({', '.join(formats.values())}), "
      "perhaps the same rows twice: name those of one format with a glob"
    )
  return tuple(files)


def _inside(where: str, root: pathlib.Path, path: pathlib.Path) -> SourceFile:
  """Returns a file that a folder names, unless it lies elsewhere."""
  home = root.resolve()
  # The hub's cache links each file of a snapshot to a blob beside the snapshots.
  homes = [home]
  if home.parent.name == "snapshots":
    homes.append(home.parent.parent / "blobs")
  try:
    real = path.resolve(strict=True)
  except (OSError, RuntimeError) as error:  # missing, or a link that goes in a circle
    reason = getattr(error, "strerror", None) or "symbolic links go in a circle"
    raise UserError(f"{where}.path: {path} cannot be read ({reason})") from None
  if not any(real.is_relative_to(place) for place in homes):
    raise UserError(
      f"{where}.path: {path} leads out of {root}: name the file itself if you trust it"
    )
  return _file(where, path, path.relative_to(root).as_posix())


def _file(where: str, path: pathlib.Path, name: str) -> SourceFile:
  kind = _format(path.name)
  if path.exists() and kind is None:
    raise UserError(f"{where}.path: {path} cannot be read: it takes {FORMATS}")
  if not path.is_file():
    raise UserError(f"{where}.path={path} does not exist or is no file: check the path")
  if not name.isprintable():
    raise UserError(
      f"{where}.path: the name {name!a} is not plain text: rename the file"
    )
  return SourceFile(path, name, *kind, path.stat().st_size)


def _format(name: str) -> tuple[str, str | None] | None:
  """Returns (format, compression) by the ending of a name, None for other files."""
  base, ending = os.path.splitext(name.lower())
  compression = _COMPRESSIONS.get(ending)
  if compression is not None:
    ending = os.path.splitext(base)[1]
  found = _ENDINGS.get(ending)
  if found is None or (compression and not found.startswith("json")):
    return None
  return found, compression
