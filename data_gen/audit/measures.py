"""How long texts are, and how well they are compressed."""

import lzma
import random
from typing import Any

import numpy as np

from msm_jax.words import units

_MAX_BINS = 24
_QUANTILES = {"p5": 0.05, "p25": 0.25, "median": 0.5, "p75": 0.75, "p95": 0.95}


def lengths(found: np.ndarray) -> dict[str, Any]:
  """Returns quantiles and a histogram of words per record."""
  if not len(found):
    return dict.fromkeys(("min", *_QUANTILES, "max", "mean")) | {"histogram": None}
  low, high = int(found.min()), int(found.max())
  step = _step((high - low + 1) / _MAX_BINS)
  edges = np.arange(low // step * step, high + step + 1, step)
  counts, _ = np.histogram(found, edges)
  return {
    "min": low,
    **{name: float(np.quantile(found, q)) for name, q in _QUANTILES.items()},
    "max": high,
    "mean": float(found.mean()),
    "histogram": {"edges": edges.tolist(), "counts": counts.tolist()},
  }


def _step(least: float) -> int:
  """Returns the next of 1, 2, 5, 10, 20, 50, ..."""
  scale = 1
  while True:
    for step in (scale, 2 * scale, 5 * scale):
      if step >= least:
        return step
    scale *= 10


def compression(texts: list[str], seed: int) -> dict[str, Any]:
  """Returns how well a sample is compressed, as it is and with its words shuffled."""
  found = [unit for text in texts for unit in units(text)]
  if not found:
    names = ("ratio", "shuffled_ratio", "against_shuffled")
    return {**dict.fromkeys(names), "num_texts": len(texts)}
  ratio = _ratio(" ".join(found))
  random.Random(seed).shuffle(found)
  shuffled = _ratio(" ".join(found))
  return {
    "ratio": ratio,
    "shuffled_ratio": shuffled,
    "against_shuffled": ratio / shuffled,
    "num_texts": len(texts),
  }


def _ratio(text: str) -> float:
  data = text.encode("utf-8", "surrogatepass")
  return len(data) / len(lzma.compress(data, lzma.FORMAT_ALONE, preset=1))
