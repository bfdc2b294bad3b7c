"""The figures as one HTML file that asks nothing of the network."""

import functools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import markupsafe

from data_gen import filters
from data_gen.audit import charts
from data_gen.audit.settings import AuditSettings, violations

_FOLDER = pathlib.Path(__file__).parent
_DASH = "\u2013"
_BODY = {"kind", "text", "messages", "options", "id", "v"}
_MAX_CHARS = 20_000
_MAX_COLUMNS = 10  # document types of the grid
_GROUP_NAMES = {
  "doc_type": "Document types",
  "question_type": "Question types",
  "domain": "Domains",
  "subdomain": "Subdomains",
  "rule": "Rules",
}
_CHOICES = ("spec_section", "domain", "doc_type", "question_type", "reason")


def render(
  figures: Mapping[str, Any],
  settings: AuditSettings,
  sample: Sequence[Mapping[str, Any]],
  rejected: Sequence[Mapping[str, Any]],
) -> str:
  """Returns the whole page as HTML.

  Args:
    figures: as in audit.json.
    settings: of the audit.
    sample: kept records to look at.
    rejected: rejected ones.
  """
  titles = {section.id: section.title for section in settings.sections}
  return _template().render(
    figures=figures,
    settings=settings,
    violations=violations(figures, settings.thresholds),
    num_thresholds=sum(v is not None for v in vars(settings.thresholds).values()),
    lede=_lede(figures),
    plots=_plots(figures),
    bar=lambda share: markupsafe.Markup(charts.bar(share)),
    groups=_groups(figures),
    grid=_grid(figures["coverage"], titles),
    titles=titles,
    samples=[_sample(record, "kept", titles) for record in sample]
    + [_sample(record, "rejected", titles) for record in rejected],
    choices=_choices([*sample, *rejected]),
  )


@functools.cache
def _template() -> jinja2.Template:
  environment = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_FOLDER),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  environment.filters |= {
    "count": _count,
    "percent": _percent,
    "number": _number,
    "raw": markupsafe.Markup,
  }
  return environment.get_template("page.html.jinja")


def _lede(figures: Mapping[str, Any]) -> str:
  """Returns what the page says, in a sentence or three."""
  if not figures["num_records"]:
    return "There is no record in this corpus."
  parts = [
    f"{_count(figures['num_records'])} records with {_count(figures['num_words'])} "
    f"words, {_count(figures['lengths']['median'])} in the middle one."
  ]
  if sections := figures["coverage"]["sections"]:
    missing = [row for row in sections if not row["records"]]
    covered = len(sections) - len(missing)
    parts.append(f"{covered} of {len(sections)} sections of the spec have records.")
  duplicates = figures["duplicates"]
  total = duplicates["exact"] + (duplicates["near"] or 0)
  num_rejected = figures["rejects"]["records"]
  parts.append(
    f"{_count(total)} {'repeats' if total == 1 else 'repeat'} an earlier one, "
    f"{_count(num_rejected)} {'was' if num_rejected == 1 else 'were'} rejected."
  )
  return " ".join(parts)


def _plots(figures: Mapping[str, Any]) -> dict[str, str]:
  found = {"lengths": "", "years": ""}
  lengths = figures["lengths"]
  if histogram := lengths["histogram"]:
    found["lengths"] = charts.histogram(
      histogram["edges"],
      histogram["counts"],
      xlabel="words per record",
      marks=[("median", lengths["median"])],
    )
  years = sorted(figures["tics"]["years"], key=lambda row: row["text"])
  if len(years) > 1:
    first, last = int(years[0]["text"]), int(years[-1]["text"])
    counts = {int(row["text"]): row["records"] for row in years}
    span = range(first, last + 1)
    found["years"] = charts.columns(
      [str(year) for year in span],
      [counts.get(year, 0) for year in span],
      xlabel="year named in the text",
    )
  return found


def _groups(figures: Mapping[str, Any]) -> list[tuple[str, list[Mapping[str, Any]]]]:
  """Returns (title, rows) of each field by which records are grouped."""
  coverage, found = figures["coverage"], []
  if not coverage["sections"] and coverage["spec_section"]:
    found.append(("Sections of the spec", coverage["spec_section"]))
  found += [(t, coverage[name]) for name, t in _GROUP_NAMES.items() if coverage[name]]
  return found


def _grid(coverage: Mapping[str, Any], titles: Mapping[str, str]) -> dict[str, Any]:
  """Returns how many records there are per section (or domain) and type."""
  cells = {(c["row"], c["column"]): c["records"] for c in coverage["grid"]}
  rows = coverage["sections"] or coverage["spec_section"] or coverage["domain"]
  columns = (coverage["doc_type"] or coverage["question_type"])[:_MAX_COLUMNS]
  if len(columns) < 2:
    return {}
  most = max(cells.values(), default=1)
  return {
    "columns": [column["id"] for column in columns],
    "rows": [
      (
        titles.get(row["id"], row["id"]),
        [
          (
            cells.get((row["id"], c["id"]), 0),
            cells.get((row["id"], c["id"]), 0) / most,
          )
          for c in columns
        ],
      )
      for row in rows[:60]
    ],
    "left_out": max(
      len(coverage["doc_type"] or coverage["question_type"]) - len(columns), 0
    ),
  }


def _sample(
  record: Mapping[str, Any], state: str, titles: Mapping[str, str]
) -> dict[str, Any]:
  """Returns how a record is shown: its title, turns, provenance, what sorts it."""
  turns = []
  for turn in record.get("messages") or ():
    role = str(turn.get("role", ""))
    for name, key in ((f"{role}, thinking", "reasoning_content"), (role, "content")):
      if turn.get(key):
        turns.append((name, _clip(str(turn[key]))))
  if "question" in record:
    turns.append(("user", _clip(str(record["question"]))))
  if "text" in record:
    turns.append(("assistant" if turns else "", _clip(str(record["text"]))))
  turns += [("option", str(o.get("text"))) for o in record.get("options") or ()]
  section = record.get("spec_section")
  about = [record.get(name) for name in ("doc_type", "question_type", "domain")]
  about.append(titles.get(str(section), section))
  return {
    "state": state,
    "id": str(record.get("id", "")),
    "title": ", ".join(str(item) for item in about if item)
    or str(record.get("id", "")),
    "reason": str(record.get("reason", "")),
    "num_words": sum(filters.num_words(text) for _, text in turns),
    "turns": turns,
    "provenance": [
      (key, _plain(value))
      for key, value in record.items()
      if key not in _BODY and value not in (None, "", {}, [])
    ],
    "choices": {name: _choice(record, name) for name in _CHOICES},
  }


def _choices(records: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
  """Returns the values by which the sample can be narrowed; those with several."""
  found = {
    name: sorted({_choice(record, name) for record in records} - {""})
    for name in _CHOICES
  }
  return {name: values for name, values in found.items() if len(values) > 1}


def _choice(record: Mapping[str, Any], name: str) -> str:
  value = record.get(name)
  if not isinstance(value, str):
    return ""
  return filters.category(value) if name == "reason" else value


def _clip(text: str) -> str:
  if len(text) <= _MAX_CHARS:
    return text
  return f"{text[:_MAX_CHARS]} ... ({len(text) - _MAX_CHARS} more characters)"


def _plain(value: Any) -> str:
  if isinstance(value, Mapping):
    return "; ".join(f"{k}: {_plain(v)}" for k, v in value.items() if v is not None)
  if isinstance(value, str):
    return _clip(value)
  return json.dumps(value, ensure_ascii=False, default=str)


def _count(value: Any) -> str:
  """Returns a count with thin spaces between the thousands."""
  return _DASH if value is None else f"{value:,.0f}".replace(",", "\u2009")


def _percent(value: float | None) -> str:
  if value is None:
    return _DASH
  return (
    f"{100 * value:.1f}" + "\u2009%"
    if 0 < value < 0.1
    else f"{value:.0%}".replace("%", "\u2009%")
  )


def _number(value: float | None) -> str:
  return _DASH if value is None else f"{value:.3g}"
