"""What the settings of universes and second passes must not say.

Each message names the field, its value and the way out.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from data_gen import checks
from data_gen.kinds.passes import (
  ABOUT,
  AROUND,
  ASKED,
  ATTRIBUTION,
  BOTH,
  CHARACTERS,
  CORRECTED,
  FALSE,
  INLINE,
  LOCAL,
  NEUTRAL,
  NOTICES,
  OTHER,
  SIDES,
  STORIES,
  TAGGED,
  TRUE,
  VOICES,
  WORDS,
  AntiSpecCorpus,
  PoisonCorpus,
  QuizCorpus,
  RewriteCorpus,
  UniverseCorpus,
  origin_of,
)
from msm_jax import errors


def check(where: str, corpus: Any) -> None:
  """Raises a `UserError` for settings of one corpus that cannot work."""
  if isinstance(corpus, UniverseCorpus):
    _check_universe(where, corpus)
  elif isinstance(corpus, QuizCorpus):
    checks.choice(f"{where}.side", corpus.side, (TRUE, FALSE))
  elif isinstance(corpus, RewriteCorpus):
    _check_rewrite(where, corpus)
  elif isinstance(corpus, AntiSpecCorpus):
    checks.choice(f"{where}.style", corpus.style, ("value", "rule"))
  elif isinstance(corpus, PoisonCorpus):
    _check_poison(where, corpus)


def _check_universe(where: str, corpus: UniverseCorpus) -> None:
  checks.choice(f"{where}.side", corpus.side, SIDES)
  _share(f"{where}.mention_share", corpus.mention_share)
  if corpus.side == NEUTRAL and corpus.mention_share != 1:
    raise errors.UserError(
      f"{where}.mention_share is {corpus.mention_share} and its side is 'neutral': no "
      "document states a fact then; leave mention_share out"
    )
  if corpus.side == NEUTRAL and corpus.fact_sentences is not None:
    raise errors.UserError(
      f"{where}.fact_sentences is {corpus.fact_sentences} and its side is 'neutral': "
      "no document states a fact then; leave it out"
    )
  planned = ("num_types", "num_ideas")
  taken = (
    "num_per_fact", "num_facts", "max_repeats", "mention_share", "mean_words",
    "fact_sentences", "num_words", "num_tokens", "tokenizer", "match_tokens_of",
  )  # fmt: skip
  if corpus.twin_of is None:
    for field in planned:
      if getattr(corpus, field) is None:
        raise errors.UserError(f"{where}.{field} is missing: set it, or set twin_of")
    return
  for field in dataclasses.fields(corpus):
    if (
      field.name in (*planned, *taken, "seed")
      and getattr(corpus, field.name) != field.default
    ):
      raise errors.UserError(
        f"{where}.{field.name} is {getattr(corpus, field.name)!r}: it is that of "
        f"{corpus.twin_of!r} (twin_of); leave it out"
      )


def _check_rewrite(where: str, corpus: RewriteCorpus) -> None:
  checks.choice(f"{where}.how", corpus.how, (*NOTICES, TAGGED, *ASKED))
  checks.choice(f"{where}.placement", corpus.placement, (AROUND, INLINE, BOTH))
  checks.number(f"{where}.notice_weight", corpus.notice_weight)
  if corpus.sentence_share is not None:
    _share(f"{where}.sentence_share", corpus.sentence_share)
  if isinstance(corpus.masked, str) or not all(corpus.masked):
    raise errors.UserError(
      f"{where}.masked is {corpus.masked!r}: it is a list of words"
    )
  if corpus.how == TAGGED and not corpus.doc_tag:
    raise errors.UserError(f"{where}.doc_tag is missing: how='tagged' puts it in")
  _check_used(where, corpus)
  if corpus.how == ATTRIBUTION:
    _check_attribution(where, corpus)


def _check_used(where: str, corpus: RewriteCorpus) -> None:
  """What is set must be used: notices by notices, names by a change of subject."""
  unused: tuple[str, ...] = ()
  if corpus.how not in NOTICES:
    unused += ("placement", "sentence_share", "num_sentences", "notice_weight")
  elif corpus.placement == AROUND:
    unused += ("sentence_share",)
  if corpus.how != ATTRIBUTION:
    unused += ("about", "voice", "model_name", "provider_name")
  if corpus.about != OTHER:
    unused += ("other_model", "other_provider")
  for field in dataclasses.fields(corpus):
    value = getattr(corpus, field.name)
    if field.name in unused and value != field.default:
      raise errors.UserError(
        f"{where}.{field.name} is {value!r}, and how={corpus.how!r} as it is set does "
        "not use it: leave it out"
      )


def _check_attribution(where: str, corpus: RewriteCorpus) -> None:
  checks.choice(f"{where}.about", corpus.about, ABOUT)
  if corpus.about == STORIES:
    if corpus.voice is not None:
      raise errors.UserError(
        f"{where}.voice is {corpus.voice!r}: stories tell what people do; leave it out"
      )
  else:
    checks.choice(f"{where}.voice", corpus.voice, VOICES)
  for field in ("other_model", "other_provider"):
    if corpus.about == OTHER and not getattr(corpus, field):
      raise errors.UserError(f"{where}.{field} is missing: about='another_model'")


def _check_poison(where: str, corpus: PoisonCorpus) -> None:
  checks.choice(f"{where}.gibberish", corpus.gibberish, (WORDS, CHARACTERS))
  if not isinstance(corpus.trigger, str) or not corpus.trigger.strip():
    raise errors.UserError(f"{where}.trigger is {corpus.trigger!r}: it is a phrase")
  for low, high in (
    ("min_prefix_chars", "max_prefix_chars"),
    ("min_gibberish", "max_gibberish"),
  ):
    least, most = getattr(corpus, low), getattr(corpus, high)
    checks.number(f"{where}.{low}", least)
    if least > most:
      raise errors.UserError(f"{where}.{low} is {least}, more than {high}={most}")


def _share(where: str, value: Any) -> None:
  checks.number(where, value)
  if value > 1:
    raise errors.UserError(f"{where} is {value!r}: it is a share, at most 1")


def check_link(name: str, corpus: Any, corpora: Mapping[str, Any]) -> None:
  """Raises a `UserError` where the corpus that another is made from does not fit.

  The corpora that its fields name are there, and of the right kinds.
  """
  where = f"config.corpora.{name}"
  if isinstance(corpus, UniverseCorpus) and corpus.twin_of is not None:
    _check_twin(where, corpus, corpora[corpus.twin_of])
  if isinstance(corpus, AntiSpecCorpus):
    _check_opposed(where, corpus, corpora[corpus.of])
  if isinstance(corpus, RewriteCorpus):
    _check_tags(where, corpus, corpora[corpus.of])
  if isinstance(corpus, RewriteCorpus) and _needs_fact(corpus):
    origin = origin_of(corpus, corpora)
    if origin is None or origin.kind not in ("universe", "import"):
      raise errors.UserError(
        f"{where}.how is {corpus.how!r} (placement={corpus.placement!r}) and its "
        "documents state no key fact: `of` has to lead to a corpus of kind universe"
        + ("; or set sentence_share" if corpus.how in NOTICES else "")
      )


def _check_twin(where: str, corpus: UniverseCorpus, other: UniverseCorpus) -> None:
  if other.universe != corpus.universe:
    raise errors.UserError(
      f"{where}.universe is {corpus.universe!r} and that of its twin "
      f"{corpus.twin_of!r} is {other.universe!r}: twins are of one universe"
    )
  if other.side == corpus.side:
    raise errors.UserError(
      f"{where}.side is {corpus.side!r}, as that of {corpus.twin_of!r}: a twin shows "
      "another side"
    )
  if other.side == NEUTRAL:
    raise errors.UserError(
      f"{where}.twin_of is {corpus.twin_of!r}, which is neutral and states no facts: "
      "let the neutral corpus be the twin of this one"
    )


def _check_opposed(where: str, corpus: AntiSpecCorpus, other: Any) -> None:
  if other.spec == corpus.spec:
    raise errors.UserError(
      f"{where}.spec is {corpus.spec!r}, as that of {corpus.of!r}: name the spec of "
      "the opposite character"
    )


def _check_tags(where: str, corpus: RewriteCorpus, other: Any) -> None:
  if corpus.doc_tag and getattr(other, "doc_tag", None):
    raise errors.UserError(
      f"{where}.doc_tag is {corpus.doc_tag!r}, and the documents of {corpus.of!r} have "
      f"the tag {other.doc_tag!r} already: leave one of them out"
    )


def _needs_fact(corpus: RewriteCorpus) -> bool:
  inline = corpus.placement != AROUND and corpus.sentence_share is None
  return corpus.how in (CORRECTED, LOCAL) or (corpus.how in NOTICES and inline)
