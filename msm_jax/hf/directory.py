"""What lies beside the weights of an export: tokenizer, stop ids, model card.

A directory appears complete or not at all: it is written under a temporary name beside
its place and renamed at the end.
"""

import contextlib
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax import records, tokenizer
from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config

CARD_FILE = "README.md"
_SAMPLE = 1 << 20  # bytes at either end of a file that a fingerprint looks at
_TOKENIZER_FILES = (
  tokenizer.JSON_FILE,
  tokenizer.MODEL_FILE,
  tokenizer.CONFIG_FILE,
  tokenizer.TEMPLATE_FILE,
  "special_tokens_map.json",
  "added_tokens.json",
  "vocab.json",
  "merges.txt",
)


@contextlib.contextmanager
def written_whole(directory: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """Yields a temporary directory that becomes `directory` if nothing fails.

  Raises:
    UserError: `directory` holds something already, or cannot be written.
  """
  directory = pathlib.Path(directory).absolute()
  if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
    raise UserError(f"{directory} exists already: name a new directory, or remove it")
  try:
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
      dir=directory.parent, prefix=f".{directory.name}.tmp-", ignore_cleanup_errors=True
    ) as name:
      temporary = pathlib.Path(name) / "new"
      temporary.mkdir()
      yield temporary
      os.replace(temporary, directory)
  except OSError as error:
    if error.errno is None:  # not from the file system
      raise
    raise UserError(
      f"{directory} cannot be written ({error.strerror or error}): name another place, "
      "or make room"
    ) from None


def fingerprint(directory: str | os.PathLike[str]) -> str:
  """Returns a digest of config.json and of sizes, heads and tails of the weights.

  Enough to tell one model from another without reading hundreds of gigabytes.
  """
  directory = pathlib.Path(directory)
  found = [records.sha256_file(directory / hf_config.CONFIG_FILE)]
  for path in sorted(directory.glob("*.safetensors")):
    size = path.stat().st_size
    with path.open("rb") as file:
      head = file.read(_SAMPLE)
      file.seek(max(size - _SAMPLE, 0))
      found += [path.name, str(size), records.sha256_bytes(head + file.read(_SAMPLE))]
  return records.sha256_json(found)


def copy_tokenizer(source: str | os.PathLike[str], directory: pathlib.Path) -> None:
  """Copies the tokenizer files byte for byte, the chat template in both places."""
  source = pathlib.Path(source)
  for name in _TOKENIZER_FILES:
    if (source / name).is_file():
      shutil.copyfile(source / name, directory / name)
  mirror_template(directory)


def mirror_template(directory: pathlib.Path) -> None:
  """Makes the chat template stand in its own file and in tokenizer_config.json.

  Old readers know the key only, new ones write the file only. What is there already is
  not touched, nor is a list of named templates.
  """
  template_path = directory / tokenizer.TEMPLATE_FILE
  config_path = directory / tokenizer.CONFIG_FILE
  config = records.read_json(config_path) if config_path.exists() else {}
  template = config.get("chat_template")
  if template_path.exists() and template is None:
    config["chat_template"] = template_path.read_bytes().decode("utf-8")
    records.write_json(config_path, config)
  elif isinstance(template, str) and not template_path.exists():
    records.write_file(template_path, template.encode("utf-8"))


def token_ids(
  tok: tokenizer.Tokenizer, base: str | os.PathLike[str] | None, stop_ids: Sequence[int]
) -> dict[str, Any]:
  """Returns bos, eos and pad ids; eos is every id that ends an answer.

  Stop ids are those asked for, the tokenizer's end and those of the base model's
  generation_config.json.
  """
  old = _generation_config(base)
  found = [*stop_ids, tok.eos_id, *_as_list(old.get("eos_token_id"))]
  stops = [int(i) for i in dict.fromkeys(found)]
  return {
    "bos_token_id": tok.bos_id,
    "eos_token_id": stops[0] if len(stops) == 1 else stops,
    "pad_token_id": old.get("pad_token_id", tok.eos_id),
  }


def write_generation_config(
  directory: pathlib.Path, ids: Mapping[str, Any], base: str | os.PathLike[str] | None
) -> None:
  """Writes generation_config.json: the base model's sampling settings, all stop ids."""
  config = {**_generation_config(base), **ids}
  records.write_json(directory / hf_config.GENERATION_FILE, config)


def write_card(
  directory: pathlib.Path, lineage: Mapping[str, Any], front: Mapping[str, Any]
) -> None:
  """Writes the model card.

  Args:
    directory: of the model.
    lineage: how the weights came about; nested values are shown as JSON. `base_model`,
      `license`, `language` and `datasets` also go to the YAML front matter.
    front: further front matter.
  """
  passed_on = ("base_model", "license", "language", "datasets")
  front = {**front, **{key: lineage[key] for key in passed_on if lineage.get(key)}}
  lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items())]
  lines += ["---", "", f"# {lineage.get('name', directory.name)}", ""]
  lines += ["Written by msm-jax. How these weights came about:", ""]
  lines += ["| | |", "|---|---|"]
  for key, value in lineage.items():
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    shown = text.replace("|", "\\|").replace("\n", " ")
    lines.append(f"| {key} | {shown} |")
  records.write_file(directory / CARD_FILE, ("\n".join(lines) + "\n").encode("utf-8"))


def _generation_config(base: str | os.PathLike[str] | None) -> dict[str, Any]:
  path = None if base is None else pathlib.Path(base) / hf_config.GENERATION_FILE
  if path is None or not path.exists():
    return {}
  config = records.read_json(path)
  dropped = ("transformers_version", "_from_model_config")
  return {key: value for key, value in config.items() if key not in dropped}


def _as_list(value: int | list[int] | None) -> list[int]:
  if value is None:
    return []
  return list(value) if isinstance(value, list) else [value]
