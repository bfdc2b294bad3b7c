"""Folders that `save_to_disk` of Hugging Face datasets has written."""

import pathlib

from msm_jax import records
from msm_jax.errors import UserError

_DICT, _STATE = "dataset_dict.json", "state.json"


def read(where: str, root: pathlib.Path) -> dict[str | None, list[pathlib.Path]] | None:
  """Returns split -> arrow files, None if `root` is no such folder.

  Raises:
    UserError: the folder names files that are not in it, or was saved with an index
      that is applied on reading.
  """
  if (root / _DICT).is_file():
    splits = _names(where, root / _DICT, records.read_json(root / _DICT), "splits")
    return {split: _files(where, root / split) for split in splits}
  if (root / _STATE).is_file():
    return {None: _files(where, root)}
  return None


def _files(where: str, folder: pathlib.Path) -> list[pathlib.Path]:
  try:
    state = records.read_json(folder / _STATE)
  except FileNotFoundError:
    raise UserError(
      f"{where}.path: {folder / _STATE} is missing: save the dataset again"
    ) from None
  if not isinstance(state, dict):
    state = {}
  if state.get("_indices_data_files") or state.get("_indices_files"):
    raise UserError(
      f"{where}.path: {folder} was saved with an index beside the rows: save it again "
      "after .flatten_indices()"
    )
  data = state.get("_data_files")
  names = [f.get("filename") if isinstance(f, dict) else None for f in data or ()]
  checked = _names(where, folder / _STATE, {"_data_files": names}, "_data_files")
  return [folder / name for name in checked]


def _names(where: str, path: pathlib.Path, value: object, key: str) -> list[str]:
  """Returns the plain names under `key`: no name leads out of the folder."""
  names = value.get(key) if isinstance(value, dict) else None
  if not isinstance(names, list) or not names:
    raise UserError(f"{where}.path: {path} has no {key}: save the dataset again")
  for name in names:
    plain = isinstance(name, str) and name == pathlib.PurePath(name).name
    if not plain or name in ("", ".", ".."):
      raise UserError(f"{where}.path: {path} names {name!r}, which is no plain name")
  return names
