"""Whether an outline can still keep `config.audit.min_section_share`.

It is looked at before the documents are paid for; the audit looks again at the end.
"""

import collections

from data_gen import spec as specs
from data_gen.documents.tree import Outline
from msm_jax import errors

_FIELD = "config.audit.min_section_share"


def check_threshold(name: str, spec: specs.Spec, least: float | None) -> None:
  """Raises a `UserError` if a spec has too many sections for a share `least` each."""
  if least and least * len(spec.sections) > 1:
    raise errors.UserError(
      f"{_FIELD}={least:g} cannot be kept by config.corpora.{name}: its spec "
      f"{spec.name} has {len(spec.sections)} sections; set at most "
      f"{1 / len(spec.sections):.3g}"
    )


def check(
  name: str, spec: specs.Spec, plan: Outline, least: float | None, number: int | None
) -> None:
  """Raises a `UserError` if a section has too few ideas for its share of documents.

  Args:
    name: of the corpus.
    spec: whose sections are to be covered.
    plan: the outline.
    least: the share of the documents that each section must have; None: any.
    number: how many documents are to be made; None: not known yet.
  """
  if not least:
    return
  counts = collections.Counter(idea.subdomain.section.id for idea in plan.ideas)
  total = 1 if number is None else min(number, len(plan.ideas))
  short = [s.id for s in spec.sections if counts[s.id] < least * total]
  if short:
    told = ", ".join(f"{section} ({counts[section]} ideas)" for section in short)
    reasons = collections.Counter(row["reason"] for row in plan.rejects)
    why = ", ".join(f"{reason} ({n})" for reason, n in reasons.most_common(3))
    raise errors.UserError(
      f"config.corpora.{name}: {_FIELD}={least:g} cannot be kept, and no document was "
      f"asked for: too few ideas for {told}; lost: {why or 'nothing'}; write more "
      f"under these headings of {spec.name}, join them with others, choose another "
      "teacher, or set another threshold; the answers so far are kept"
    )
