"""How long it takes to find the duplicates among many documents, and the audit of them.

    python benchmarks/duplicates.py --documents=100000 --workers=2
    python benchmarks/duplicates.py --documents=100000 --audit

Documents of about 700 words are drawn from a vocabulary with Zipf's frequencies. One in
forty repeats a former one in upper case, one in forty with a few words replaced; how
many of these are found is printed beside the time. Drawing the documents is timed by
itself and left out.
"""

import argparse
import random
import resource
import time
from collections.abc import Callable, Iterator

import numpy as np

from data_gen import audit, filters
from data_gen.filters.near import NearDuplicates

_VOCABULARY, _WORDS, _EVERY = 30_000, 700, 40
_THRESHOLD = 0.7


def documents(count: int) -> Iterator[tuple[str, str]]:
  """Yields (text, what it is: 'new', 'exact' or 'near')."""
  rng, plain = np.random.default_rng(0), random.Random(0)
  # Words have an average of six letters, as in English, and their spaces.
  vocabulary = np.array(
    ["".join(plain.choices("etaoinshrdlu", k=2 + i % 7)) for i in range(_VOCABULARY)]
  )
  weights = 1 / np.arange(20, _VOCABULARY + 20)
  cumulated = np.cumsum(weights / weights.sum())
  kept: list[np.ndarray] = []
  for number in range(count):
    size = int(rng.integers(_WORDS - 200, _WORDS + 200))
    found = np.searchsorted(cumulated, rng.random(size))
    if number % _EVERY == 0 and kept:
      yield " ".join(vocabulary[kept[number % len(kept)]].tolist()).upper(), "exact"
      continue
    if number % _EVERY == 1 and kept:
      found = kept[number % len(kept)].copy()
      places = rng.integers(0, len(found), len(found) // 100)  # about 0.9 similar
      found[places] = rng.integers(0, _VOCABULARY, len(places))
      yield " ".join(vocabulary[found].tolist()), "near"
      continue
    if len(kept) < 1000:
      kept.append(found)
    yield " ".join(vocabulary[found].tolist()), "new"


def deduplicate(count: int, workers: int) -> dict[tuple[str, str], int]:
  """Returns how often a document that is one thing was taken for another."""
  exact, near = filters.Duplicates(), NearDuplicates(_THRESHOLD)
  seen: dict[tuple[str, str], int] = {}
  kinds: list[str] = []

  def count_as(kind: str, found: str) -> None:
    seen[kind, found] = seen.get((kind, found), 0) + 1

  def fresh() -> Iterator[tuple[str, str]]:
    for number, (text, kind) in enumerate(documents(count)):
      if exact.first_of(text, str(number)):
        count_as(kind, "exact")
      else:
        kinds.append(kind)
        yield text, str(number)

  for place, match in enumerate(near.first_of_all(fresh(), workers)):
    count_as(kinds[place], "near" if match else "new")
  return seen


def measure(count: int) -> dict[str, float]:
  """Returns some figures of an audit of all documents."""
  records = (
    {"kind": "document", "id": str(i), "text": text}
    for i, (text, _) in enumerate(documents(count))
  )
  found = audit.measure(records, [], audit.AuditSettings(name="drawn")).figures
  return {
    "exact": found["duplicates"]["exact"],
    "near": found["duplicates"]["near"],
    "distinct-3": found["diversity"]["distinct"]["3"],
  }


def timed(what: Callable[[], object]) -> tuple[object, float, float]:
  """Returns what a function does, its wall time and the CPU time of all processes."""
  wall, cpu = time.perf_counter(), _cpu()
  result = what()
  return result, time.perf_counter() - wall, _cpu() - cpu


def _cpu() -> float:
  both = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
  usages = [resource.getrusage(who) for who in both]
  return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
  """Measures and prints."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--documents", type=int, default=100_000)
  parser.add_argument("--workers", type=int, default=2)
  parser.add_argument("--audit", action="store_true")
  chosen = parser.parse_args()
  count = chosen.documents
  _, drawing, drawing_cpu = timed(lambda: sum(1 for _ in documents(count)))
  if chosen.audit:
    result, wall, cpu = timed(lambda: measure(count))
  else:
    result, wall, cpu = timed(lambda: deduplicate(count, chosen.workers))
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(f"{count} documents; (what it is, what it was taken for): {result}")
  print(f"drawing them: {drawing:.1f} s, CPU {drawing_cpu:.1f} s")
  print(f"with drawing: {wall:.1f} s, CPU {cpu:.1f} s, peak memory {peak:.0f} MB")
  print(f"without: {wall - drawing:.1f} s, CPU {cpu - drawing_cpu:.1f} s")


if __name__ == "__main__":
  main()
