"""What a corpus that is made from another one takes over from its manifest."""

import pathlib
from typing import Any

from msm_jax import records

_KEYS = ("license", "language", "universe")


def of(source: pathlib.Path) -> dict[str, Any]:
  """Returns the licence, language and universe of a corpus, those that are known.

  The licence of a universe is that of the documents from it.
  """
  manifest = records.read_manifest(source)
  origin = manifest.get("origin") or {}
  universe = manifest.get("universe") or origin.get("universe") or {}
  license = manifest.get("license") or universe.get("license")
  found = {**manifest, "universe": universe, "license": license}
  return {key: found[key] for key in _KEYS if found.get(key)}
