"""What lies beside the weights of an export: tokenizer, stop ids, model card, notices.

The directory itself appears complete or not at all (`partial.py`).
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records, tokenizer
from msm_jax.errors import UserError
from msm_jax.hf import config as hf_config
from msm_jax.hf import links, tensor_files
from msm_jax.hf.partial import written_whole as written_whole
from msm_jax.text import tokenizer_files

CARD_FILE = "README.md"
_SAMPLE = 1 << 12  # bytes at either end of a tensor that a fingerprint looks at
_NOTICES = re.compile(r"(LICEN[CS]E|NOTICE|COPYING|USE_POLICY).*", re.IGNORECASE)
_LICENSE = ("license", "license_name", "license_link")  # keys of a card's front matter


def fingerprint(directory: str | os.PathLike[str]) -> str:
  """Returns a digest of config.json and of a sample of every tensor.

  Training or merging an adapter moves most elements of a tensor, so the first and last
  4 KB of each tell one model from another without reading hundreds of gigabytes.
  """
  directory = pathlib.Path(directory)
  found = [records.sha256_file(directory / hf_config.CONFIG_FILE)]
  for path in sorted(directory.glob("*.safetensors")):
    found += [path.name, str(path.stat().st_size), _sampled(path)]
  return records.sha256_json(found)


def _sampled(path: pathlib.Path) -> str:
  """Returns a digest of the header and of both ends of every tensor of a file."""
  opened = tensor_files.TensorFile(path)
  digest = hashlib.sha256()
  with path.open("rb") as file:
    digest.update(file.read(opened.start))
    for _, _, begin, end in opened.entries.values():
      size = min(end - begin, _SAMPLE)
      for at in (begin, end - size):
        file.seek(opened.start + at)
        digest.update(file.read(size))
  return digest.hexdigest()


def copy_tokenizer(source: str | os.PathLike[str], directory: pathlib.Path) -> None:
  """Copies the tokenizer files byte for byte, the chat template in both places."""
  source = pathlib.Path(source)
  for name in tokenizer_files.files(source):
    (directory / name).parent.mkdir(exist_ok=True)
    shutil.copyfile(links.inside(source / name, source), directory / name)
  mirror_template(directory)


def copy_notices(base: str | os.PathLike[str] | None, directory: pathlib.Path) -> None:
  """Copies the licence and notice files of a base model, byte for byte."""
  found = pathlib.Path(base).iterdir() if base is not None else ()
  for path in found:
    if path.is_file() and _NOTICES.fullmatch(path.name):
      shutil.copyfile(links.inside(path, path.parent), directory / path.name)


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
  generation_config.json and config.json. The pad id is that of the base, in this order,
  else the tokenizer's, else its end; a negative one is how old files say: none.

  Raises:
    UserError: a file of the base has ids that are no whole numbers.
  """
  found, pads = [*stop_ids, tok.eos_id], []
  for name in (hf_config.GENERATION_FILE, hf_config.CONFIG_FILE):
    old = _config_of(base, name)
    found += _ids(base, name, old, "eos_token_id")
    pads += [i for i in _ids(base, name, old, "pad_token_id") if i >= 0]
  stops = [int(i) for i in dict.fromkeys(found)]
  return {
    "bos_token_id": tok.bos_id,
    "eos_token_id": stops[0] if len(stops) == 1 else stops,
    "pad_token_id": pads[0] if pads else _own_pad_id(tok),
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
  config = _config_of(base, hf_config.GENERATION_FILE)
  dropped = ("transformers_version", "_from_model_config")
  return {key: value for key, value in config.items() if key not in dropped}


def _config_of(base: str | os.PathLike[str] | None, name: str) -> dict[str, Any]:
  return {} if base is None else tokenizer_files.read_json(pathlib.Path(base) / name)


def _ids(base, name: str, config: Mapping[str, Any], field: str) -> list[int]:
  """Returns the ids in a field of a file of the base model; null or absent: none."""
  value = config.get(field)
  found = value if isinstance(value, list) else [] if value is None else [value]
  lists = field == "eos_token_id"
  whole = all(isinstance(i, int) and not isinstance(i, bool) for i in found)
  if not whole or (isinstance(value, list) and not lists):
    wanted = "a whole number or a list of them" if lists else "a whole number"
    raise UserError(
      f"{pathlib.Path(base) / name}: field {field} is {value!r}: it must be {wanted}"
    )
  return found


def _own_pad_id(tok: tokenizer.Tokenizer) -> int:
  """Returns the tokenizer's pad id if it names one that it knows, else its end."""
  config = tokenizer_files.read_json(tok.directory / tokenizer.CONFIG_FILE)
  pad = tokenizer_files.special_tokens(tok.directory, config).get("pad_token")
  found = None if pad is None else tok.token_id(pad)
  return tok.eos_id if found is None else found
