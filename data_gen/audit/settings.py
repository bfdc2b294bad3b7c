"""What an audit is told, and what `generate` is told to refuse: `config.audit`."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen.sections import Section
from msm_jax import errors, fields


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditThresholds:
  """Limits of figures (`config.audit.<threshold>`); None: not enforced.

  Shares are between 0 and 1.

  Attributes:
    min_section_share: of the records, in every section of the spec.
    max_rejected_share: of the planned records.
    max_exact_duplicates, max_near_duplicates: share of records that are one.
    max_opening_share: of records that begin with the same words.
    max_phrase_share: of records that have the same phrase; those of the spec itself
      do not count.
    max_name_share: of records that have the same name, the spec's aside.
    max_date_share: of records that have the same day.
    min_distinct_1, min_distinct_2, min_distinct_3: distinct runs of so many words,
      divided by all.
    max_compression: how many times better the texts are compressed than their words in
      random order.
    min_median_words, max_median_words: of a record.
  """

  min_section_share: float | None = None
  max_rejected_share: float | None = None
  max_exact_duplicates: float | None = None
  max_near_duplicates: float | None = None
  max_opening_share: float | None = None
  max_phrase_share: float | None = None
  max_name_share: float | None = None
  max_date_share: float | None = None
  min_distinct_1: float | None = None
  min_distinct_2: float | None = None
  min_distinct_3: float | None = None
  max_compression: float | None = None
  min_median_words: float | None = None
  max_median_words: float | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditSettings:
  """What an audit must know of a corpus beside its records.

  Attributes:
    name: of the corpus.
    kind: of the corpus ('documents', ...).
    spec_name: what the spec is called; "" without one.
    sections: of the spec, also those without a record.
    spec_text: with the names filled in; its own names and phrases are no tics.
    names: of the spec's model and provider.
    leakage: which evaluation text was looked for, as the manifest says it; None: none.
    thresholds: shown beside the figures.
    near_duplicates: the similarity that counts as a near duplicate; None: not looked
      for.
    num_samples: records that the page shows; and as many rejected ones at most.
    seed: of the samples.
  """

  name: str
  kind: str = ""
  spec_name: str = ""
  sections: Sequence[Section] = ()
  spec_text: str = ""
  names: tuple[str, ...] = ()
  leakage: Mapping[str, int] | None = None
  thresholds: AuditThresholds = AuditThresholds()
  near_duplicates: float | None = 0.7
  num_samples: int = 200
  seed: int = 0


def thresholds(given: Mapping[str, Any] | None, where: str) -> AuditThresholds:
  """Returns the thresholds from a plain mapping.

  Raises:
    UserError: naming the field that is unknown or no number.
  """
  found = fields.build(AuditThresholds, dict(given or {}), where)
  for name, value in dataclasses.asdict(found).items():
    if value is None:
      continue
    most = float("inf") if name in _UNBOUNDED else 1.0
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= most:
      wanted = "zero or more" if name in _UNBOUNDED else "from 0 to 1"
      raise errors.UserError(f"{where}.{name} is {value!r}: it is a number, {wanted}")
  return found


_UNBOUNDED = ("max_compression", "min_median_words", "max_median_words")


def violations(audit: Mapping[str, Any], limits: AuditThresholds) -> list[str]:
  """Returns a line for every threshold that is not kept: figure, value, threshold."""
  if not audit["num_records"]:
    return []
  found = []
  for name, limit in dataclasses.asdict(limits).items():
    if limit is None:
      continue
    for what, value in _figures(name, audit):
      kept = value >= limit if name.startswith("min_") else value <= limit
      if not kept:
        sign = "below" if name.startswith("min_") else "above"
        found.append(f"{what} is {value:.4g}, {sign} {name}={limit:g}")
  return found


def _figures(name: str, audit: Mapping[str, Any]) -> list[tuple[str, float]]:
  """Returns (what it is called, value) of all figures that a threshold is about."""
  diversity, tics = audit["diversity"], audit["tics"]
  if name == "min_section_share":
    rows = audit["coverage"]["sections"]
    return [(f"share of section {row['id']}", row["share"]) for row in rows]
  if name == "max_opening_share":
    return _shares("opening", diversity["openings"][:1])
  if name in ("max_phrase_share", "max_name_share"):
    kind = name.removeprefix("max_").removesuffix("_share")
    own = [row for row in tics[f"{kind}s"] if not row["in_spec"]]
    return _shares(kind, own[:1])
  if name == "max_date_share":
    return _shares("date", tics["days"][:1])
  simple = {
    "max_rejected_share": ("share of rejected records", audit["rejects"]["share"]),
    "max_exact_duplicates": ("exact duplicates", audit["duplicates"]["exact_share"]),
    "max_near_duplicates": ("near duplicates", audit["duplicates"]["near_share"]),
    "min_distinct_1": ("distinct-1", diversity["distinct"]["1"]),
    "min_distinct_2": ("distinct-2", diversity["distinct"]["2"]),
    "min_distinct_3": ("distinct-3", diversity["distinct"]["3"]),
    "max_compression": ("compression", diversity["compression"]["against_shuffled"]),
    "min_median_words": ("median of words", audit["lengths"]["median"]),
    "max_median_words": ("median of words", audit["lengths"]["median"]),
  }
  what, value = simple[name]
  return [] if value is None else [(what, value)]


def _shares(kind: str, rows: list[Mapping[str, Any]]) -> list[tuple[str, float]]:
  return [
    (f"share of records with the {kind} {row['text']!r}", row["share"]) for row in rows
  ]
