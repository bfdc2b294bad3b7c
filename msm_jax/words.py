"""How many words a text has, wherever they are counted: manifest, audit, `show`."""

import re

# Thai, Lao, Burmese, Khmer, kana, bopomofo, Han with its extensions.
UNSPACED = (
  "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3100-\u312f\u31a0-\u31ff"
  "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_CHARACTER = re.compile(f"[{UNSPACED}]")
_PUNCTUATION = re.compile("[\u3000-\u303f\uff00-\uff0f\uff1a-\uff20]")


def num_words(text: str) -> int:
  """Returns the number of words between white space: the measure of matched corpora.

  In scripts without spaces every character counts as a word.
  """
  return len(units(text))


def units(text: str) -> list[str]:
  """Returns what `num_words` counts, punctuation and case as they are."""
  if text.isascii() or not _CHARACTER.search(text):
    return text.split()
  spaced = _PUNCTUATION.sub(" ", _CHARACTER.sub(r" \g<0> ", text))
  return [unit for unit in spaced.split() if any(map(str.isalnum, unit))]
