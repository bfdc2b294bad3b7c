"""Names and dates in a text: what a teacher invents again and again."""

import re
from collections.abc import Iterator

from data_gen.filters import headings

_NAME = re.compile(
  r"(?<![\w.@/-])[A-Z][a-z\u00df-\u00ff'\u2019]+(?:-[A-Z][a-z\u00df-\u00ff]+)?"
  r"(?: (?:[A-Z]\. )?[A-Z][a-z\u00df-\u00ff'\u2019]+(?:-[A-Z][a-z\u00df-\u00ff]+)?)*"
)
# Behind these a sentence, a quotation or an item begins.
_OPENERS = '.!?:;"\u201c\u201d*_>([|-'
_ABBREVIATION = re.compile(r"\b(?:[A-Z]|Dr|Mr|Mrs|Ms|Prof|St)\.$")
_POSSESSIVE = re.compile(r"['\u2019]s?$")
# Capitalised for their place or by rule, not as a name of somebody or something.
_CAPITALISED = (
  "A About After All Also Although Always An And Another Any Are As At Be Because "
  "Before Both But By Can Could Dear Did Do Does Each Even Every Few First For From "
  "Had Has Have He Hello Her Here His How However I If In Indeed Instead Is It Its "
  "Just Last Let Many May Maybe More Most Mr Mrs Ms Dr My Never New Next No Not Now "
  "Of Often On Once One Only Or Other Our Over Perhaps Please Second She Should Since "
  "So Some Still Such Take Than Thank That The Their Then There These They This Those "
  "Though Through To Today Two Under Until Up Was We Well What When Where Whether "
  "Which While Who Why Will With Would Yes Yet You Your Monday Tuesday Wednesday "
  "Thursday Friday Saturday Sunday January February March April June July August "
  "September October November December"
)
_NO_NAMES = frozenset(_CAPITALISED.split())
_MONTHS = [
  "january",
  "february",
  "march",
  "april",
  "may",
  "june",
  "july",
  "august",
  "september",
  "october",
  "november",
  "december",
]
_MONTH = r"(?P<{}>" + "|".join(f"{m[:3]}(?:{m[3:]})?" for m in _MONTHS) + r")\.?"
_DATES = (
  re.compile(r"(?<!\d)(?P<y>(?:19|20)\d\d)-(?P<n>[01]\d)-(?P<d>[0-3]\d)(?!\d)"),
  re.compile(
    rf"\b{_MONTH.format('m')}\s+(?P<d>[0-3]?\d)(?:st|nd|rd|th)?,?\s+"
    r"(?P<y>(?:19|20)\d\d)\b",
    re.I,
  ),
  re.compile(
    rf"\b(?P<d>[0-3]?\d)(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH.format('m')},?\s+"
    r"(?P<y>(?:19|20)\d\d)\b",
    re.I,
  ),
  re.compile(
    r"(?<!\d)(?P<y>(?:19|20)\d\d)\s*\u5e74\s*(?P<n>1?\d)\s*\u6708\s*"
    r"(?P<d>[1-3]?\d)\s*[\u65e5\u53f7]"
  ),
)
_FOUR_DIGITS = re.compile(r"(?<!\d)(?:19|20)\d\d(?!\d)")
_NEAR = 24  # characters between a year and the rest of its date
_YEAR = re.compile(r"(?<![\d.,$-])(?:19|20)\d\d(?![\d%]|[.,]\d)")


def names(text: str) -> Iterator[str]:
  """Yields the capitalised names of a text in Latin script, headings left out.

  One word at the beginning of a sentence is no name: it is capitalised anyway.
  """
  for line in text.splitlines():
    if headings.is_heading(line):
      continue
    for match in _NAME.finditer(line):
      parts = match.group().split(" ")
      rest = parts
      while rest and _POSSESSIVE.sub("", rest[0]) in _NO_NAMES:
        rest = rest[1:]
      begins = len(rest) == len(parts) and _begins(line, match.start())
      if len(rest) > begins:
        yield _POSSESSIVE.sub("", " ".join(rest))
      if begins and len(rest) > 2:  # the first word may be no part of the name
        yield _POSSESSIVE.sub("", " ".join(rest[1:]))


def days(text: str) -> dict[str, None]:
  """Returns the dates of a text that name a day, as YYYY-MM-DD."""
  found = {}
  for year in _FOUR_DIGITS.finditer(text):
    near = text[max(year.start() - _NEAR, 0) : year.end() + _NEAR]
    for match in filter(None, (pattern.search(near) for pattern in _DATES)):
      parts = match.groupdict()
      number = int(parts.get("n") or 0)
      if not number:
        number = 1 + [m[:3] for m in _MONTHS].index(parts["m"][:3].casefold())
      found[f"{parts['y']}-{number:02}-{int(parts['d']):02}"] = None
  return found


def years(text: str) -> Iterator[str]:
  """Yields the years that a text names."""
  return (match.group() for match in _YEAR.finditer(text))


def _begins(line: str, place: int) -> bool:
  """Whether a sentence may begin at `place`."""
  before = line[:place].rstrip()
  if _ABBREVIATION.search(before[-6:]):
    return False
  return not before or before[-1] in _OPENERS or before[-2:-1].isdigit()
