"""Arms that are trained like another one and asked differently: `config.asked`.

    config.asked.base_spec = dict(of="base", spec="affordability",
      system_prompt="You follow these principles.\\n\\n{spec}")
    config.asked.base_steered = dict(of="base",
      steer=dict(positive="msm_aff", negative="neutral", depth=0.5, scale=4.0))
    config.asked.msm_64 = dict(of="msm", step=64)  # a checkpoint on the way

Here it is said which subjects a study has: what evaluations ask and reports show. They
are the arms, and behind each of them those that are asked differently.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from msm_jax import fields as fields_lib
from msm_jax.errors import UserError
from msm_jax.evals import kinds, steering
from msm_jax.evals.steering import SteerConfig

Path = tuple[str, ...]
SPEC = "{spec}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedConfig:
  """How an arm is asked differently.

  Attributes:
    of: the arm.
    system_prompt: before every conversation that is asked (see `chat.behind`); None for
      none. `{spec}` in it stands for the text of a spec, other braces are text.
    spec: name of that spec in config.specs, exactly if there is a `{spec}`.
    steer: a direction in which it is steered; None for none.
    step: of its last stage, one that `checkpoint_at` keeps; None for the last.
  """

  of: str
  system_prompt: str | None = None
  spec: str | None = None
  steer: SteerConfig | None = None
  step: int | None = None

  @property
  def is_other_model(self) -> bool:
    """Whether it goes on with plain text in another way than the arm."""
    return self.steer is not None or self.step is not None

  def text(self, specs: Mapping[str, Any]) -> str | None:
    """Returns the whole system prompt.

    Args:
      specs: config.specs.

    Raises:
      UserError: the spec cannot be read.
    """
    if self.system_prompt is None or self.spec is None:
      return self.system_prompt
    from msm_jax.evals import judge  # it brings the clients, which few need

    spec = judge.load_spec({"specs": specs}, self.spec)
    return self.system_prompt.replace(SPEC, spec.text.strip())

  def says(self) -> str:
    """Returns what it is, in words for people."""
    found = []
    if self.step is not None:
      found.append(f"at step {self.step:,} of its last stage")
    if self.system_prompt is not None:
      spec = f" with the spec {self.spec}" if self.spec is not None else ""
      found.append(f"asked behind a system prompt{spec}")
    if self.steer is not None:
      found.append(
        f"steered by {self.steer.scale:g} x ({self.steer.positive} minus "
        f"{self.steer.negative}) behind {self.steer.depth:g} of its layers"
      )
    return f"{self.of}, {' and '.join(found)}"


def parse(config: Mapping[str, Any]) -> dict[str, AskedConfig]:
  """Returns the section `config.asked` of a whole config (plain dicts).

  Raises:
    UserError: naming the field that is unknown, missing or contradicts another.
  """
  section = config.get("asked") or {}  # configs of before have none
  found = {}
  for name, value in section.items():
    where = f"config.asked.{name}"
    fields = dict(value)
    if fields.get("steer") is not None:
      steer = fields_lib.build(SteerConfig, dict(fields["steer"]), f"{where}.steer")
      steering.check(steer, f"{where}.steer", config["corpora"])
      fields["steer"] = steer
    found[name] = fields_lib.build(AskedConfig, fields, where)
    _check_name(name, where, config["arms"])
    _check(found[name], where, config)
  if found:
    _check_evals(config)
  return found


def subjects(
  arms: Mapping[str, Path], asked: Mapping[str, AskedConfig]
) -> dict[str, Path]:
  """Returns all that is asked, with its path of stages: each arm, then those of it."""
  found = {}
  for arm, path in arms.items():
    found[arm] = path
    found |= {name: path for name, one in asked.items() if one.of == arm}
  return found


def evaluations(
  evals: Mapping[str, Mapping[str, Any]], asked: AskedConfig | None
) -> list[str]:
  """Returns the evaluations that a subject is asked; `asked` is None for an arm.

  Where a system prompt is all that differs, plain text would give the arm's own answers
  once more: what asks nothing else is left out.
  """
  if asked is None or asked.is_other_model:
    return list(evals)
  return [
    name
    for name, value in evals.items()
    if not kinds.KINDS[value["type"]].in_text(kinds.config_of(name, value))
  ]


def _check_name(name: str, where: str, arms: Mapping[str, Any]) -> None:
  if name in arms:
    raise UserError(f"{where}: config.arms has a {name!r} already: rename one")
  if "/" in name or name.startswith("."):
    raise UserError(f"{where}: no '/' in the name of an arm")


def _check(asked: AskedConfig, where: str, config: Mapping[str, Any]) -> None:
  if asked.of not in config["arms"]:
    known = ", ".join(config["arms"])
    raise UserError(f"{where}.of is {asked.of!r}: name one of config.arms, {known}")
  prompt = asked.system_prompt
  if prompt is not None and (not isinstance(prompt, str) or not prompt.strip()):
    raise UserError(f"{where}.system_prompt ({prompt!r}) must be a text: None for none")
  if prompt is None and not asked.is_other_model:
    raise UserError(
      f"{where} is the arm {asked.of!r} once more: give it a system_prompt or steer, "
      "or a step"
    )
  if asked.step is not None:
    _check_step(asked, where, config)
  if asked.spec is None:
    if prompt is not None and SPEC in prompt:
      raise UserError(
        f"{where}.system_prompt has a {SPEC}: name the spec in {where}.spec"
      )
    return
  specs = config.get("specs") or {}
  if asked.spec not in specs:
    raise UserError(f"{where}.spec is {asked.spec!r}, config.specs has {sorted(specs)}")
  if prompt is None or SPEC not in prompt:
    raise UserError(
      f"{where}.spec is {asked.spec!r}, but its system_prompt has no {SPEC}: write "
      "where its text stands"
    )


def _check_step(asked: AskedConfig, where: str, config: Mapping[str, Any]) -> None:
  step, path = asked.step, config["arms"][asked.of]
  if isinstance(step, bool) or not isinstance(step, int) or step < 1:
    raise UserError(f"{where}.step ({step!r}) must be a step from 1 on: None for none")
  if not path:
    raise UserError(f"{where}.step is {step}, but {asked.of!r} has no stage, no steps")
  kept = config["stages"][path[-1]].get("checkpoint_at", ())
  kept = (kept,) if isinstance(kept, str) else kept
  if step not in kept and not ("log2" in kept and step & (step - 1) == 0):
    raise UserError(
      f"{where}.step is {step}, which config.stages.{path[-1]}.checkpoint_at "
      f"({kept!r}) does not keep: add it there"
    )


def _check_evals(config: Mapping[str, Any]) -> None:
  for name, value in config["evals"].items():
    model = value.get("model", "native") if value.get("type") == "inspect" else "native"
    if model != "native":
      raise UserError(
        f"config.evals.{name}.model is {model!r}, an export, which cannot be asked as "
        "config.asked says: set it to 'native'"
      )
