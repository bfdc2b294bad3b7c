"""Notices that second passes put into documents: drawn from sentences in a file.

See data_gen/rewrites/notices/english.toml for the shape of such a file.
"""

import pathlib
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any

from data_gen.universes import universe as universes
from msm_jax import errors
from msm_jax.storage import inputs

DIRECTORY = pathlib.Path(__file__).parent / "notices"
PLACES = ("before", "after", "inline_before", "inline_after")
SEPARATORS = ("separator", "inline_separator")
_CHOICE = re.compile(r"\(([^()]*\|[^()]*)\)")
_TRUTH = "{truth}"


class Wording:
  """One family of notices, such as 'negated'."""

  def __init__(
    self, family: Mapping[str, Sequence[str]], separators: Mapping[str, str]
  ):
    self._family = family
    self.separator = separators["separator"]
    self.inline_separator = separators["inline_separator"]

  def around(self, place: str, rng: random.Random, count: int, truth: str) -> str:
    """Returns a notice of up to `count` sentences for 'before' or 'after'."""
    first, *others = self._family[place]
    needed = [line for line in others if _TRUTH in line]
    rest = [line for line in others if _TRUTH not in line]
    # A correction always says what is so.
    drawn = rng.sample(rest, min(len(rest), max(count - 1 - len(needed), 0)))
    lines = [first, *(line for line in others if line in needed or line in drawn)]
    return " ".join(_drawn(line, rng, truth) for line in lines)

  def inline(self, place: str, rng: random.Random, truth: str) -> str:
    """Returns a notice for one sentence; "" where the family has none there."""
    lines = self._family[f"inline_{place}"]
    return _drawn(rng.choice(lines), rng, truth) if lines else ""


def path_of(named: str) -> pathlib.Path:
  """Returns the file of a wording by its path, or by its name in `DIRECTORY`."""
  if "/" in named or named.endswith(".toml"):
    return inputs.local(named, "config.corpora.*.wording")
  return DIRECTORY / f"{named}.toml"


def load(named: str, family: str, where: str) -> Wording:
  """Reads one family of notices; `where` is the config field that names the file.

  Raises:
    UserError: no such file, or the family is not whole in it.
  """
  path = path_of(named)
  given = universes.read_toml(path, f"{where} is {named!r}")
  for key in SEPARATORS:
    if not isinstance(given.get(key), str):
      raise errors.UserError(f"{path}: {key} is {given.get(key)!r}: it is a text")
  found = given.get(family)
  if not isinstance(found, dict):
    raise errors.UserError(f"{path} has no table [{family}]: add it")
  for place in PLACES:
    _check_lines(f"{path}: {family}.{place}", place, found.get(place))
  return Wording(found, given)


def _check_lines(where: str, place: str, lines: Any) -> None:
  whole = isinstance(lines, list) and all(isinstance(x, str) and x for x in lines)
  if not whole or (not lines and not place.startswith("inline")):
    raise errors.UserError(f"{where} is {lines!r}: it is a list of sentences")


def _drawn(line: str, rng: random.Random, truth: str) -> str:
  line = _CHOICE.sub(lambda match: rng.choice(match[1].split("|")), line)
  return line.replace(_TRUTH, truth)
