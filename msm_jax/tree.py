"""The tree of a study: which names, paths and arms are refused before anything runs."""

import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

from msm_jax import stages as stages_lib
from msm_jax.errors import UserError
from msm_jax.stages import StageConfig

CONTROLS = "a result without its controls is not one"
_WAY_OUT = "or set config.allow_missing_controls=True where that is what you want"
# A corpus that is being made, and its pilot, lie beside it.
_BESIDE_CORPUS = (".partial", ".pilot")

Path = tuple[str, ...]


def path_name(path: Path) -> str:
  """Returns the directory name of a path of stages."""
  return "+".join(path)


def check(
  config: Mapping[str, Any],
  stages: Mapping[str, StageConfig],
  arms: Mapping[str, Path],
) -> None:
  """Raises a UserError for a tree that cannot be.

  Args:
    config: the whole config, as plain dicts.
    stages: its stages, built.
    arms: its arms, as tuples of names of stages.
  """
  for name in stages:
    if "+" in name or "/" in name or name.startswith("."):
      raise UserError(f"config.stages.{name}: no '+' or '/' in the name of a stage")
  for arm, path in arms.items():
    _check_path(arm, path, stages)
  check_names(config)
  for name, stage in stages.items():
    for part in stage.data:
      if part.corpus not in config["corpora"]:
        raise UserError(
          f"config.stages.{name}.data names the corpus {part.corpus!r}, config.corpora "
          f"has {sorted(config['corpora'])}"
        )


def _check_path(arm: str, path: Path, stages: Mapping[str, StageConfig]) -> None:
  where = f"config.arms[{arm!r}]"
  unknown = [name for name in path if name not in stages]
  if unknown:
    raise UserError(
      f"{where} names the stage {unknown[0]!r}, config.stages has {sorted(stages)}"
    )
  again = [name for i, name in enumerate(path) if name in path[:i]]
  if again:
    raise UserError(
      f"{where} {path} goes in a circle: {again[0]!r} comes again; to train on the "
      "same once more, give the stage a second name in config.stages"
    )
  stages_lib.check_path([stages[name] for name in path], where)


def check_names(config: Mapping[str, Any]) -> None:
  """Raises a UserError for names that would share a directory or a file.

  Many file systems take `MSM` and `msm` for one name; others two ways of writing an
  accented letter.
  """
  evals = [*config["evals"], *(config.get("analyses") or {})]
  corpora = list(config["corpora"])
  groups: list[tuple[str, Iterable[str]]] = [
    ("stages", config["stages"]),
    ("arms (or config.asked)", [*config["arms"], *(config.get("asked") or {})]),
    ("evals (or config.analyses)", evals),
    ("corpora", corpora),
  ]
  for section, names in groups:
    _check_distinct(section, [(name, name) for name in names])
  beside = [(name, name + end) for name in corpora for end in _BESIDE_CORPUS]
  _check_distinct("corpora", [*((name, name) for name in corpora), *beside])


def _check_distinct(section: str, places: Iterable[tuple[str, str]]) -> None:
  """Raises a UserError where two names of a section are one place; (name, place)."""
  taken: dict[str, str] = {}
  for name, place in places:
    folded = unicodedata.normalize("NFC", place).casefold()
    other = taken.setdefault(folded, name)
    if other != name:
      raise UserError(
        f"config.{section} has {other!r} and {name!r}, which would both write "
        f"{folded!r} on a file system that ignores case: rename one of them"
      )


def check_controls(arms: Mapping[str, Path]) -> None:
  """Raises a UserError for arms that nothing tells from what they began with.

  An arm's own stages are those beyond what all arms share. Needed are: `base`; for each
  arm of two or more own stages, its last one alone (alignment only); and for at least
  one of these arms, what comes before its last stage (midtraining only).
  """
  if "base" not in arms:
    raise UserError(
      f"config.arms has no 'base', what every arm is compared with: {CONTROLS}; add "
      f"it, {_WAY_OUT}"
    )
  shared = _shared(arms.values())
  own = {arm: path[len(shared) :] for arm, path in arms.items()}
  there = set(own.values())
  longer = {arm: path for arm, path in own.items() if len(path) > 1}
  for arm, path in longer.items():
    if path[-1:] not in there:
      raise UserError(
        f"config.arms[{arm!r}] has no control that trains on {path[-1]!r} alone, so "
        f"nothing tells what {path_name(path[:-1])!r} adds to it: {CONTROLS}; add "
        f"{_line(arms, shared, path[-1:])}, {_WAY_OUT}"
      )
  if longer and not any(path[:-1] in there for path in longer.values()):
    arm, path = next(iter(longer.items()))
    raise UserError(
      f"config.arms: no arm stops before the last stage of another, as "
      f"{path_name(path[:-1])!r} of {arm!r}, so nothing tells what {path[-1]!r} adds: "
      f"{CONTROLS}; add {_line(arms, shared, path[:-1])}, {_WAY_OUT}"
    )


def _shared(paths: Iterable[Path]) -> Path:
  """Returns the stages with which all paths begin."""
  found: list[str] = []
  for names in zip(*paths, strict=False):  # as long as the shortest
    if len(set(names)) > 1:
      break
    found.append(names[0])
  return tuple(found)


def _line(arms: Mapping[str, Path], shared: Path, own: Path) -> str:
  """Returns the line of a config that adds an arm."""
  names = (path_name(own), path_name(shared + own), f"{path_name(own)}_alone")
  name = next((name for name in names if name not in arms), names[-1])
  stages = ", ".join(f'"{stage}"' for stage in shared + own)
  comma = "," if len(shared + own) == 1 else ""
  return f'c.arms["{name}"] = ({stages}{comma})'
