"""Looks at what a study is made from: specs, universes and notices, checked first.

Plain text for people; what is wrong with a file is told by its line and field, as it
would be when a corpus is made of it.
"""

import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from data_gen import filters
from data_gen import spec as specs
from data_gen.documents import rules
from data_gen.rewrites import notices
from data_gen.universes import universe as universes
from msm_jax import records

_NAMES = ("{model_name}", "{provider_name}")
# Tables of TOML files that are for evaluations; see msm_jax/show_materials.py.
_FOR_EVALS = re.compile(r"^\[(patterns\.|merges\])", re.MULTILINE)
_FOR_EVALS_NAMED = ("claim.toml",)


def knows(path: pathlib.Path) -> bool:
  """Returns whether a file at `path` is shown here: `.md`, and most `.toml`."""
  if path.suffix == ".md":
    return path.is_file()
  if path.suffix != ".toml" or path.name in _FOR_EVALS_NAMED or not path.is_file():
    return False
  return not _FOR_EVALS.search(path.read_text("utf-8", errors="replace"))


def lines(path: pathlib.Path) -> Iterator[str]:
  """Yields lines about a spec, a universe or notices.

  Raises:
    UserError: naming file, line and field of what is wrong.
  """
  if path.suffix == ".md":
    return _spec(path)
  if _is_notices(path):
    return _notices(path)
  return _universe(path)


def _spec(path: pathlib.Path) -> Iterator[str]:
  spec = specs.load(path, *_NAMES)
  title = re.search(r"^# +(.+)$", spec.text, re.MULTILINE)
  yield f"spec: {title[1] if title else path.stem}"
  yield f"  {'words':10} {filters.num_words(spec.text)}"
  for name in _NAMES:
    count = spec.text.count(name)
    yield f"  {name} stands there {count} times" if count else f"  no {name}"
  yield _sha256(path)
  found = rules.read(spec)
  for section in spec.sections:
    signs = [rule.id for rule in found if rule.section == section]
    told = f"; rules {', '.join(signs)}" if signs else ""
    yield f"  ## {section.title}"
    yield f"     id {section.id}: {filters.num_words(section.text)} words{told}"
  for title_of_empty in spec.empty:
    yield f"  ## {title_of_empty}: no text below it, it is left out"


def _universe(path: pathlib.Path) -> Iterator[str]:
  universe = universes.load(str(path), "show")
  yield f"universe: {universe.title}"
  yield f"  {'tier':10} {universe.tier}"
  yield f"  {'license':10} {universe.license}"
  yield _sha256(path)
  for side in ("true", "false", "neutral"):
    yield f"  {side:10} {filters.num_words(universe.context(side))} words"
  if not universe.facts:
    yield "  no facts: the teacher is to find them (num_facts)"
  for fact in universe.facts:
    yield f"  fact {fact.id}: {fact.asks}"
    yield f"    true   {fact.true}"
    yield f"    false  {fact.false}"


def _notices(path: pathlib.Path) -> Iterator[str]:
  given = universes.read_toml(path, "show")
  families = [name for name, value in given.items() if isinstance(value, Mapping)]
  for family in families:  # all of them, before a line is said
    notices.load(str(path), family, "show")
  yield f"notices: {path.stem}"
  yield _sha256(path)
  for family in families:
    counts = ", ".join(
      f"{len(given[family][place])} {place}" for place in notices.PLACES
    )
    yield f"  {family}: {counts}"
    yield f"    {given[family]['before'][0]}"


def _is_notices(path: pathlib.Path) -> bool:
  try:
    given: Mapping[str, Any] = tomllib.loads(path.read_text("utf-8-sig"))
  except ValueError:  # what reads it says what is wrong
    return False
  return any(key in given for key in notices.SEPARATORS)


def _sha256(path: pathlib.Path) -> str:
  return f"  {'sha256':10} {records.sha256_file(path)}"
