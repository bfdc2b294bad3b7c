"""Files that a config names: whether machines get them.

Machines get the code (`archive.py`) and read the bucket. A directory of this machine
that git ignores, as models are, does not come: better told now than by machines that
are paid for.
"""

import pathlib
import re
import shlex
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError
from msm_jax.storage import urls
from tpu.settings import Settings

_MODEL = ("init_from", "adapter_from")
# Fields that name files where they do not name something of ours (without a slash).
_MATERIALS = ("path", "universe", "wording", "items", "claims", "start")
_MATERIALS += ("chat_template", "leakage_paths")
_VARIES = re.compile(r"[{@*?\[]")  # {seed}, @STEP, a glob


def check(
  config: Mapping[str, Any],
  names: Collection[str],
  settings: Settings,
  shares_disk: bool,
  say: Callable[[str], None],
) -> None:
  """Refuses a model that machines do not get; says which materials they do not.

  (Materials that were generated or prepared before, in the same workdir, are not needed
  again.)

  Args:
    config: of the study, with overrides.
    names: of the files of the archive.
    settings: for the bucket.
    shares_disk: machines may have directories that this one does not see (slurm).
    say: gets lines for people.

  Raises:
    UserError: the model does not lie in the bucket, or is not to be read there.
  """
  for field, path in _models(config):
    if urls.is_remote(path):
      _check_there(field, path, config["seeds"])
    elif not _comes(path, names, shares_disk):
      raise UserError(way_out(field, path, settings))
  for field, path in _materials(config, "config"):
    if not _comes(path, names, shares_disk):
      say(
        f"note: {field} = {path!r} is not among what machines get: put it into the "
        "bucket (gs://...), or where git does not ignore it"
      )


def model_to_be_copied(config: Mapping[str, Any], settings: Settings) -> list[str]:
  """Returns what is to be done before a job, as far as a dry run can know."""
  return [
    way_out(field, path, settings)
    for field, path in _models(config)
    if not urls.is_remote(path) and not pathlib.PurePath(path).is_absolute()
  ]


def way_out(field: str, path: str, settings: Settings) -> str:
  """Returns how a model comes to where machines read it."""
  source, runs, rest = path.partition("/runs/")  # a run of ours: its workdir
  models = f"{(settings.bucket or '').rstrip('/')}/models"
  there = f"{models}/{pathlib.PurePath(source).name}{runs}{rest}"
  said = f"machines do not get {field} = {path!r}"
  if not urls.is_remote(models):
    return f"{said}: copy it where all nodes see it, and add --{field}=/ITS/PATH"
  copy = shlex.join(["gcloud", "storage", "cp", "-r", source, f"{models}/"])
  return f"{said}: {copy}, and add --{field}={shlex.quote(there)}"


def _models(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
  for name in _MODEL:
    path = config["model"].get(name)
    if path:
      yield f"config.model.{name}", path


def _check_there(field: str, url: str, seeds: Sequence[int]) -> None:
  from msm_jax.storage import bucket  # what it needs, a dry run does without

  one = url.replace("{seed}", str(seeds[0])).partition("@")[0]
  if not bucket.exists(one):
    raise UserError(
      f"{field}: there is nothing at {one}: gcloud storage cp -r MODEL {one}, or mend "
      "the name"
    )


def _materials(found: Any, where: str) -> Iterator[tuple[str, str]]:
  """Yields fields of a config that name files of this machine."""
  for name, value in found.items() if isinstance(found, Mapping) else ():
    yield from _materials(value, f"{where}.{name}")
    paths = value if isinstance(value, list | tuple) else [value]
    for path in paths if name in _MATERIALS else ():
      if isinstance(path, str) and "/" in path and not urls.is_remote(path):
        yield f"{where}.{name}", path


def _comes(path: str, names: Collection[str], shares_disk: bool) -> bool:
  """Returns whether machines have what a path names."""
  if pathlib.PurePath(path).is_absolute() or path.startswith("~"):
    return shares_disk or not pathlib.Path(path).expanduser().exists()
  path = pathlib.PurePath(path).as_posix()
  fixed = _VARIES.split(path)[0]
  inside = fixed if fixed != path else f"{path}/"
  return path in names or any(name.startswith(inside) for name in names)
