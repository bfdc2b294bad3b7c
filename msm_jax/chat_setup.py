"""A pretrained model's tokenizer becomes a study's: copied, its chat template settled.

What `config.tokenizer` says about the template is written into the copy (as file and as
key, for new and old readers), so that rows, evaluations and exports have the same one.
"""

import dataclasses
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

from msm_jax import chat, records, tokenizer
from msm_jax import fields as fields_lib
from msm_jax.errors import UserError
from msm_jax.hf import directory as hf_directory
from msm_jax.hf import links
from msm_jax.text import chat_template, tokenizer_files
from msm_jax.text.chat_template import Choices
from msm_jax.tokenizer import Tokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ChatSettings(Choices):
  """`config.tokenizer` of a study that begins from a pretrained model.

  Attributes:
    chat_template: None (the model's own), `chatml`, `llama3`, `gemma`, or a .jinja
      file; a base model has none of its own.
  """

  chat_template: str | None = None

  def choices(self) -> Choices:
    """Returns what is written into the template."""
    own = {field.name for field in dataclasses.fields(Choices)}
    return Choices(**{k: v for k, v in self.chosen().items() if k in own})

  def identity(self) -> dict[str, str]:
    """Returns what a tokenizer directory depends on beside the files of its source."""
    found = self.chosen()
    if self.chat_template is not None:
      text = chat_template.read(self.chat_template)
      found["chat_template"] = records.sha256_bytes(text.encode("utf-8"))
    return found


def settings(section: Mapping[str, Any], *, from_run: bool = True) -> ChatSettings:
  """Returns what `config.tokenizer` says about a pretrained model's tokenizer.

  A section about training a tokenizer (with `model_type`) says nothing about it: such
  a study that begins from a run takes the tokenizer of that run as it is.

  Raises:
    UserError: an unknown field or value; a section about training a tokenizer beside a
      Hugging Face model (`from_run` False), which brings its own.
  """
  if "model_type" in section:
    if not from_run:
      raise UserError(
        f"config.tokenizer.model_type is {section['model_type']!r}, but the model of "
        "config.model.init_from brings its own tokenizer and none is trained: remove "
        "model_type, vocab_size and train_on"
      )
    return ChatSettings()
  return fields_lib.build(ChatSettings, section, "config.tokenizer")


def install(
  source: pathlib.Path, target: pathlib.Path, made: ChatSettings
) -> Tokenizer:
  """Makes `target` the tokenizer of `source` with its chat template as set.

  Raises:
    UserError: the template does not go with the settings or with the tokenizer; a file
      is a link that leads out of `source`.
  """
  tok = tokenizer.load(source)
  templates = _templates(tok, made)
  with hf_directory.written_whole(target) as new:
    for name in tokenizer_files.files(source):
      (new / name).parent.mkdir(exist_ok=True)
      shutil.copyfile(links.inside(source / name, source), new / name)
    if templates != tok.templates:
      _write(new, templates)
    hf_directory.mirror_template(new)
    try:
      chat.facts(tokenizer.load(new))  # refuses now what would be refused later
    except UserError as error:
      raise UserError(str(error).replace(str(new), str(source))) from None
  return tokenizer.load(target)


def _templates(tok: Tokenizer, made: ChatSettings) -> Mapping[str, str]:
  templates = tok.templates
  if made.chat_template is not None:
    templates = {"default": _chosen(tok, made.chat_template)}
  choices = made.choices()
  if "default" not in templates:
    if choices.chosen():
      raise UserError(
        f"config.tokenizer.{next(iter(choices.chosen()))} is set, but {tok.directory} "
        "has no chat template: set config.tokenizer.chat_template to one of "
        f"{tuple(chat_template.BUILT_IN)} or a .jinja file"
      )
    return templates
  baked = {k: chat_template.bake(text, choices) for k, text in templates.items()}
  chosen = chat_template.choices(baked["default"])
  chat_template.check_thinking(baked["default"], chosen.thinking, str(tok.directory))
  return baked


def _chosen(tok: Tokenizer, choice: str) -> str:
  text = chat_template.read(choice)
  for token in chat_template.BUILT_IN.get(choice, ()):
    found = tok.encode(token).ids
    if len(found) != 1 or found[0] != tok.token_id(token):
      raise UserError(
        f"config.tokenizer.chat_template {choice!r} writes {token}, which is not one "
        f"token of {tok.directory} but {len(found)}: use a template whose tokens it has"
      )
  if choice == "chatml" and tok.bos_id is not None:
    # Chats begin as documents do.
    text = "{{- bos_token }}\n" + text
  return text


def _write(directory: pathlib.Path, templates: Mapping[str, str]) -> None:
  path_of_config = directory / tokenizer.CONFIG_FILE
  config: dict[str, Any] = tokenizer_files.read_json(path_of_config)
  shutil.rmtree(directory / chat_template.FOLDER, ignore_errors=True)
  for name, text in templates.items():
    path = directory / chat_template.FILE
    if name != "default":
      path = directory / chat_template.FOLDER / f"{name}.jinja"
      path.parent.mkdir(exist_ok=True)
    records.write_file(path, text.encode("utf-8"))
  named = [{"name": name, "template": text} for name, text in templates.items()]
  config["chat_template"] = templates["default"] if len(named) == 1 else named
  records.write_json(path_of_config, config)
