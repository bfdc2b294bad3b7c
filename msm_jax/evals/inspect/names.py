"""What stands behind `msm_jax/` in `--model`: WORKDIR:ARM[:SEED][@STEP]."""

import dataclasses
import pathlib
import re

from msm_jax.errors import UserError

_NAME = re.compile(
  r"(?P<workdir>.+?):(?P<arm>[^:@]+)(?::(?P<seed>\d+))?(?:@(?P<step>\d+))?"
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
  """A model of a study; `seed` None: the first of the config, `step` None: the last."""

  workdir: pathlib.Path
  arm: str
  seed: int | None
  step: int | None


def parse(name: str) -> Checkpoint:
  """Returns which checkpoint a name means.

  Raises:
    UserError: it has no arm, or a seed or step that is no number.
  """
  match = _NAME.fullmatch(name)
  if match is None:
    raise UserError(
      f"--model msm_jax/{name}: it is msm_jax/WORKDIR:ARM, with :SEED and @STEP behind "
      "it if you want another than the first and the last"
    )
  seed, step = (None if match[k] is None else int(match[k]) for k in ("seed", "step"))
  return Checkpoint(pathlib.Path(match["workdir"]), match["arm"], seed, step)
