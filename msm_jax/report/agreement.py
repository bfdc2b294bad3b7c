"""How far two graders agree, as `evals/agreement.json` says."""

import pathlib
from collections.abc import Mapping
from typing import Any

from msm_jax.report import files, samples


def read(workdir: pathlib.Path) -> dict[str, Any] | None:
  """Returns evals/agreement.json, None where no two graders were compared."""
  return files.read_object(workdir / "evals" / "agreement.json")


def lines(found: Mapping[str, Any]) -> list[tuple[str, str]]:
  """Returns (what, value) of an agreement, parts of parts by dotted names."""
  shown: list[tuple[str, str]] = []

  def walk(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
      for key, item in value.items():
        walk(item, f"{path}.{key}" if path else str(key))
    else:
      shown.append((path, samples.plain(value)))

  walk(found, "")
  return shown
