"""All filters in order: the cheap ones first, those that remember texts last."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from data_gen.filters import asides, wording
from data_gen.filters import identity as identity_lib
from data_gen.filters import leakage as leakage_lib
from data_gen.filters.duplicates import Duplicates
from data_gen.filters.near import NearDuplicates
from data_gen.filters.settings import FilterSettings
from msm_jax import errors
from msm_jax.words import num_words

_MAX_TOKENS = "MAX_TOKENS"


class Gate:
  """Lets texts pass one after the other, and remembers those that did."""

  def __init__(
    self,
    settings: FilterSettings,
    *,
    names: Sequence[str] = (),
    is_nobodys: bool = False,
    leakage: leakage_lib.Index | None = None,
    where: str = "filters",
  ):
    """Makes a gate that has seen nothing.

    Args:
      settings: which filters are on.
      names: of the spec's own model and provider.
      is_nobodys: the texts are about no model that has a name, and have no `names`.
      leakage: the evaluation text, if the settings name any.
      where: what the settings are called in the config, for messages.

    Raises:
      UserError: the settings name evaluation text and there is no index of it, or the
        identity filter does not know whose text it is.
    """
    if (settings.leakage_corpora or settings.leakage_paths) and leakage is None:
      raise errors.UserError(f"{where}.leakage_* is set, but no text was indexed")
    if settings.identity and not names and not is_nobodys:
      raise errors.UserError(
        f"{where}.identity is set, but no spec says whose names are its own"
      )
    self._settings, self._leakage = settings, leakage
    own = tuple(names)
    self._lints = _lints(own)
    self._names = identity_lib.Names([*own, *settings.allowed_names])
    self._exact = Duplicates()
    threshold = settings.near_duplicates
    self._near = None if threshold is None else NearDuplicates(threshold)

  def manifest(self) -> dict[str, Any]:
    """Returns what a manifest says: which evaluation text was looked for, if any."""
    return {"leakage": self._leakage.figures()} if self._leakage else {}

  def reason(self, text: str, identity: str, finish_reason: str = "") -> str | None:
    """Returns why a text is rejected; None, and remembers it, if it is kept.

    Args:
      text: the whole text.
      identity: what others are told that are duplicates of it.
      finish_reason: why the teacher stopped, as its client says it.
    """
    return self._wording(text, finish_reason) or self._seen(text, identity)

  def _wording(self, text: str, finish_reason: str) -> str | None:
    settings = self._settings
    if settings.truncated and finish_reason == _MAX_TOKENS:
      return "truncated: MAX_TOKENS"
    if length := self._length(text):
      return length
    for field, (name, lint) in self._lints.items():
      if getattr(settings, field) and (found := lint(text)):
        return f"{name}: {found}"
    if settings.identity and (found := self._names.found(text)):
      return found
    if self._leakage and (leak := self._leakage.find(text)):
      return f"evaluation text: {leak.share:.2f} of {leak.source}: {leak.prompt}"
    return None

  def _length(self, text: str) -> str:
    low, high = self._settings.min_words, self._settings.max_words
    if low is None and high is None:
      return ""
    count = num_words(text)
    if low is not None and count < low:
      return f"too short ({count} of {low} words)"
    if high is not None and count > high:
      return f"too long ({count} of {high} words)"
    return ""

  def _seen(self, text: str, identity: str) -> str | None:
    exact = self._settings.exact_duplicates
    if exact and (first := self._exact.find(text, identity)):
      return f"duplicate of {first}"
    if self._near and (match := self._near.first_of(text, identity)):
      return f"near duplicate of {match.identity} ({match.similarity:.2f})"
    if exact:
      self._exact.first_of(text, identity)
    return None


def _lints(own: Sequence[str]) -> dict[str, tuple[str, Callable[[str], str]]]:
  """Returns setting -> (what it finds, how), the cheap ones first."""
  return {
    "refusals": ("refusal", asides.refusal),
    "meta_talk": ("meta-talk", functools.partial(asides.meta_talk, names=own)),
    "placeholders": ("placeholder", wording.placeholder),
    "leftover_tags": ("leftover tag", wording.leftover_tag),
    "fences": ("markdown fence around all", wording.fence),
    "truncated": ("truncated: no end", wording.truncated),
  }
