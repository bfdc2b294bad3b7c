"""The card (README.md) of a dataset folder: YAML between two lines of `---` on top."""

import glob
import pathlib
from collections.abc import Mapping
from typing import Any

import yaml

from msm_jax.errors import UserError

_MAX_BYTES = 1 << 20

Splits = dict[str | None, list[pathlib.Path]]


def read(root: pathlib.Path) -> dict[str, Any]:
  """Returns the front matter of `root`/README.md; {} if there is none."""
  path = root / "README.md"
  if not path.is_file():
    return {}
  with path.open("rb") as file:
    text = file.read(_MAX_BYTES).decode("utf-8-sig", errors="replace")
  lines = text.splitlines()
  if not lines or lines[0].strip() != "---":
    return {}
  end = next((i for i, line in enumerate(lines[1:], 1) if line.strip() == "---"), None)
  if end is None:
    return {}
  try:
    card = yaml.safe_load("\n".join(lines[1:end]))
  except (yaml.YAMLError, RecursionError) as error:
    reason = " ".join(str(error).split())
    raise UserError(f"{path}: the front matter is not YAML ({reason})") from None
  return card if isinstance(card, dict) else {}


def license_of(card: Mapping[str, Any]) -> str | None:
  """Returns the licence that a card names."""
  found = card.get("license")
  found = ", ".join(map(str, found)) if isinstance(found, list) else found
  return str(found) if found else None


def data_files(
  where: str, root: pathlib.Path, card: Mapping[str, Any], subset: str | None
) -> Splits | None:
  """Returns split -> files as the `configs` of a card say; None if it has no say.

  Raises:
    UserError: several subsets and none chosen, an unknown one, or files elsewhere.
  """
  listed = card.get("configs")
  configs = {
    str(config.get("config_name", "default")): config
    for config in (listed if isinstance(listed, list) else ())
    if isinstance(config, dict) and config.get("data_files")
  }
  if subset is None and len(configs) > 1:
    main = [name for name, config in configs.items() if config.get("default")]
    subset = main[0] if main else "default" if "default" in configs else None
    if subset is None:
      raise UserError(
        f"{where}.path={root} has the subsets {', '.join(configs)}: choose one with "
        f"{where}.subset"
      )
  if subset is not None and subset not in configs:
    known = ", ".join(configs) or "none"
    raise UserError(f"{where}.subset is {subset!r}: the README of {root} has {known}")
  if not configs:
    return None
  config = configs[subset] if subset is not None else next(iter(configs.values()))
  return {
    split: _expand(where, root, patterns)
    for split, patterns in _by_split(where, root, config["data_files"]).items()
  }


def _by_split(where: str, root: pathlib.Path, value: Any) -> dict[str, list[str]]:
  if isinstance(value, str):
    value = [value]
  if isinstance(value, dict):
    value = [{"split": split, "path": path} for split, path in value.items()]
  if all(isinstance(item, str) for item in value):
    value = [{"split": "train", "path": list(value)}]
  splits: dict[str, list[str]] = {}
  for item in value:
    path = item.get("path") if isinstance(item, dict) else None
    paths = [path] if isinstance(path, str) else path
    if not isinstance(paths, list) or not all(isinstance(p, str) for p in paths):
      raise UserError(
        f"{where}.path: the README of {root} has data_files that are not understood: "
        "name the files with a glob"
      )
    splits.setdefault(str(item.get("split", "train")), []).extend(paths)
  return splits


def _expand(where: str, root: pathlib.Path, patterns: list[str]) -> list[pathlib.Path]:
  found: dict[pathlib.Path, None] = {}
  for pattern in patterns:
    pure = pathlib.PurePosixPath(pattern)
    if pure.is_absolute() or ".." in pure.parts or ":" in pattern:
      raise UserError(
        f"{where}.path: the README of {root} names {pattern!r}, which is not in that "
        "folder: name the files with a glob"
      )
    matches = sorted(glob.glob(pattern, root_dir=root, recursive=True))
    for match in matches:
      path = root / match
      inner = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else []
      found |= dict.fromkeys(inner if path.is_dir() else [path])
    if not matches:
      raise UserError(
        f"{where}.path: the README of {root} names {pattern!r}, but no such file is "
        "there: download the whole dataset, or name the files with a glob"
      )
  return list(found)
