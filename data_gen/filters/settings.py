"""Which texts are rejected: `config.corpora.<name>.filters`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from msm_jax import errors, fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilterSettings:
  """All is off but exact duplicates.

  Attributes:
    exact_duplicates: texts that differ from a kept one in case, spacing and punctuation
      only.
    near_duplicates: the Jaccard similarity of runs of five words (0 to 1) from which on
      a text is too much like a kept one; None: off. 0.7 is usual.
    min_words, max_words: shorter and longer texts; characters in scripts without
      spaces. None: no limit.
    refusals: the teacher declines, or says that it is a language model.
    meta_talk: talk about the text around it ('Here is the document').
    placeholders: gaps that were left to be filled ('[Insert name]').
    leftover_tags: tags of prompts and templates ('<scratchpad>', '<|im_end|>'). Not for
      conversations that are to have thoughts in them.
    fences: a markdown fence around the whole text.
    truncated: the text stops in the middle of a sentence.
    identity: other assistants than that of the spec, and other makers of it.
    allowed_names: assistants and labs that may be named beside the spec's own.
    leakage_corpora: names in `config.corpora`; a text that has one of their prompts in
      it, or all options of one of their pairs, leaks. They are made first.
    leakage_paths: .jsonl or text files with prompts of evaluations.
    leakage_ngram: how many words in a row count as copied; of a shorter prompt, all.
    leakage_share: the share of a prompt's n-grams from which on it is leaked.
  """

  exact_duplicates: bool = True
  near_duplicates: float | None = None
  min_words: int | None = None
  max_words: int | None = None
  refusals: bool = False
  meta_talk: bool = False
  placeholders: bool = False
  leftover_tags: bool = False
  fences: bool = False
  truncated: bool = False
  identity: bool = False
  allowed_names: tuple[str, ...] = ()
  leakage_corpora: tuple[str, ...] = ()
  leakage_paths: tuple[str, ...] = ()
  leakage_ngram: int = 8
  leakage_share: float = 0.5


def build(given: Mapping[str, Any] | None, where: str) -> FilterSettings:
  """Returns the settings from a plain mapping; None: all neutral.

  Args:
    given: fields by name.
    where: what the mapping is called in the config: 'config.corpora.NAME.filters'.

  Raises:
    UserError: naming the field that is unknown or cannot be.
  """
  found = fields.build(FilterSettings, dict(given or {}), where)
  for field in dataclasses.fields(FilterSettings):
    value = getattr(found, field.name)
    if wanted := _wrong(field, value):
      raise errors.UserError(f"{where}.{field.name} is {value!r}: it is {wanted}")
  if (found.min_words or 0) > (found.max_words or float("inf")):
    raise errors.UserError(
      f"{where}.min_words is {found.min_words}, more than max_words="
      f"{found.max_words}: no text would be kept"
    )
  lists = {name: tuple(getattr(found, name)) for name in _LISTS}
  return dataclasses.replace(found, **lists)


_LISTS = ("allowed_names", "leakage_corpora", "leakage_paths")
_SHARES = ("near_duplicates", "leakage_share")


def _wrong(field: dataclasses.Field, value: Any) -> str:
  """Returns what a value should have been, "" if it is that."""
  if value is None and field.default is None:
    return ""
  is_flag = isinstance(value, bool)
  if isinstance(field.default, bool):
    return "" if is_flag else "True or False"
  if field.name in _LISTS:
    whole = isinstance(value, list | tuple) and all(isinstance(v, str) for v in value)
    return "" if whole else "a list of texts"
  if field.name in _SHARES:
    whole = isinstance(value, int | float) and not is_flag and 0 < value <= 1
    return "" if whole else "a number above 0, at most 1"
  whole = isinstance(value, int) and not is_flag and value > 0
  return "" if whole else "a whole number above zero"
