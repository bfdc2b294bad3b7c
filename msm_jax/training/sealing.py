"""What a checkpoint says about itself, sealed: which run it is of, what its leaves are.

`meta` is written with a digest of every leaf (`training/integrity.py`) and a digest of
all that, so that a change of either is noticed when it is read.
"""

import json
from typing import Any

import jax

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.training import integrity

PARTS = ("params", "rest")  # in the order of their digests
_SEAL = ("digests", "sha256")  # of `meta` on disk; nobody else sees them


def sealed(meta: dict[str, Any], digests: str) -> dict[str, Any]:
  """Returns what is written of `meta`: with the digests of the leaves and its own."""
  meta = json.loads(json.dumps(meta))  # as it will be read
  return {**meta, "digests": digests, "sha256": records.sha256_json([meta, digests])}


def opened(meta: dict[str, Any]) -> tuple[dict[str, Any], str | None]:
  """Returns (what a checkpoint says about itself, the digests of its leaves or None).

  Raises:
    ValueError: it is not what was written.
  """
  digests, sha256 = (meta.pop(name, None) for name in _SEAL)
  if digests is None and sha256 is None:  # written before there were any
    return meta, None
  if sha256 != records.sha256_json([meta, digests]):
    raise ValueError("its meta was changed")
  return meta, digests


def wrong_digests(parts: dict[str, Any], digests: str | None) -> str:
  """Returns what is wrong with leaves that are not what was saved, "" if nothing is."""
  if digests is None:
    return ""
  # The leaves of `params` come first, so that they can be checked alone.
  given = [parts[name] for name in PARTS if name in parts]
  found = integrity.inspect(given)[0]
  if digests.startswith(found):
    return ""
  paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(given)]
  size = len(found) // len(paths)
  at = [slice(i * size, (i + 1) * size) for i in range(len(paths))]
  wrong = [
    path for path, one in zip(paths, at, strict=True) if found[one] != digests[one]
  ]
  return f"its files were changed: {len(wrong)} leaves, the first {wrong[0]}"


def check_meta(path: Any, found: dict[str, Any], wanted: dict[str, Any]) -> None:
  """Raises a UserError if a checkpoint at `path` is of another run than is wanted."""
  for field, value in wanted.items():
    if found.get(field) != value:
      raise UserError(
        f"{path} is a checkpoint of another run: its {field} is "
        f"{_shown(found.get(field), value)}, this run has "
        f"{_shown(value, found.get(field))}; use another --workdir or delete that run"
      )


def _shown(value: Any, other: Any) -> Any:
  """Returns only what differs when both are dicts."""
  if isinstance(value, dict) and isinstance(other, dict):
    return {key: value[key] for key in value if value[key] != other.get(key)}
  return value
