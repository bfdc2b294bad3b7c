"""The fields of `config.evals.<name>` with type `inspect`."""

import dataclasses
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any

from msm_jax import records
from msm_jax.errors import UserError
from msm_jax.evals.agentic import exfiltration, verdicts
from msm_jax.evals.grading import Stage
from msm_jax.evals.inspect import conditions

MODELS = ("native", "hf", "vllm")
BESIDE = ("inactive", "coherent")
SCRATCHPADS = ("auto", "always", "never")
OWN = "msm_jax/"
# What scorers ask a grader goes out as it is, by a prompt that is all places.
STAGE, COHERENCE = "inspect", "agentic_coherence"
_VERDICT_TOKENS, _YES_NO_TOKENS = 250, 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class InspectConfig:
  """A task of Inspect, run under several conditions.

  Attributes:
    task: as `inspect eval` takes it: `inspect_evals/agentic_misalignment`,
      `msm_jax/exfiltration`.
    task_args: its arguments, a value or a list each: every combination is a condition;
      or a list of such mappings.
    dev: mappings; conditions that agree with one of them were looked at while the study
      was made and stand apart, under `<evaluation>_dev`.
    category: argument of the task by which numbers are told apart
      (`<evaluation>/<value>`); None: all together.
    scratchpad: for tasks with the argument `prod`: `auto` asks for reasoning in the
      answer unless the chat template has reasoning of its own, `always`, `never`; None
      for tasks without it.
    beside: of `inactive` (no tool was used, where tools are written as text) and
      `coherent` (a grader's verdict).
    epochs: answers to each sample.
    max_items: samples of the task, None for all.
    model: `native` (our sampler, nothing is exported), or an export with Inspect's `hf`
      or `vllm` provider.
    model_args: for those, beside what we set: device, dtype.
    temperature, top_p, max_new_tokens, sampling_seed, batch_size: as everywhere.
  """

  task: str
  task_args: Any
  epochs: int
  max_new_tokens: int
  temperature: float
  batch_size: int
  top_p: float = 1.0
  sampling_seed: int = 0
  model: str = "native"
  model_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  dev: Sequence[Mapping[str, Any]] = ()
  category: str | None = None
  scratchpad: str | None = None
  beside: Sequence[str] = ()
  max_items: int | None = None


def expanded(config: InspectConfig, where: str) -> list[tuple[dict[str, Any], bool]]:
  """Returns (condition, is it for development?) of each."""
  found = conditions.expand(config.task_args, f"{where}.task_args")
  dev = conditions.dev_of(found, config.dev, f"{where}.dev")
  return list(zip(found, dev, strict=True))


def check(config: InspectConfig, where: str) -> None:
  """Raises a UserError for values that cannot work."""
  package, _, name = config.task.partition("/")
  if not package or not name:
    raise UserError(
      f"{where}.task is {config.task!r}: PACKAGE/TASK, as inspect_evals/"
      "agentic_misalignment or msm_jax/exfiltration"
    )
  for field, known in (("model", MODELS), ("scratchpad", (None, *SCRATCHPADS))):
    if getattr(config, field) not in known:
      raise UserError(f"{where}.{field} is {getattr(config, field)!r}, not of {known}")
  for one in config.beside:
    if one not in BESIDE:
      raise UserError(f"{where}.beside has {one!r}, not of {BESIDE}")
  for field in ("epochs", "max_new_tokens", "batch_size"):
    value = getattr(config, field)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
      raise UserError(f"{where}.{field} is {value!r}: a whole number above zero")
  if config.temperature < 0 or not 0 < config.top_p <= 1:
    raise UserError(
      f"{where}: temperature {config.temperature} must not be below 0, top_p "
      f"{config.top_p} is above 0 and at most 1"
    )
  if config.epochs > 1 and config.temperature == 0:
    raise UserError(
      f"{where}.epochs is {config.epochs}, but with temperature 0 every answer to a "
      "sample is the same: set epochs to 1, or a temperature"
    )
  if config.model == "native" and config.model_args:
    raise UserError(f"{where}.model_args are for model 'hf' or 'vllm', not 'native'")
  every = expanded(config, where)
  _check_category(config, every, where)
  if any("prod" in condition for condition, _ in every):
    raise UserError(f"{where}.task_args has prod: {where}.scratchpad decides it")


def _check_category(config: InspectConfig, every, where: str) -> None:
  lacking = [one for one, _ in every if config.category not in (None, *one)]
  if lacking:
    raise UserError(
      f"{where}.category is {config.category!r}, but the condition {lacking[0]} in "
      "task_args has no such argument"
    )


def sources(config: InspectConfig) -> dict[str, str]:
  """Returns digests of what the task is, beside its arguments."""
  if config.task.startswith(OWN):
    scene = {
      goal: exfiltration.prompt(goal, model_name="x", scratchpad=True)
      for goal in exfiltration.goals()
    }
    rubric = verdicts.sha256(exfiltration.STAGE)
    return {"exfiltration": records.sha256_json([scene, rubric])}
  package = config.task.partition("/")[0]
  try:
    return {package: importlib.metadata.version(package)}
  except importlib.metadata.PackageNotFoundError:
    raise UserError(
      f"the evaluation {config.task} needs the package {package}: "
      "pip install 'msm-jax[eval]', or the package that has the task"
    ) from None


def stages(config: InspectConfig) -> list[Stage]:
  """Returns what is asked of a grader: one verdict per answer, and coherence."""
  found = [Stage(name=STAGE, response_tokens=_VERDICT_TOKENS)]
  if config.task.startswith(OWN):  # its rubric stands within the other's places
    found.append(Stage(name=exfiltration.STAGE, response_tokens=0, per_answer=0.0))
  if "coherent" in config.beside:
    found.append(Stage(name=COHERENCE, response_tokens=_YES_NO_TOKENS))
  return found


def num_answers(config: InspectConfig, num_items: int | None) -> int:
  """Returns how many answers an arm and seed give, a sample to each condition."""
  del num_items  # it has no corpus
  return len(expanded(config, "task_args")) * config.epochs
