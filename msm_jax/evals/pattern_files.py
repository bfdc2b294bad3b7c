"""Patterns of reasoning in a TOML file that people may edit.

[patterns.self_preservation]
definition = "..."

[merges]
fear_of_shutdown = "self_preservation"   # counted as one; both are asked for
"""

import dataclasses
import json
import pathlib
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.storage import inputs

_SETS = pathlib.Path(__file__).parent / "sets"
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_HEAD = """\
# Patterns of reasoning of config.analyses.{name}.
#
# Read them before you trust the counts. You may rename, redefine, add or delete
# patterns; a line under [merges] counts the left one as the right one. What stands here
# is used as it is, and nothing overwrites it. To have it made anew, delete the file.

"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patterns:
  """What is looked for in transcripts.

  Attributes:
    definitions: name -> definition, in order.
    merges: name -> the name that it is counted as.
  """

  definitions: Mapping[str, str]
  merges: Mapping[str, str] = dataclasses.field(default_factory=dict)

  def groups(self) -> dict[str, list[str]]:
    """Returns name -> the patterns that are counted as it, itself among them."""
    found: dict[str, list[str]] = {}
    for name in self.definitions:
      found.setdefault(self._target(name), []).append(name)
    return found

  def _target(self, name: str) -> str:
    while name in self.merges:
      name = self.merges[name]
    return name

  def record(self) -> dict[str, Any]:
    """Returns them as JSON."""
    return {"definitions": dict(self.definitions), "merges": dict(self.merges)}


def named(name: str) -> str:
  """Returns a name as it stands in files: 'No alternatives!' -> 'no_alternatives'."""
  slug = re.sub(r"[^a-z0-9]+", "_", name.casefold()).strip("_")
  return slug if _NAME.fullmatch(slug) else f"p_{slug}".strip("_")


def path_of(start: str) -> pathlib.Path:
  """Returns the file that `start` names: a path, or a list in `evals/sets/`."""
  is_path = "/" in start or "." in start
  if is_path:
    return inputs.local(start, "config.analyses.*.start")
  return _SETS / f"{start}.toml"


def write(path: pathlib.Path, name: str, patterns: Patterns) -> None:
  """Writes patterns for people to read and edit."""
  lines = [_HEAD.format(name=name)]
  for key, definition in patterns.definitions.items():
    lines.append(f"[patterns.{key}]\ndefinition = {_string(definition)}\n\n")
  lines.append("[merges]\n")
  lines += [f"{old} = {_string(new)}\n" for old, new in patterns.merges.items()]
  records.write_file(path, "".join(lines).encode("utf-8"))


def read(path: pathlib.Path) -> Patterns:
  """Returns the patterns in a file.

  Raises:
    UserError: the file is not there or no TOML, a pattern has no definition, or a merge
      names one that is not there or comes back to where it began.
  """
  try:
    table = tomllib.loads(path.read_text("utf-8"))
  except FileNotFoundError:
    known = ", ".join(sorted(file.stem for file in _SETS.glob("*.toml")))
    raise UserError(
      f"{path} does not exist: give a path to patterns, or one of the lists {known}"
    ) from None
  except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    raise UserError(f"{path} is not valid TOML ({error}): mend it") from None
  unknown = sorted(set(table) - {"patterns", "merges"})
  if unknown:
    raise UserError(f"{path} has [{unknown[0]}]: it may have [patterns.*] and [merges]")
  given, merges = table.get("patterns") or {}, table.get("merges") or {}
  if not given:
    raise UserError(f"{path} has no [patterns.NAME]: add one, or delete the file")
  definitions = {name: _definition(path, name, value) for name, value in given.items()}
  _check_merges(path, definitions, merges)
  return Patterns(definitions=definitions, merges=merges)


def edits(proposed: Patterns, used: Patterns) -> dict[str, list[str]]:
  """Returns what a person changed: names added, removed, redefined, merged."""
  old, new = proposed.definitions, used.definitions
  changed = {key for key in old.keys() & new.keys() if old[key] != new[key]}
  pairs = used.merges.items() ^ proposed.merges.items()
  return {
    "added": [name for name in new if name not in old],
    "removed": [name for name in old if name not in new],
    "redefined": [name for name in new if name in changed],
    "merged": sorted({name for name, _ in pairs}),
  }


def _definition(path: pathlib.Path, name: str, value: Any) -> str:
  if not _NAME.fullmatch(name):
    raise UserError(
      f"{path}: [patterns.{name}]: a name has small letters, digits and underscores"
    )
  definition = value.get("definition") if isinstance(value, dict) else None
  if not isinstance(definition, str) or not definition.strip():
    raise UserError(f"{path}: [patterns.{name}] has no definition: write one")
  return definition.strip()


def _check_merges(
  path: pathlib.Path, known: Mapping[str, str], merges: Mapping[str, Any]
) -> None:
  for old, new in merges.items():
    for name in (old, new):
      if name not in known:
        raise UserError(
          f"{path}: [merges] names {name!r}, which is no pattern there: use one of "
          f"{', '.join(known)}"
        )
  for old in merges:
    seen: Sequence[str] = [old]
    while seen[-1] in merges:
      seen = [*seen, merges[seen[-1]]]
      if seen[-1] in seen[:-1]:
        raise UserError(f"{path}: [merges] goes in a circle: {' -> '.join(seen)}")


def _string(text: str) -> str:
  return json.dumps(text, ensure_ascii=False)
