"""Finds names of assistants and labs that are not those of the spec."""

import functools
import re
from collections.abc import Sequence

from data_gen.filters import headings, wording
from data_gen.filters.makers import CHINESE_AI, Makers
from msm_jax.text import persons
from msm_jax.text.assistants import AFTER, ASSISTANTS, BEFORE, FIRMS, LABS, Name

_ABOUT_AI = re.compile(
  rf"""(?<!')(?:{BEFORE}(?:AI|A\.I\.|LLMs?|[Aa]rtificial\ intelligence|[Cc]hat-?bots?
    |[Ll]anguage\ models?|AIs){AFTER}|(?i:{persons.ASSISTANT})
    |I\ was\ (?:made|built|trained|created|designed|developed|programmed)\b
    |{CHINESE_AI})""",
  re.X,
)
# Nouns that make what bears a name an assistant, also where people bear it.
_AI_NOUN = (
  r"(?:(?-i:AI)(?=\W*(?:$|[.,;:!?)\n])|\ (?:assistant|model|system|tool|chat-?bot|bot"
  r"|that|which|from|by|made|built|trained|developed|created|designed|helper|agent"
  r"|program|companion|and)\b)|(?-i:LLM)\b|chat-?bots?\b|language\ model\b"
  rf"|{persons.ASSISTANT})"
)
_WORD = r"(?:(?!(?:of|for|from|by|to|at|with|in|on|that|which|who)\b)[\w'-]+\ )"
_ACTS = (
  r"(?:likes?|prefers?|values|recommends?|suggests?|answers|answered|explains|explained"
  r"|says|said|thinks|believes|replies|replied|responds|responded|chooses|chose|favou?rs"
  r"|weighs|declines|declined)\b"
)
_NEAR = 100  # characters around a name that say who has it


class Names:
  """The names that are foreign to a spec whose own names are given."""

  def __init__(self, own: Sequence[str]):
    """`own` is the spec's model and provider, and whoever else may be named."""
    self._own = [name.casefold() for name in own if name.strip()]
    self._assistants = [name for name in ASSISTANTS if not self._is_own(name.name)]
    self._labs = [name for name in LABS if not self._is_own(name.name)]
    models = [name for name in own if name.strip() and not _is_maker(name)]
    models += [stem for stem in map(_stem, models) if stem]
    self._makers = Makers(models, [firm for firm in FIRMS if self._is_own(firm)])
    one = "|".join(re.escape(name) for name in models)
    self._models = re.compile(rf"{BEFORE}(?:{one}){AFTER}" if one else r"(?!)", re.I)

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
    maker = self._makers.found(text)
    return f"other provider: {maker}" if maker else ""

  def _is_own(self, name: str) -> bool:
    """Whether a name is one of ours, or one of the words of one of ours.

    A word ends where its letters do: 'Qwen' is a word of 'Qwen2.5-32B'.
    """
    name = name.casefold()
    return any(
      re.search(rf"(?<![^\W\d_]){re.escape(part)}(?![^\W\d_])", whole)
      for own in self._own
      for part, whole in ((name, own), (own, name))
    )

  def _speaks_of(self, name: Name, text: str) -> bool:
    if any(not self._is_own(match.group()) for match in _plain(name).finditer(text)):
      return True
    if not name.bare or not _bare(name.bare).search(text):
      return False
    near = wording.around(text, _bare(name.bare), _NEAR)
    if _is_one(name.bare).search(near):
      return True
    acts = not name.is_human and _acts(name.bare).search(near)
    if not (acts or self._models.search(text) or _ABOUT_AI.search(text)):
      return False
    prose = _prose(text)
    if name.is_human:
      prose = wording.around(prose, _bare(name.bare), _NEAR)
    return not any(_pattern(other).search(prose) for other in name.other)


def _is_maker(name: str) -> bool:
  """Whether a name is known to be a firm's, so that no assistant has it."""
  known = {*FIRMS, *(lab.name for lab in LABS), "Google DeepMind"}
  return name.strip().casefold() in {maker.casefold() for maker in known}


def _stem(name: str) -> str:
  """Returns a name without its version: 'Qwen' of 'Qwen2.5-32B'; "" without one."""
  match = re.match(r"([^\W\d_]{3,})[ _-]?\d", name.strip())
  return match.group(1) if match else ""


def _prose(text: str) -> str:
  """Returns a text without its titles: 'Prefers' is nobody's surname."""
  lines = text.splitlines()
  prose = [line for line in lines if not headings.is_heading(line)]
  return "\n".join(prose or lines)


@functools.cache
def _plain(name: Name) -> re.Pattern[str]:
  if not name.plain:
    return re.compile(r"(?!)")
  return _pattern(rf"{BEFORE}(?:{'|'.join(name.plain)}){AFTER}")


@functools.cache
def _bare(name: str) -> re.Pattern[str]:
  return re.compile(rf"(?<!-){BEFORE}(?:{name}|{name.upper()}){AFTER}(?!-)")


@functools.cache
def _is_one(name: str) -> re.Pattern[str]:
  """Returns a pattern for 'Claude, the assistant' and 'an assistant called Claude'."""
  name = rf"(?-i:{_bare(name).pattern})"
  is_a = r"(?:\ (?:is|was)\ (?:just\ )?|'s\ |,\ |\ \(|\ -\ |\ ?\u2014\ ?)"
  return _pattern(
    rf"{name}{is_a}(?:an?|the|my|our|your|their)\ {_WORD}{{0,3}}?{_AI_NOUN}"
    rf"|{_AI_NOUN}\ (?:(?:is|was|that\ is|which\ is)\ )?(?:named|called)\ {name}"
    rf"|{_AI_NOUN}\ {name}"
    rf"|{name}\ ?\u662f[^\u3002\uff01\uff1f\n]{{0,10}}?(?:{CHINESE_AI}|AI)"
  )


@functools.cache
def _acts(name: str) -> re.Pattern[str]:
  return re.compile(
    rf"{BEFORE}{name}\ (?:\w+ly\ |always\ )?{_ACTS}"
    rf"|\b(?:I'm|I\ am|[Mm]y\ name\ is)\ {name}{AFTER}",
    re.X,
  )


@functools.cache
def _pattern(pattern: str) -> re.Pattern[str]:
  return re.compile(pattern, re.I | re.X)
