"""How far two graders agree, as `evals/agreement.json` says.

Whatever holds a `kappa` is a row, wherever it stands; the rest is shown beside.
"""

import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from msm_jax.report import files, samples, wording

_SHOWN = ("kappa", "low", "high", "n", "num_clusters", "same")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """Two graders on one metric, as text; `others` are fields of no column."""

  what: str
  kappa: str
  interval: str
  num_answers: str
  same: str
  others: str


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Returns evals/agreement.json, None where no two graders were compared."""
  return files.read_object(workdir / "evals" / "agreement.json")


def rows(found: Mapping[str, Any]) -> list[Row]:
  """Returns a row for each metric that has a kappa."""
  return [_row(path, value) for path, value in _walk(found, "") if _is_row(value)]


def lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Returns (what, value) of everything else."""
  return [
    (path, samples.plain(value))
    for path, value in _walk(found, "")
    if not _is_row(value)
  ]


def _is_row(value: Any) -> bool:
  return isinstance(value, Mapping) and "kappa" in value


def _walk(value: Any, path: str) -> Iterator[tuple[str, Any]]:
  """Yields (path, row or plain value)."""
  if isinstance(value, Mapping) and not _is_row(value):
    for key, item in value.items():
      yield from _walk(item, f"{path} {key}".strip())
  elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
    for item in value:
      yield from _walk(item, path)
  else:
    yield path, value


def _row(path: str, value: Mapping[str, Any]) -> Row:
  def number(name: str) -> str:
    found = value.get(name)
    return wording.DASH if found is None else wording.number(found, is_share=False)

  names = [str(value[key]) for key in ("evaluation", "metric") if key in value]
  same, clusters = value.get("same"), value.get("num_clusters")
  count = samples.plain(value.get("n"))
  return Row(
    what=" ".join([path, *names]).strip(),
    kappa=number("kappa"),
    interval="" if value.get("low") is None else f"[{number('low')}, {number('high')}]",
    num_answers=count if clusters is None else f"{count} in {clusters} clusters",
    same=wording.DASH if same is None else f"{wording.number(same, is_share=True)}%",
    others="; ".join(
      f"{key.replace('_', ' ')}: {samples.plain(item)}"
      for key, item in value.items()
      if key not in (*_SHOWN, "evaluation", "metric")
    ),
  )
