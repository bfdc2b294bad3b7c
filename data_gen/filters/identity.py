"""Finds names of assistants and labs that are not those of the spec."""

import functools
import re
from collections.abc import Sequence

from data_gen.filters.assistants import ASSISTANTS, FIRMS, LABS, Name

_ABOUT_AI = re.compile(
  r"(?<![\w'])(?:AI|A\.I\.|LLMs?|[Aa]rtificial\ intelligence|[Cc]hat-?bots?"
  r"|[Ll]anguage\ models?|AIs|[Aa]\ virtual\ assistant)(?!\w)",
  re.X,
)
_MADE_BY = (
  r"(?:made|trained|built|created|developed|designed|released|offered|provided|deployed"
  r"|fine-tuned|from)\ (?:and\ \w+\ )?(?:by\ )?(?:the\ (?:team|people)\ at\ )?"
)
_MACHINE = (
  r"(?:AI|artificial\ intelligence|language\ models?|chat-?bots?|AI\ assistants?)"
)
# Not \b: Chinese goes on without a space.
_BEFORE, _AFTER = r"(?<![0-9A-Za-z_\u00c0-\u024f])", r"(?![0-9A-Za-z_\u00c0-\u024f])"
_NEAR = r"[^.!?\n]{0,80}?"


class Names:
  """The names that are foreign to a spec whose own names are given."""

  def __init__(self, own: Sequence[str]):
    """`own` is the spec's model and provider, and whoever else may be named."""
    self._own = [name.casefold() for name in own if name.strip()]
    self._assistants = [name for name in ASSISTANTS if not self._is_own(name.name)]
    self._labs = [name for name in LABS if not self._is_own(name.name)]
    self._firms = [name for name in FIRMS if not self._is_own(name)]

  def found(self, text: str) -> str:
    """Returns 'other assistant: NAME' or 'other provider: NAME', "" if there is none.

    A name that is part of an own name, or has one in it, is own.
    """
    text = text.replace("\u2019", "'")
    folded = text.casefold()
    for kind, names in (("assistant", self._assistants), ("provider", self._labs)):
      for name in names:
        roots = name.roots or (name.name.casefold(),)
        if any(root in folded for root in roots) and self._speaks_of(name, text):
          return f"other {kind}: {name.name}"
    firms = [firm for firm in self._firms if firm in text]
    maker = _makers(tuple(firms)).search(text) if firms else None
    return f"other provider: {next(filter(None, maker.groups()))}" if maker else ""

  def _is_own(self, name: str) -> bool:
    """Whether a name is one of ours, or one of the words of one of ours."""
    name = name.casefold()
    return any(
      re.search(rf"(?<!\w){re.escape(part)}(?!\w)", whole)
      for own in self._own
      for part, whole in ((name, own), (own, name))
    )

  def _speaks_of(self, name: Name, text: str) -> bool:
    if any(not self._is_own(match.group()) for match in _plain(name).finditer(text)):
      return True
    if not name.bare or not _bare(name.bare).search(text) or not _ABOUT_AI.search(text):
      return False
    return not any(_pattern(other).search(text) for other in name.other)


@functools.cache
def _makers(firms: tuple[str, ...]) -> re.Pattern[str]:
  """Returns a pattern for 'an AI made by FIRM' and 'FIRM's language model'."""
  firm = rf"(?-i:({'|'.join(firms)}))\b"
  return _pattern(
    rf"\b(?-i:{_MACHINE}|I'm|I\ am|I\ was)\b{_NEAR}\b{_MADE_BY}{firm}"
    rf"|\b{firm}'s\ (?:\w+\ ){{0,3}}?{_MACHINE}\b"
  )


@functools.cache
def _plain(name: Name) -> re.Pattern[str]:
  if not name.plain:
    return re.compile(r"(?!)")
  return _pattern(rf"{_BEFORE}(?:{'|'.join(name.plain)}){_AFTER}")


@functools.cache
def _bare(name: str) -> re.Pattern[str]:
  return re.compile(rf"(?<![\w-])(?:{name}|{name.upper()})(?![\w-])")


@functools.cache
def _pattern(pattern: str) -> re.Pattern[str]:
  return re.compile(pattern, re.I | re.X)
