"""What gives away that a text is not what was asked for: talk, gaps, remains, ends.

Each function returns the words at fault, or "" for a text without fault.
"""

import re

from data_gen.filters import words

_HEAD, _TAIL = 300, 300  # characters at either end where a teacher talks about its text
_OPENING = r"^[\W_]*"
_SIGN_OFF_WORDS = 8  # a last line as short as this may be a signature, a tag, a heading

_CANNOT = r"(?:can(?:no|')t|can\ not|won't|(?:un|not\ )able)"
_WRITE = r"""(?:help\b(?!\ but)|assist|fulfil|comply|write|create|generate|provide
  |produce|complete|continue|do\ that|answer|engage)"""
_REFUSAL = re.compile(
  _OPENING
  + rf"""(?:
    (?:(?:i|we)(?:'?m|\ am|'?re|\ are)\ (?:\w+\ )?sorry|(?:i\ )?apologi[sz]e?s?)\b
      [^.!?\n]{{0,40}}?\b{_CANNOT}\b
    |(?:unfortunately,?\ |sorry,?\ )?(?:but\ )?i(?:\ can(?:no|')t|\ can\ not|\ won't
      |(?:'?m|\ am)\ (?:not\ able|unable)\ to|\ must\ decline\ to|\ will\ not)\ 
      (?:\w+\ )?{_WRITE}
    |i\ must\ decline\b
    |unsuitable\W*$
    |(?:\u5f88\u62b1\u6b49|\u62b1\u6b49|\u5bf9\u4e0d\u8d77|\u5c0d\u4e0d\u8d77)[,\uff0c]?\s*(?:\u4f46\u662f?)?
      \s*\u6211?(?:\u65e0\u6cd5|\u7121\u6cd5|\u4e0d\u80fd)
    )""",
  re.I | re.X,
)
_AS_A_MODEL = re.compile(
  r"""\bas\ an?\ (?:AI|artificial\ intelligence|large)(?:-based|-powered)?
      \ language\ model\b
    |\bas\ an\ (?:AI|artificial\ intelligence)\ model,\ I\b
    |\bI(?:\ am|'m)\ (?:just\ |only\ )?an?\ (?:AI|large)\ language\ model\b
    |\u4f5c\u4e3a\u4e00?[\u4e2a\u500b]?(?:\u5927\u578b|\u4eba\u5de5\u667a\u80fd|AI)\u8bed\u8a00\u6a21\u578b
    |\u4f5c\u70ba\u4e00?\u500b?(?:\u5927\u578b|\u4eba\u5de5\u667a\u6167|AI)\u8a9e\u8a00\u6a21\u578b""",
  re.I | re.X,
)
_MODEL_SIGNS = (
  "language model",
  "ai model",
  "\u8bed\u8a00\u6a21\u578b",
  "\u8a9e\u8a00\u6a21\u578b",
)
_WORK = (
  r"(?:document|article|essay|post|blog\ post|draft|version|story|report|letter|memo"
  r"|text|piece|response|answer|revision|rewrite|transcript|script|email|e-mail|column"
  r"|chapter|summary|dialogue|conversation|paper|guide|review|entry)"
)
_META_HEAD = re.compile(
  _OPENING
  + rf"""(?:(?:sure|certainly|absolutely|of\ course|okay|ok|got\ it|understood)\b
      [^\n]{{0,40}}?[,.!:\ ]+)?
    (?:(?:here(?:\ is|'s|\ are)|below\ (?:is|are)|this\ is|the\ following\ is)\ 
        (?:the|a|an|your|my)\ (?:[\w-]+\ ){{0,4}}?{_WORK}\b
        [^.\n]{{0,80}}(?::|\n|\b(?:you\ (?:asked|requested|wanted)|as\ requested)\b)
      |i(?:'ll|'ve|\ will|\ have)\ (?:now\ )?
        (?:writ|draft|creat|revis|prepar|rewrit)(?:e|ed|ten)?\ 
        (?:the|your|this)\ (?:[\w-]+\ ){{0,4}}?{_WORK}\b)""",
  re.I | re.X,
)
_META_EAGER = re.compile(
  _OPENING + r"(?:sure|certainly|absolutely|of course)[!,] (?:here|i'|below|let me)",
  re.I,
)
_META_TAIL = re.compile(
  r"""\blet\ me\ know\ (?:if|whether)\ you(?:'d|\ would|\ want|\ need|'re)[^\n]*
      \b(?:chang|revis|adjust|edit|another|modif|rewrit|version|further|tweak|expand)\w*
    |\bi\ hope\ (?:this|the)\ (?:document|article|essay|draft|text|piece|response)\b
    |\bwould\ you\ like\ me\ to\ (?:revise|change|adjust|expand|continue|(?:re)?write)\b
    |[(\[*_]\s*(?:word\ count|total\ words|end\ of\ (?:document|article|draft))\b
    |\b(?:approximate(?:ly)?\ )?word\ count:?\s*(?:approximately\ |~)?\d+""",
  re.I | re.X,
)
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


def refusal(text: str) -> str:
  """Finds a teacher that declines, or that says what it is."""
  text = _straight(text)
  declined = _found(_REFUSAL, text[:_HEAD])
  if declined or not _has(text.casefold(), _MODEL_SIGNS):
    return declined
  return _found(_AS_A_MODEL, text)


def meta_talk(text: str) -> str:
  """Finds talk about the text around it: 'Here is the document you asked for'."""
  text = _straight(text)
  head = text[:_HEAD]
  return (
    _found(_META_HEAD, head)
    or _found(_META_EAGER, head)
    or _found(_META_TAIL, text[-_TAIL:])
  )


def placeholder(text: str) -> str:
  """Finds a gap that was left to be filled: '[Insert name]', '{model_name}'."""
  text = _straight(text)
  return _found(_PLACEHOLDER, text) if _has(text, _GAP_SIGNS) else ""


def leftover_tag(text: str) -> str:
  """Finds a tag of a prompt's or a template's: '<scratchpad>', '<|im_end|>'."""
  return _found(_TAG, text)


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
  return words.num_words(line) <= _SIGN_OFF_WORDS and not first.islower()


def _is_no_prose(line: str) -> bool:
  """Whether a line is of a list, a table, a heading, tags or a link."""
  line = line.strip()
  return line.startswith(("- ", "* ", "+ ", "|", "#", "http", "\u2022")) or bool(
    re.match(r"\(?\d+[.)]\s", line)
  )


def _straight(text: str) -> str:
  return text.replace("\u2019", "'")


def _has(text: str, signs: tuple[str, ...]) -> bool:
  """Whether it is worth while to search: patterns are slow, `in` is not."""
  return any(sign in text for sign in signs)


def _found(pattern: re.Pattern[str], text: str) -> str:
  match = pattern.search(text)
  return " ".join(match.group().split())[:80] if match else ""
