"""What is said on the command line of `python -m tpu`."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from absl import flags

from msm_jax import exits
from msm_jax.errors import UserError
from tpu import settings as settings_lib
from tpu.job import Provisioning
from tpu.settings import Settings

TARGETS = ("compute", "gke", "queued", "slurm")
FLAGS = flags.FlagValues()


def _flag(
  define: Callable[..., Any],
  name: str,
  default: Any,
  says: str,
  *kinds: Any,
  **limits: int,
) -> None:
  define(name, default, *kinds, says, flag_values=FLAGS, **limits)


_flag(flags.DEFINE_bool, "help", False, "print how this is used")
_flag(flags.DEFINE_string, "config", None, "configs/NAME.py[:ARG]")
_flag(flags.DEFINE_enum, "target", None, "which kind of cloud", TARGETS)
_flag(flags.DEFINE_string, "slice", None, "v6e-16, v5p:2x2x2, h100:8")
_flag(
  flags.DEFINE_integer,
  "num_slices",
  None,
  "so many slices, along `data`",
  lower_bound=1,
)
_flag(flags.DEFINE_bool, "spot", False, "cheap, may be taken away at any time")
_flag(flags.DEFINE_bool, "reserved", False, "from `reservation` in tpu.toml")
_flag(
  flags.DEFINE_bool, "flex", False, "flex-start: waits for its turn, 7 days at most"
)
_flag(flags.DEFINE_string, "arm", None, "of the study: only this one (see launch.py)")
_flag(flags.DEFINE_string, "seed", None, "of the study: only these: 0,1")
_flag(flags.DEFINE_string, "name", None, "of the job and its resources")
_flag(flags.DEFINE_string, "workdir", None, "of the study; default BUCKET/studies/NAME")
_flag(flags.DEFINE_string, "settings", None, "a file other than tpu.toml")
_flag(flags.DEFINE_bool, "dry_run", False, "print commands, run none")
_flag(flags.DEFINE_bool, "skip_fit", False, "do not ask whether it fits the slice")
_flag(flags.DEFINE_bool, "keep", False, "run: leave the machines when all is done")
_flag(flags.DEFINE_bool, "detach", False, "run: leave when all hosts work")
_flag(flags.DEFINE_list, "cpu_steps", [], "modes for a machine of its own: generate")
_flag(
  flags.DEFINE_integer,
  "max_same_failures",
  3,
  "give up after so many in a row",
  lower_bound=1,
)
_flag(
  flags.DEFINE_integer,
  "host",
  None,
  "logs: of this host, else of who speaks",
  lower_bound=0,
)
_flag(flags.DEFINE_bool, "follow", False, "logs: go on as they grow")
OVERRIDES: list[str] = []  # --config.field=value, as they were given
_NARROWING = ("arm", "seed")  # flags of launch.py that narrow what a job does


def parse(words: Sequence[str]) -> None:
  """Fills `FLAGS` and `OVERRIDES`; nothing is left of an earlier call.

  Raises:
    UserError: something is not understood.
  """
  for name in FLAGS:
    FLAGS[name].unparse()
  OVERRIDES[:] = [word for word in words if word.startswith("--config.")]
  others = [word for word in words if not word.startswith("--config.")]
  try:
    positional = FLAGS(["tpu", *others])[1:]
  except (flags.Error, ValueError) as error:
    raise UserError(exits.one_line(error)) from None
  if positional:
    raise UserError(f"{positional[0]!r} is not understood: flags begin with --")


def lines() -> list[str]:
  """Returns a line about every flag."""
  return [
    f"  --{flag.name:<18} {flag.help}" for flag in FLAGS.get_flags_for_module(__name__)
  ]


def of_study() -> tuple[str, ...]:
  """Returns what launch.py is told beside --config and --workdir."""
  asked = ((name, FLAGS[name].value) for name in _NARROWING)
  return (*(f"--{name}={value}" for name, value in asked if value), *OVERRIDES)


def needed(flag: str) -> str:
  """Returns the value of a flag that has to be there."""
  value = FLAGS[flag].value
  if value is None:
    known = f" ({', '.join(TARGETS)})" if flag == "target" else ""
    raise UserError(f"--{flag}=... is needed{known}: see python -m tpu --help")
  return value


def provisioning() -> Provisioning:
  """Returns how machines are to be paid for."""
  asked = [name for name in ("spot", "reserved", "flex") if FLAGS[name].value]
  if len(asked) > 1:
    raise UserError(f"--{asked[0]} and --{asked[1]} exclude one another: take one")
  return Provisioning(asked[0]) if asked else Provisioning.ON_DEMAND


def settings() -> Settings:
  """Returns what tpu.toml says, or the file named in its place."""
  return settings_lib.load(pathlib.Path(FLAGS.settings) if FLAGS.settings else None)
