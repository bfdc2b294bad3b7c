"""The text of a chat template: built-in ones, and a study's choices written into one.

What a study decides about its template (reasoning or none, a system prompt, a date) is
written in front of the template itself, between two marks:

    {#- msm-jax {"thinking": "strip"} #}
    {%- set enable_thinking = false %}
    {#- msm-jax end #}
    ... the model's own template ...

So training, evaluation, sampling and whoever serves an export render the same text, and
nobody has to remember an argument.
"""

import dataclasses
import datetime
import importlib.resources
import json
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from msm_jax.errors import UserError
from msm_jax.storage import inputs

FILE = "chat_template.jinja"
FOLDER = "additional_chat_templates"
_CONFIG_FILE = "tokenizer_config.json"
THINKING = ("keep", "strip", "no_think")
# The tokens that a built-in template writes; a tokenizer must have each as one id.
BUILT_IN = {
  "chatml": ("<|im_start|>", "<|im_end|>"),
  "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
  "gemma": ("<start_of_turn>", "<end_of_turn>"),
}
_BEGIN, _END = "{#- msm-jax ", "{#- msm-jax end #}\n"
_MARKED = re.compile(re.escape(_BEGIN) + r"(\{.*?\}) #\}\n", re.DOTALL)
_SWITCH_OFF = "{%- set enable_thinking = false %}\n"
_SWITCH_ON = "{%- set enable_thinking = true %}\n"
_NO_THINK = """\
{%- set msm_jax = namespace(messages=[]) %}
{%- for message in messages %}
{%- if message.role == 'user' and message.content is string
       and not message.content.endswith('/no_think')
       and not message.content.startswith('<tool_response>') %}
{%- set soft = dict(message, content=message.content + ' /no_think') %}
{%- set msm_jax.messages = msm_jax.messages + [soft] %}
{%- else %}
{%- set msm_jax.messages = msm_jax.messages + [message] %}
{%- endif %}
{%- endfor %}
{%- set messages = msm_jax.messages %}
"""
_SYSTEM = """\
{%%- if not messages or messages[0].role != 'system' %%}
{%%- set messages = [{'role': 'system', 'content': %s}] + messages %%}
{%%- endif %%}
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choices:
  """What a study decides about a chat template; None leaves it to the template.

  Attributes:
    thinking: `keep` (reasoning is shown and trained), `strip` (no reasoning: where the
      template has an empty think block it is context, the answer is trained) or
      `no_think` (`/no_think` ends each user turn; the model writes the empty block).
    system_prompt: put in front of every conversation that has no system message.
    date: YYYY-MM-DD, what a template that writes today's date gets to see; without it
      such a template is refused, because rows and answers would depend on the day. A
      server of the exported model still sees its own day.
  """

  thinking: str | None = None
  system_prompt: str | None = None
  date: str | None = None

  def __post_init__(self):
    if self.thinking not in (None, *THINKING):
      raise UserError(
        f"config.tokenizer.thinking {self.thinking!r} is not None or one of {THINKING}"
      )
    if self.system_prompt is not None and not isinstance(self.system_prompt, str):
      raise UserError("config.tokenizer.system_prompt is not a text, nor None")
    try:
      datetime.date.fromisoformat(self.date or "2000-01-01")
    except (TypeError, ValueError):
      raise UserError(
        f"config.tokenizer.date {self.date!r} is not a day like '2026-01-31'"
      ) from None

  def chosen(self) -> dict[str, str]:
    """Returns what is not left to the template."""
    return {k: v for k, v in dataclasses.asdict(self).items() if v is not None}


def choices(template: str | None) -> Choices:
  """Returns the choices that `bake` wrote into a template."""
  match = _MARKED.match(template or "")
  return Choices(**json.loads(match[1])) if match else Choices()


def original(template: str) -> str:
  """Returns a template without what `bake` wrote."""
  if _MARKED.match(template) is None:
    return template
  return template[template.index(_END) + len(_END) :]


def bake(template: str, made: Choices) -> str:
  """Returns the template with choices written in front, over those already there."""
  made = Choices(**(choices(template).chosen() | made.chosen()))
  if not made.chosen():
    return template
  # A comment must not hold its own end.
  note = json.dumps(made.chosen()).replace("#", "\\u0023")
  parts = [f"{_BEGIN}{note} #}}\n"]
  if made.system_prompt is not None:
    parts.append(_SYSTEM % _literal(made.system_prompt))
  parts += {
    "keep": [_SWITCH_ON],
    "strip": [_SWITCH_OFF],
    "no_think": [_SWITCH_ON, _NO_THINK],
  }.get(made.thinking, [])
  return "".join([*parts, _END, original(template)])


def thinks(template: str) -> bool:
  """Says whether a template knows of reasoning in an answer."""
  return _has_switch(template) or bool(re.search(r"</?think>", original(template)))


def check_thinking(template: str, thinking: str | None, where: str) -> None:
  """Raises a UserError unless a choice is made exactly where there is one."""
  if thinks(template) and thinking is None:
    raise UserError(
      f"{where}: the chat template knows reasoning (<think>), so say what becomes "
      f"of it: set config.tokenizer.thinking to one of {THINKING}"
    )
  if thinking is not None and not thinks(template):
    raise UserError(
      f"config.tokenizer.thinking is {thinking!r}, but the chat template of {where} "
      "knows no reasoning: set it to None"
    )
  if thinking in ("strip", "no_think") and not _has_switch(template):
    raise UserError(
      f"config.tokenizer.thinking is {thinking!r}, but the chat template of {where} "
      "has no enable_thinking switch, its answers always reason: use 'keep'"
    )


def read(choice: str) -> str:
  """Returns a built-in template by its name, or the text of a .jinja file."""
  if choice in BUILT_IN:
    folder = importlib.resources.files("msm_jax.text") / "templates"
    return (folder / f"{choice}.jinja").read_text("utf-8")
  path = inputs.local(choice, "config.tokenizer.chat_template")
  if path.suffix != ".jinja" or not path.is_file():
    raise UserError(
      f"config.tokenizer.chat_template {choice!r} is not None, one of "
      f"{tuple(BUILT_IN)} or a .jinja file that exists"
    )
  return path.read_text("utf-8")


def of_directory(directory: pathlib.Path, config: Mapping[str, Any]) -> dict[str, str]:
  """Returns the templates of a tokenizer directory by name, `default` the usual one.

  As in transformers: files (`chat_template.jinja`, `additional_chat_templates/`) win
  over the key of tokenizer_config.json, which is one template or a list of named ones.

  Raises:
    UserError: the key is neither, or a name could not be that of a file.
  """
  found = {}
  if (directory / FILE).is_file():
    found["default"] = (directory / FILE).read_text("utf-8")
  for path in sorted((directory / FOLDER).glob("*.jinja")):
    found[path.stem] = path.read_text("utf-8")
  key = config.get("chat_template")
  if found or key is None:
    return found
  if isinstance(key, str):
    return {"default": key}
  if not isinstance(key, list) or not all(isinstance(one, dict) for one in key):
    raise UserError(
      f"{directory / _CONFIG_FILE}: chat_template is {key!r}, neither a text nor a "
      "list of named templates"
    )
  where = f"{directory / _CONFIG_FILE}: chat_template"
  return dict(_named(entry, f"{where}[{i}]") for i, entry in enumerate(key))


def _named(entry: Mapping[str, Any], where: str) -> tuple[str, str]:
  """Returns name and template of an entry; the name becomes that of a file."""
  name, text = entry.get("name"), entry.get("template")
  if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name):
    raise UserError(
      f"{where}.name is {name!r}: it must be a name of letters, digits, _ and -"
    )
  if not isinstance(text, str):
    raise UserError(f"{where}.template is {text!r}: it must be a text")
  return name, text


def _has_switch(template: str) -> bool:
  return "enable_thinking" in original(template)


def _literal(text: str) -> str:
  """Returns a jinja string literal."""
  for plain, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\r", "\\r")):
    text = text.replace(plain, escaped)
  return f'"{text}"'
