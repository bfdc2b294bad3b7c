"""What a corpus is like: coverage, lengths, diversity, tics, duplicates, rejects.

settings   what an audit is told; thresholds and their violations
figures    one pass over the records (counting, losses, measures, phrases, tics)
page       the figures as audit.html (charts)
"""

import collections
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from data_gen.audit import page
from data_gen.audit.figures import Figures
from data_gen.audit.settings import AuditSettings as AuditSettings
from data_gen.audit.settings import AuditThresholds as AuditThresholds
from data_gen.audit.settings import thresholds as thresholds
from data_gen.audit.settings import violations as violations
from msm_jax import records as records_lib

Record = Mapping[str, Any]
JSON, HTML = "audit.json", "audit.html"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Audit:
  """The figures of a corpus as plain values, and the page that shows them."""

  figures: dict[str, Any]
  html: str

  def files(self) -> dict[str, bytes]:
    """Returns the content of the files by name; the same corpus, the same bytes."""
    text = json.dumps(self.figures, indent=1, ensure_ascii=False) + "\n"
    found = {JSON: text, HTML: self.html}
    return {k: v.encode("utf-8", "backslashreplace") for k, v in found.items()}


class Auditor:
  """Looks at records and rejects that go past, on their way to somewhere else."""

  def __init__(self, settings: AuditSettings):
    self._settings = settings
    self._found = Figures(settings)

  def watch(self, records: Iterable[Record]) -> Iterator[Record]:
    """Yields the kept records as they are."""
    for record in records:
      self._found.add(record)
      yield record

  def watch_rejects(self, rows: Iterable[Record]) -> Iterator[Record]:
    """Yields the rejected records and lost branches as they are."""
    for row in rows:
      self._found.reject(row)
      yield row

  def audit(self) -> Audit:
    """Returns the audit of what went past so far."""
    found, limits = self._found, self._settings.thresholds
    figures = found.figures()
    figures["thresholds"] = {
      name: limit
      for name, limit in dataclasses.asdict(limits).items()
      if limit is not None
    }
    figures["violations"] = violations(figures, limits)
    shown = found.sample.items(), found.rejected_sample
    html = page.render(figures, self._settings, *shown)
    return Audit(figures=figures, html=html)


def measure(
  records: Iterable[Record], rejects: Iterable[Record], settings: AuditSettings
) -> Audit:
  """Returns the audit of a corpus; both iterables are streamed once."""
  auditor = Auditor(settings)
  for stream in (auditor.watch(records), auditor.watch_rejects(rejects)):
    collections.deque(stream, maxlen=0)
  return auditor.audit()


def write(
  directory: str | os.PathLike[str],
  records: Iterable[Record],
  rejects: Iterable[Record],
  settings: AuditSettings,
) -> dict[str, Any]:
  """Writes audit.json and audit.html into `directory` and returns the figures."""
  audit = measure(records, rejects, settings)
  for name, data in audit.files().items():
    records_lib.write_file(pathlib.Path(directory) / name, data)
  return audit.figures
