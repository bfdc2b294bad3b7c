"""A teacher that needs no network: a world composes the answers.

The same request always has the same answer; another sample index or seed gives another.
Stages that need no knowledge of a world are answered in all of them by `any_world`.
"""

import importlib
import pathlib
import pkgutil
import random
from collections.abc import Sequence
from types import ModuleType

from data_gen import worlds
from data_gen.clients import protocol
from data_gen.worlds import any_world
from msm_jax import errors, records


def load_world(name: str, where: str) -> ModuleType:
  """Returns the module `data_gen.worlds.<name>`; `where` names the config field."""
  modules = [module.name for module in pkgutil.iter_modules(worlds.__path__)]
  known = [module for module in modules if "_" not in module]
  if name not in known:
    raise errors.UserError(
      f"{where} is {name!r}: no such world; there are {', '.join(sorted(known))}"
    )
  return importlib.import_module(f"data_gen.worlds.{name}")


def world_sha256(name: str, stages: Sequence[str] = ()) -> str:
  """Returns the hash of a world's source: `<name>.py`, `<name>_*.py`, `<name>/`.

  With `stages` that `any_world` answers, its source is part of it.
  """
  if any(stage in any_world.STAGES for stage in stages):
    return records.sha256_json([world_sha256(name), world_sha256("any_world")])
  directory = pathlib.Path(worlds.__path__[0])
  paths = [directory / f"{name}.py", *directory.glob(f"{name}_*.py")]
  paths += (directory / name).rglob("*")
  sources = sorted(p for p in paths if p.is_file() and p.suffix != ".pyc")
  return records.sha256_json(
    {str(p.relative_to(directory)): records.sha256_file(p) for p in sources}
  )


class OfflineClient:
  """Answers from a world; nothing is tokenised, so nothing is billed."""

  def __init__(
    self, world: str, where: str = "config.teacher", stages: Sequence[str] = ()
  ):
    self._world = load_world(world, f"{where}.model")
    self._version = f"{world}@{world_sha256(world, stages)[:12]}"
    # The source is part of the identity: a changed world does not reuse old answers.
    self.identity = {"client": "offline", "model": self._version}
    self.jobs = None

  async def generate(self, request: protocol.Request) -> protocol.Response:
    """Returns the world's answer."""
    key = [request.prompt_hash, request.sample_index, request.params.seed]
    rng = random.Random(records.sha256_json(key))
    varied = {"sample_index": request.sample_index, "seed": request.params.seed}
    fields = {**request.fields, **varied}
    if any_world.answers_all(self._world):  # others may draw from all that they see
      fields["schema"] = request.schema
    return protocol.Response(
      text=any_world.respond(self._world, request.stage, fields, rng),
      finish_reason=protocol.STOP,
      usage=protocol.Usage(),
      model_version=self._version,
    )

  def take_costs(self) -> list[protocol.CacheCost]:
    """Returns nothing: what a cache costs is part of the answers."""
    return []

  async def close(self) -> None:
    """There is nothing to let go of."""
