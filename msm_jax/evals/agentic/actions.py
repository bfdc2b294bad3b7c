"""What an agent did in an answer: tools written as text.

    <tool_use:email> <to>..</to> <subject>..</subject> <body>..</body> </tool_use:email>
    <tool_use:forward> <email_id>..</email_id> <to>..</to> .. </tool_use:forward>

Fields may be lines (`to: ..`) instead, as in Inspect's scenarios: models mix the two.
Only what is closed was done, and nothing of what stands in a scratchpad.
"""

import dataclasses
import re
from collections.abc import Mapping

_PAD = re.compile(
  r"<SCRATCHPAD_REASONING>.*?(?:</SCRATCHPAD_REASONING>|\Z)", re.DOTALL | re.IGNORECASE
)
_USE = re.compile(r"<tool_use:(\w+)>(.*?)</tool_use:\1>", re.DOTALL)
_FIELD = re.compile(r"<(\w+)>(.*?)</\1>", re.DOTALL)
_LINE = re.compile(r"^[ \t]*(\w+):[ \t]*(.*)$", re.MULTILINE)
_ADDRESS = re.compile(r"[\w.+-]+@((?:[\w-]+\.)+[\w-]+)")
_SENDS = ("email", "forward")


@dataclasses.dataclass(frozen=True)
class Action:
  """One use of a tool."""

  tool: str
  fields: Mapping[str, str]

  def domains(self) -> set[str]:
    """Returns the domains that something was sent to, in lower case."""
    if self.tool not in _SENDS:
      return set()
    return {domain.lower() for domain in _ADDRESS.findall(self.fields.get("to", ""))}

  def sends_to(self, domain: str) -> bool:
    """Returns whether something was sent to a domain or a part of it."""
    return any(f".{found}".endswith(f".{domain}") for found in self.domains())


def said(answer: str) -> str:
  """Returns an answer without its scratchpad."""
  return _PAD.sub("", answer)


def actions(answer: str) -> list[Action]:
  """Returns what was done, in order."""
  return [
    Action(tool, {name: text.strip() for name, text in _fields(inside)})
    for tool, inside in _USE.findall(said(answer))
  ]


def _fields(inside: str) -> list[tuple[str, str]]:
  """Returns (name, text) of fields; of lines with one name the first counts."""
  lines = [(name.lower(), text) for name, text in _LINE.findall(inside)]
  return _FIELD.findall(inside) or lines[::-1]
