"""The config of a study, as far as launching needs it, read as launch.py reads it.

Flags are checked here, before anything is paid: on the machines it would be too late.
"""

import difflib
import pathlib
import re
import warnings
from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags

from msm_jax import config_errors, fields
from msm_jax.errors import UserError
from tpu.archive import ROOT
from tpu.job import Step
from tpu.slices import parse

_MODES = ("generate", "prepare", "train", "evaluate", "report")
_ON_CPU = ("generate", "prepare", "evaluate", "report")


def located(config: str) -> str:
  """Returns `--config` relative to the root of the repository.

  Raises:
    UserError: there is no such file in it.
  """
  path, colon, argument = config.partition(":")
  found = (pathlib.Path.cwd() / path).resolve()
  if not found.is_file():
    names = [each.stem for each in sorted((ROOT / "configs").glob("[!_]*.py"))]
    near = difflib.get_close_matches(pathlib.PurePath(path).stem, names, n=1)
    hint = f"did you mean configs/{near[0]}.py?" if near else "see configs/"
    raise UserError(f"--config={config} is not there: {hint}")
  if not found.is_relative_to(ROOT):
    raise UserError(
      f"--config={config} lies outside {ROOT}, which is what machines get: move it to "
      "configs/"
    )
  return found.relative_to(ROOT).as_posix() + colon + argument


def load(config: str, overrides: Sequence[str]) -> dict[str, Any]:
  """Returns a config with its overrides, as a plain dict.

  Args:
    config: relative to the root of the repository, with :ARG.
    overrides: `--config.field=value`.

  Raises:
    UserError: it cannot be loaded, or an override does not fit it.
  """
  plain = _parsed(config, [])
  for override in overrides:
    path, is_set, _ = override.removeprefix("--config.").partition("=")
    if not is_set:
      raise UserError(f"{override} has no value: write {override}=VALUE")
    _check_path(plain, path)
  return _parsed(config, overrides) if overrides else plain


def _parsed(config: str, overrides: Sequence[str]) -> dict[str, Any]:
  values, words = flags.FlagValues(), ["tpu", f"--config={ROOT / config}", *overrides]
  config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=words)
  try:
    with warnings.catch_warnings():
      # The library, on Python 3.11: load_module() is deprecated.
      warnings.simplefilter("ignore", DeprecationWarning)
      values(words)
    return config_errors.plain(values["config"].value)
  except UserError:
    raise
  except Exception as error:
    said = config_errors.told(error)
    if said is None:
      raise
    said = said.removeprefix(f"{ROOT}/")
    raise UserError(f"--config={config}: {said}") from None


def _check_path(config: dict[str, Any], path: str) -> None:
  """Raises a UserError that names the nearest field where a path leads nowhere."""
  where, found = "config", config
  for name in re.sub(r"\[\d+\]", "", path).split("."):
    if not isinstance(found, dict):
      return  # the library says what it thinks of it
    fields.check_known(name, found, where, "the config")
    where, found = f"{where}.{name}", found[name]


def check_part(config: dict[str, Any], arm: str | None, seed: str | None) -> None:
  """Refuses an arm or seeds that the study does not have, as launch.py would.

  Args:
    config: of the study.
    arm: as `--arm` names it; None: all.
    seed: as `--seed` lists them, with commas; None: all.

  Raises:
    UserError: there is no such arm or seed.
  """
  known = [*config["arms"], *(config.get("asked") or {})]
  if arm is not None and arm not in known:
    raise UserError(f"--arm={arm} is not one of {', '.join(known)}")
  seeds = [str(each) for each in config["seeds"]]
  for one in [] if seed is None else seed.split(","):
    if one.strip() not in seeds:
      raise UserError(f"--seed={seed}: {one!r} is not one of {', '.join(seeds)}")


def default_name(config: str) -> str:
  """Returns a name for resources: of the file, and of what follows the colon."""
  path, _, argument = config.partition(":")
  name = "-".join(filter(None, (pathlib.PurePath(path).stem, argument))).lower()
  return re.sub(r"[^a-z0-9]+", "-", name).strip("-")[:40].rstrip("-")


def machines(config: dict[str, Any], slice_: str | None, num_slices: int | None):
  """Returns the machines asked for by flags, else by `config.hardware`.

  Raises:
    UserError: neither says, or there are none of that name.
  """
  if slice_ is not None:
    return parse(slice_, num_slices or 1)
  hardware = config.get("hardware") or {}
  if hardware.get("slice") is None:
    raise UserError(
      "--slice=v6e-16 (or v5p:2x2x2, h100:8, ...) is needed: this config has no "
      "config.hardware.slice"
    )
  number = num_slices or hardware.get("num_slices") or 1
  return parse(hardware["slice"], number, "config.hardware.slice")


def steps(on_cpu: Sequence[str]) -> tuple[Step, ...]:
  """Returns the steps of a study, some of them on a machine without accelerators.

  Args:
    on_cpu: modes of launch.py, such as 'generate'.

  Raises:
    UserError: a mode cannot be there.
  """
  for mode in on_cpu:
    if mode not in _ON_CPU:
      near = difflib.get_close_matches(mode, _ON_CPU, n=1)
      hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(_ON_CPU)}"
      raise UserError(f"--cpu_steps={mode}: {hint}")
  if "evaluate" in on_cpu:  # a pod would have to wait for it
    on_cpu = (*on_cpu, "report")
  first = [mode for mode in _MODES if mode in on_cpu]
  if first == list(_MODES[: len(first)]):  # `run` finds these done, and does the rest
    rest = (Step(name="study", mode="run"),)
    return (*(Step(name=mode, mode=mode, place="cpu") for mode in first), *rest)
  return tuple(
    Step(name=mode, mode=mode, place="cpu" if mode in on_cpu else "pod")
    for mode in _MODES
  )
