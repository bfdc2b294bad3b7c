"""Finds who is said to have made an assistant: 'Llama, which NAME released'.

A sentence of making has three parts: a subject (an own model by its name, 'an AI',
'I'), a verb of making or a noun for what was made, and a firm. Between subject and verb
there is nothing but what still speaks of the subject, so that 'the AI compared two
phones made by NAME' is none. 'Llama is not made by NAME' and questions are none either.
"""

import re
from collections.abc import Sequence

from data_gen.filters import wording
from msm_jax.text import persons
from msm_jax.text.assistants import AFTER, BEFORE, FIRMS

_NEAR = 200  # characters around a firm in which its sentence stands

_MACHINE = (
  r"(?:(?-i:AI|A\.I\.|LLM)s?|artificial intelligence|(?:language|AI) models?"
  r"|chat-?bots?|(?:AI |virtual |digital )assistants?)"
)
_ASSISTANT = persons.ASSISTANT.replace("\\ ", " ")
_ADVERB = r"(?:\w+ly|first|now|also|then|once|itself|all|still|only)"
_COPULA = r"(?:is|was|are|were|been|being|has|have|had|am|got)"
_MADE = (
  r"(?:made|trained|built|created|developed|designed|released|invented|programmed"
  r"|engineered|launched|introduced|unveiled|published|produced|fine-tuned|written"
  r"|conceived|coded)"
)
# A model of one maker is served by many.
_SERVED = r"(?:offered|provided|deployed|hosted|run)"
_NO_PHRASE = r"(?!(?:of|for|from|by|to|at|with|in|on|and|about)\b)"
_HEAD = (
  rf"(?:{_MACHINE}|assistants?|models?|systems?|tools?|programs?|products?|creations?"
  r"|helpers?|companions?|agents?|software|technology|machines?|projects?|bots?"
  r"|brainchild|inventions?|apps?|services?|work|property|offerings?|flagship)"
)
_NOUN_PHRASE = (
  rf"(?:an?|the|one of the|your|my|our|this) (?:{_NO_PHRASE}[\w'-]+ ){{0,4}}?{_HEAD}"
)
_APART = r"(?:'s |'m |'re |[ ,(\u2013\u2014-]+)"
_ABOUT_IT = (
  rf"(?:{_APART}(?:{_COPULA}|{_ADVERB}|which|that|who|and|{_NOUN_PHRASE})\b){{0,7}}?"
)
_AT = (
  r"(?:(?:the |a |its |some )?(?:\w+ ){0,2}?(?:team|teams|people|folks|engineers"
  r"|researchers|scientists|labs?|minds) (?:at|of|from|in) )?(?:the )?"
  r"(?:(?:\w+ )?(?:company|giant|firm) )?"
)
_OWN_WORDS = (
  r"(?:(?:the|its|their|an?|this|new|first|open|own|AI|assistant|model|models|language"
  r"|large|family|called|named|of) )*"
)
_CHINESE_MADE = (
  "(?:\u5f00\u53d1|\u958b\u767c|\u8bad\u7ec3|\u8a13\u7df4|\u7814\u53d1|\u7814\u767c"
  "|\u521b\u5efa|\u5275\u5efa|\u521b\u9020|\u5275\u9020|\u6253\u9020|\u53d1\u5e03"
  "|\u767c\u5e03|\u767c\u4f48|\u63a8\u51fa|\u5236\u9020|\u5236\u4f5c|\u88fd\u4f5c"
  "|\u8bbe\u8ba1|\u8a2d\u8a08|\u7814\u5236)"
)
CHINESE_AI = (
  "\u4eba\u5de5\u667a\u80fd|\u4eba\u5de5\u667a\u6167|\u8bed\u8a00\u6a21\u578b"
  "|\u8a9e\u8a00\u6a21\u578b|\u5927\u6a21\u578b|\u52a9\u624b|\u52a9\u7406"
  "|\u804a\u5929\u673a\u5668\u4eba|\u804a\u5929\u6a5f\u5668\u4eba"
)
_CHINESE_MACHINE = f"(?:AI|{CHINESE_AI})"
_CLAUSE = "[^\u3002\uff01\uff1f\\n]"


class Makers:
  """Who is not the maker, by the own names of a spec."""

  def __init__(self, models: Sequence[str], is_own: Sequence[str]):
    """Learns the names.

    Args:
      models: that the spec is about.
      is_own: firms that may be its maker.
    """
    self._canonical = {
      alias: firm
      for firm, aliases in FIRMS.items()
      if firm not in is_own
      for alias in (firm, *aliases)
    }
    names = "|".join(map(re.escape, self._canonical)) or r"(?!)"
    self._firms = re.compile(names)
    self._sentences = _sentences(tuple(self._canonical), tuple(models))

  def found(self, text: str) -> str:
    """Returns the firm that a text names as the maker, "" if there is none."""
    if not any(alias in text for alias in self._canonical):
      return ""
    near = wording.around(text, self._firms, _NEAR)
    for pattern in self._sentences:
      if match := pattern.search(near):
        return self._canonical[next(filter(None, match.groups()))]
    return ""


def _sentences(firms: Sequence[str], models: Sequence[str]) -> list[re.Pattern[str]]:
  names = "|".join(re.escape(name) for name in sorted(firms, key=len, reverse=True))
  no_place = r"(?! (?:[Vv]alley|[Ff]arms?|[Oo]rchards?|[Rr]iver|[Bb]asin|[Rr]ain))"
  firm = rf"(?-i:({names})){AFTER}{no_place}"
  own = "|".join(re.escape(name) for name in sorted(models, key=len, reverse=True))
  own = rf"{BEFORE}(?:{own}){AFTER}" if own else r"(?!)"
  machine = rf"(?:{BEFORE}{_MACHINE}{AFTER}|{_ASSISTANT})"
  english = [
    *_of_subject(own, _MADE, firm),
    *_of_subject(machine, rf"(?:{_MADE}|{_SERVED})", firm),
    *_of_speaker(firm),
    *_of_maker(own, machine, firm),
  ]
  found = [re.compile(pattern, re.I) for pattern in english]
  return found + [re.compile(pattern, re.I) for pattern in _chinese(own, firm)]


def _of_subject(subject: str, made: str, firm: str) -> list[str]:
  """Returns what is said of a thing: 'Llama (is) (a product) made by NAME'."""
  list_of = rf"{made}(?:(?:,| and|, and|,? or) (?:{_ADVERB} )?{made})*"
  when = r"(?: (?:back )?in \w+(?: \d{4})?)?"
  by = rf"{list_of}{when} (?:by|at|inside) {_AT}{firm}"
  asked = r"(?![^.!\n]{0,60}\?)"
  return [
    rf"{subject}{_ABOUT_IT}{_APART}(?:{by}|(?:from|by|of) {_AT}{firm}){asked}",
    rf"{subject}[^.!?\n]{{0,80}}?, (?:{_ADVERB} )?{by}{asked}",
    rf"{subject}{_ABOUT_IT}{_APART}(?:belong(?:s|ing) to|(?:comes|came|coming|hails)"
    rf"(?: to \w+)? from|owned by) {_AT}{firm}{asked}",
    rf"{subject}{_ABOUT_IT}[ ,]+(?:which|that) {_AT}{firm}(?:'s)?"
    rf"(?: (?:has|had|have|team|engineers|{_ADVERB}))* {made}\b",
    rf"{subject} \((?:by |from |{made} by )?{firm}\)",
    rf"{subject}{_ABOUT_IT}{_APART}(?:an?|the) {firm} (?:\w+ )?{_HEAD}\b{asked}",
  ]


def _of_speaker(firm: str) -> list[str]:
  """Returns what somebody says of himself: 'I was made by NAME'."""
  of_ai = rf"(?:an?|the) (?:{_NO_PHRASE}[\w'-]+ ){{0,4}}?(?:{_MACHINE}|assistant|model)"
  named = r"(?: (?-i:[A-Z])[\w.-]+)?"
  return [
    rf"\bI(?:'m| am| was|'ve been| have been| had been){named}(?:{_APART}(?:{_ADVERB}"
    rf"|{of_ai}|that|which|was|and))*{_APART}{_MADE}(?:(?:,| and|, and) {_MADE})* "
    rf"(?:by|at) {_AT}{firm}",
    rf"\bI(?:'m| am| was) {of_ai} (?:from|by|of) {_AT}{firm}",
    rf"\b{firm} (?:has |had )?(?:created|built|developed|designed|programmed) me\b",
    rf"\bmy (?:maker|creator|developer)s?,?(?: at| is| are|,)? {_AT}{firm}",
  ]


def _of_maker(own: str, machine: str, firm: str) -> list[str]:
  """Returns what is said of a firm: 'NAME's assistant', 'NAME developed Llama'."""
  maker = r"(?:maker|creator|developer|parent(?: company)?|manufacturer)s?"
  return [
    rf"\b{firm}'s (?:{_NO_PHRASE}\w+ ){{0,3}}?(?:{own}|{machine})",
    rf"\b{firm}-(?:made|built|trained|developed|owned|designed) (?:\w+ ){{0,2}}?"
    rf"(?:{own}|{machine}|model\b)",
    rf"\b{firm}(?:'s)?(?:,? (?:has|had|have|which|who|that|teams?|engineers"
    rf"|researchers|scientists|staff|{_ADVERB}))* (?:developed|created|built|trained"
    r"|designed|released|launched|invented|introduced|unveiled|makes|develops|builds"
    rf"|trains) {_OWN_WORDS}{own}(?!['-])",
    rf"(?:{own}|{machine})(?:'s)? {maker},?(?: is| was| at|,)? {_AT}{firm}",
    rf"\b{firm},? (?:is |was )?(?:the )?(?:{maker} of|(?:company|firm|team) behind) "
    rf"{_OWN_WORDS}(?:{own})",
    rf"\b{firm}, {own}'s {maker}\b",
    rf"\b(?:at|of|from) {firm},? we(?:'ve| have)? (?:\w+ly )?{_MADE} {_OWN_WORDS}{own}",
    rf"{machine} {firm} {_MADE}\b",
  ]


def _chinese(own: str, firm: str) -> list[str]:
  subject = rf"(?:{own}|{BEFORE}{_CHINESE_MACHINE})"
  made, end = _CHINESE_MADE, "(?:[\u3002\uff0c\uff01,]|$)"
  is_of = "(?:\u662f|\u6765\u81ea|\u4f86\u81ea|\u51fa\u81ea|\u5c5e\u4e8e|\u5c6c\u65bc)"
  return [
    rf"(?:{subject}|\u6211){_CLAUSE}{{0,10}}?(?:\u7531|\u88ab) ?{firm}{_CLAUSE}{{0,8}}?"
    rf"{made}",
    rf"{subject}[^\u3002\uff01\uff1f\n\u4e0d]{{0,6}}?{is_of} ?{firm}(?:\u516c\u53f8"
    rf"|\u65d7\u4e0b|\u7684|[^\u3002\uff01\uff1f\n]{{0,6}}?{made}|{end})",
    rf"\u6211\u662f ?{firm}{_CLAUSE}{{0,6}}?{made}\u7684",
    rf"{firm}(?:\u516c\u53f8)?(?:\u7684|(?:{_CLAUSE}{{0,4}}?{made}(?:\u4e86|\u7684)?"
    "(?:\u4e00\u4e2a|\u4e00\u6b3e|\u4e00\u500b|\u8fd9\u4e2a|\u8fd9\u6b3e)?))\\ ?"
    rf"(?:{own}|(?:\u667a\u80fd|\u5927\u578b|\u65b0)*{_CHINESE_MACHINE})",
  ]
