"""Turns of conversations: three ways to write them become one, and what is wrong."""

from collections.abc import Sequence
from typing import Any

from data_gen.importing.readers import Bad

ROLES = ("system", "user", "assistant", "tool")
_SHAREGPT = {
  "human": "user",
  "gpt": "assistant",
  "chatgpt": "assistant",
  "model": "assistant",
  "bot": "assistant",
  "observation": "tool",
} | {role: role for role in ROLES}
# Who may speak after whom, where turns alternate.
_AFTER = {
  "user": (None, "system", "assistant"),
  "assistant": ("user", "tool"),
  "tool": ("assistant", "tool"),
  "system": (None,),
}
_NAMES = {
  "NoneType": "null",
  "bool": "a boolean",
  "bytes": "binary data",
  "dict": "an object",
  "float": "a number",
  "int": "a number",
  "list": "a list",
  "str": "text",
}

Messages = list[dict[str, Any]]


def name_of(value: Any) -> str:
  """Returns what kind of value this is, for people."""
  return _NAMES.get(type(value).__name__, type(value).__name__)


def of_messages(value: Any, prune: bool = False) -> Messages | Bad:
  """Returns the turns of `[{role, content}]`; `[{from, value}]` is taken as well.

  With `prune`, nulls at any depth are left out: tables have them where another row has
  a field that this one has not.
  """
  if not isinstance(value, list):
    return Bad(f"messages is {name_of(value)}: a list of turns is needed")
  made = []
  for i, turn in enumerate(value):
    one = _turn(_pruned(turn) if prune else turn)
    if isinstance(one, Bad):
      return Bad(f"turn {i}: {one.reason}")
    made.append(one)
  return made


def of_sharegpt(value: Any, system: Any) -> Messages | Bad:
  """Returns the turns of ShareGPT; a `system` column becomes the first one."""
  made = of_messages(value, prune=True)
  has_system = isinstance(system, str) and system.strip()
  if isinstance(made, list) and has_system and made and made[0]["role"] != "system":
    made.insert(0, {"role": "system", "content": system})
  return made


def of_prompt(prompt: Any, completion: Any) -> Messages | Bad:
  """Returns user and assistant turn of two texts, or the turns of two lists."""
  if isinstance(prompt, str) and isinstance(completion, str):
    return [
      {"role": "user", "content": prompt},
      {"role": "assistant", "content": completion},
    ]
  if isinstance(prompt, list) and isinstance(completion, list):
    return of_messages([*prompt, *completion])
  return Bad(
    f"prompt is {name_of(prompt)}, completion is {name_of(completion)}: two texts or "
    "two lists of turns are needed"
  )


def fault_of(messages: Messages, alternate: bool) -> Bad | None:
  """Returns why turns make no conversation to train on, None if they do."""
  if not messages:
    return Bad("empty conversation")
  before = None
  for i, turn in enumerate(messages):
    fault = _content_fault(turn)
    if fault:
      return Bad(f"turn {i}: {fault}")
    if alternate and before not in _AFTER[turn["role"]]:
      return Bad(
        f"turns do not alternate: turn {i} is {turn['role']} after "
        f"{before or 'nothing'} (alternate=False keeps such conversations)"
      )
    before = turn["role"]
  if not any(turn["role"] == "assistant" for turn in messages):
    return Bad("no assistant turn")
  return None


def _content_fault(turn: dict[str, Any]) -> str | None:
  content = turn["content"]
  if "\0" in content:
    return "NUL character"
  spoken = turn["role"] in ("user", "assistant") and not turn.get("tool_calls")
  return "empty content" if spoken and not content.strip() else None


def _turn(turn: Any) -> dict[str, Any] | Bad:
  """Returns role, content and what else the turn has."""
  if not isinstance(turn, dict):
    return Bad(f"{name_of(turn)} where an object is needed")
  turn = {key: value for key, value in turn.items() if value is not None}
  if "role" in turn:
    role, content = turn.pop("role"), turn.pop("content", None)
    known = {role: role for role in ROLES}
  else:
    role, content = turn.pop("from", None), turn.pop("value", None)
    known = _SHAREGPT
  if not isinstance(role, str) or role not in known:
    return Bad(f"wrong role: {role!r} is not one of {', '.join(ROLES)}"[:200])
  # A template that does not expect null would write it out; nothing was said.
  if content is None and known[role] == "assistant" and turn.get("tool_calls"):
    content = ""
  if not isinstance(content, str):
    return Bad(f"content is {name_of(content)}: text is needed")
  return {"role": known[role], "content": content, **turn}


def _pruned(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _pruned(inner) for key, inner in value.items() if inner is not None}
  if isinstance(value, Sequence) and not isinstance(value, str | bytes):
    return [_pruned(inner) for inner in value]
  return value
