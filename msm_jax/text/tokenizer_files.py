"""What a tokenizer directory says beside its vocabulary.

tokenizer.json | tokenizer.model   the vocabulary; the first one wins
tokenizer_config.json              special tokens, added tokens, chat template
special_tokens_map.json            special tokens that the config does not name
added_tokens.json                  added tokens, the old way
chat_template.jinja                wins over the key in the config
additional_chat_templates/*.jinja  further ones, by name
"""

import dataclasses
import os
import pathlib
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.text import chat_template
from msm_jax.text.encoders import AddedToken

CONFIG_FILE = "tokenizer_config.json"
JSON_FILE = "tokenizer.json"
MODEL_FILE = "tokenizer.model"
MODEL_FILES = (MODEL_FILE, "spiece.model")
VOCABULARIES = (JSON_FILE, *MODEL_FILES)
TEMPLATE_FILE = chat_template.FILE
SPECIAL_FILE = "special_tokens_map.json"
ADDED_FILE = "added_tokens.json"
_FILES = (
  *VOCABULARIES,
  CONFIG_FILE,
  TEMPLATE_FILE,
  SPECIAL_FILE,
  ADDED_FILE,
  "vocab.json",  # for readers that do not know tokenizer.json
  "merges.txt",
  "tekken.json",
)
_NAMED = tuple(
  f"{name}_token" for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask")
)
_FLAGS = tuple(field.name for field in dataclasses.fields(AddedToken))


def files(directory: str | os.PathLike[str]) -> list[str]:
  """Returns the names of the files that make a tokenizer and its chat templates."""
  directory = pathlib.Path(directory)
  more = sorted((directory / chat_template.FOLDER).glob("*.jinja"))
  return [
    *(name for name in _FILES if (directory / name).is_file()),
    *(path.relative_to(directory).as_posix() for path in more),
  ]


def special_tokens(directory: pathlib.Path, config: dict) -> dict[str, str]:
  """Returns the named special tokens: bos_token, eos_token, ..."""
  fallback = read_json(directory / SPECIAL_FILE)
  found = {name: config.get(name, fallback.get(name)) for name in _NAMED}
  return {k: _content(v) for k, v in found.items() if v is not None}


def added_tokens(
  directory: pathlib.Path, config: dict, special: dict[str, str]
) -> list[AddedToken]:
  """Returns what is cut out of a text, by its number; each token once."""
  try:
    return _added(directory, config, special)
  except (AttributeError, KeyError, TypeError, ValueError) as error:
    raise UserError(
      f"{directory}: the added tokens in {CONFIG_FILE} or {ADDED_FILE} have no form "
      f"that is known ({error!r})"
    ) from None


def _added(directory, config: dict, special: dict[str, str]) -> list[AddedToken]:
  found = {}
  for index, entry in config.get("added_tokens_decoder", {}).items():
    entry = {"content": entry} if isinstance(entry, str) else entry
    flags = {name: entry[name] for name in _FLAGS if name in entry}
    found[entry["content"]] = AddedToken(index=int(index), **flags)
  for content, index in read_json(directory / ADDED_FILE).items():
    found.setdefault(content, AddedToken(content=content, index=int(index)))
  for content in [*special.values(), *_extra_tokens(config)]:
    found.setdefault(content, AddedToken(content=content))
  return sorted(found.values(), key=lambda t: (t.index is None, t.index or 0))


def _extra_tokens(config: dict) -> list[str]:
  """Returns special tokens without a role; the key has two names and two forms."""
  found = config.get("extra_special_tokens", config.get("additional_special_tokens"))
  found = found.values() if isinstance(found, dict) else found
  return [_content(token) for token in found or ()]


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Returns the object in a JSON file, an empty one if there is no such file."""
  try:
    found = records.read_json(path) if path.exists() else {}
  except ValueError as error:
    raise UserError(f"{path} is not JSON ({error})") from None
  if not isinstance(found, dict):
    raise UserError(f"{path} is not a JSON object")
  return found


def _content(token: str | dict) -> str:
  return token["content"] if isinstance(token, dict) else token
