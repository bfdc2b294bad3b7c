"""What gives away that a text is not whole: gaps, remains, fences, ends.

Each function returns the words at fault, or "" for a text without fault.
"""

import re
from collections.abc import Sequence

from data_gen.filters import words
from msm_jax.words import num_words

_SIGN_OFF_WORDS = 8  # a last line as short as this may be a signature, a tag, a heading

_THING = (
  r"(?:name|date|address|title|company|city|state|country|phone|number|email|e-mail"
  r"|signature|link|url|website|time|location|organi[sz]ation|institution|university"
  r"|publication|department|position|recipient|sender|author|topic|amount|price|age|role)"
)
_PLACEHOLDER = re.compile(
  rf"""(?i:\[\s*(?:insert|enter|add|fill\ in|placeholder|your|to\ be\ \w+ed)\b
      [^\]\n]{{0,80}}\](?!\()
    |\[(?:(?:full|first|last|company|author|recipient|sender|contact|publication|current
      |phone|email|street|job|school|organi[sz]ation|product|brand|store|local|client
      |customer|today's|the|his|her|their|user|model|provider|assistant|institution
      |university|department|city|state)[\s/,'s]*)*{_THING}s?(?:\s*\d|\s+here)?\s*\](?!\()
    |<\s*(?:insert|enter|your)\b[^>\n]{{0,60}}>|\blorem\ ipsum\b)
    |\{{\{{\s*\w+\s*\}}\}}|\{{(?:[a-z]+(?:_[a-z]+)+|name|date|city|company)\}}
    |\bXX?[/-]XX?[/-]XXXX\b|\(?\bXXX\)?[-\ ]XXX-XXXX\b
    |\bTODO:|\bTBD\b|\[(?:TBD|TODO|XXX|\.\.\.|\u2026)\]""",
  re.X,
)
_GAP_SIGNS = ("[", "{", "<", "XX", "TODO:", "TBD", "orem ipsum", "OREM IPSUM")
_TAG = re.compile(
  r"""</?(?:scratch[-_]?pad|think|thinking|thoughts?|reasoning|planning|plan|analysis
      |reflections?|brainstorm(?:ing)?|critique|draft|final[-_]?(?:draft|answer|document
      |version)|content|document|output|answer|response|revised[-_]?\w*|instructions?
      |document[-_]?\w+|assistant|user|human|system)>
    |<\|[a-z_]{2,30}\|>|\[/?INST\]""",
  re.I | re.X,
)
_FENCED = re.compile(r"\s*(`{3,}|~{3,})[^\n]*\n(.*)\n\s*\1\s*", re.S)
_CLOSING = " \t\n\"'\u201d\u2019\u00bb)]}*_`>~|\u300d\u300f\uff09\u3011\u300b"
_ENDS = ".!?\u2026\u3002\uff01\uff1f\u061f\u0964:\uff1a"
_OPEN_ENDS = ",;-\u2013\u2014(/&\uff0c\u3001\uff1b"
# Words that no text ends with.
_FUNCTION_WORDS = (
  "a an the of and or but nor to in on at by for from with without into onto than "
  "that which who whose whom because although though while if unless until since as "
  "is are was were be been being has have had will would can could shall should may "
  "might must not very our your their its my this these those between among about"
)
_UNFINISHED = frozenset(_FUNCTION_WORDS.split())


def placeholder(text: str) -> str:
  """Finds a gap that was left to be filled: '[Insert name]', '{model_name}'."""
  text = straight(text)
  return found(_PLACEHOLDER, text) if has(text, _GAP_SIGNS) else ""


def leftover_tag(text: str) -> str:
  """Finds a tag of a prompt's or a template's: '<scratchpad>', '<|im_end|>'."""
  return found(_TAG, text)


def fence(text: str) -> str:
  """Finds a markdown fence around the whole text."""
  match = _FENCED.fullmatch(text)
  return match.group(1) if match and match.group(1) not in match.group(2) else ""


def truncated(text: str) -> str:
  """Finds a text that stops in the middle of a sentence.

  A short last line after others needs no full stop (a signature, a tag, an item of a
  list) unless it ends with a word or a sign that asks for more.
  """
  lines = [line for line in text.splitlines() if line.strip()]
  if not lines:
    return ""
  last = lines[-1].rstrip(_CLOSING)
  if not last or last.endswith(tuple(_ENDS)):
    return ""
  tail = last[-60:].strip()
  ending = words.words(last.rsplit(None, 1)[-1]) if last.split() else []
  if last.endswith(tuple(_OPEN_ENDS)) or (ending and ending[-1] in _UNFINISHED):
    return tail
  if len(lines) > 1 and (_is_no_prose(lines[-1]) or _is_short(last)):
    return ""
  return tail


def _is_short(line: str) -> bool:
  first = next((sign for sign in line if sign.isalnum()), "")
  return num_words(line) <= _SIGN_OFF_WORDS and not first.islower()


def _is_no_prose(line: str) -> bool:
  """Whether a line is of a list, a table, a heading, tags or a link."""
  line = line.strip()
  return line.startswith(("- ", "* ", "+ ", "|", "#", "http", "\u2022")) or bool(
    re.match(r"\(?\d+[.)]\s", line)
  )


def straight(text: str) -> str:
  """Returns a text whose apostrophes are straight."""
  return text.replace("\u2019", "'")


def around(text: str, pattern: re.Pattern[str], width: int) -> str:
  """Returns the lines' parts of `width` characters on both sides of each match.

  Patterns that begin with anything are slow: they are for these parts only.
  """
  found, last = [], 0
  for match in pattern.finditer(text):
    begin = max(match.start() - width, text.rfind("\n", 0, match.start()) + 1, 0)
    line = text.find("\n", match.end())
    end = min(match.end() + width, len(text) if line < 0 else line)
    if found and begin < last:
      found[-1] += text[last:end]
    else:
      found.append(text[begin:end])
    last = max(last, end)
  return "\n".join(found)


def has(text: str, signs: Sequence[str]) -> bool:
  """Whether it is worth while to search: patterns are slow, `in` is not."""
  return any(sign in text for sign in signs)


def found(pattern: re.Pattern[str], text: str) -> str:
  """Returns the words that a pattern is of, shortened; "" if it is of none."""
  match = pattern.search(text)
  return " ".join(match.group().split())[:80] if match else ""
