"""What lies beside the weights of an export: tokenizer, stop ids, model card, notices.

The directory itself appears complete or not at all (`partial.py`).
"""

import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records, tokenizer
from msm_jax.hf import config as hf_config
from msm_jax.hf.partial import written_whole as written_whole

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
  "spiece.model",
  "tekken.json",
)
_TEMPLATES = "additional_chat_templates"  # a folder of named ones
_NOTICES = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|USE_POLICY).*", re.IGNORECASE)
_LICENSE = ("license", "license_name", "license_link")  # keys of a card's front matter


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
  for path in sorted((source / _TEMPLATES).glob("*.jinja")):
    (directory / _TEMPLATES).mkdir(exist_ok=True)
    shutil.copyfile(path, directory / _TEMPLATES / path.name)
  mirror_template(directory)


def copy_notices(base: str | os.PathLike[str] | None, directory: pathlib.Path) -> None:
  """Copies the licence and notice files of a base model, byte for byte."""
  found = pathlib.Path(base).iterdir() if base is not None else ()
  for path in found:
    if path.is_file() and _NOTICES.fullmatch(path.name):
      shutil.copyfile(path, directory / path.name)


def with_license(
  lineage: Mapping[str, Any], base: str | os.PathLike[str] | None
) -> dict[str, Any]:
  """Returns the lineage with the licence of the base model's card, unless it has one.

  What the front matter of that README.md says is taken as it stands; a list or a block
  there is not understood and left out.
  """
  path = None if base is None else pathlib.Path(base) / CARD_FILE
  if lineage.get("license") or path is None or not path.is_file():
    return dict(lineage)
  text = path.read_text("utf-8", errors="replace")
  matter = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
  pairs = re.findall(r"^(\w+):[ \t]*(\S.*?)\s*$", matter[1] if matter else "", re.M)
  found = {key: value.strip("'\"") for key, value in pairs if key in _LICENSE}
  plain = {key: value for key, value in found.items() if value[:1] not in "[{|>&*"}
  return {**lineage, **plain} if "license" in plain else dict(lineage)


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
      the licence, `language` and `datasets` also go to the YAML front matter.
    front: further front matter.
  """
  passed_on = ("base_model", *_LICENSE, "language", "datasets")
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
