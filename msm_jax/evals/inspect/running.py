"""Runs a task of Inspect on a model; its scorers come later (`scoring.py`).

    WORKDIR/evals/inspect/<evaluation>.<arm>.seed<k>/   logs for `inspect view`

The answers are kept whole with each sample, so that they can be graded elsewhere.
"""

import contextlib
import inspect as python_inspect
import os
import pathlib
import shutil
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import inspect_ai
import jax
from inspect_ai.log import EvalLog
from inspect_ai.model import CachePolicy, Model, get_model
from inspect_ai.util import registry_create

from msm_jax import chat, distributed
from msm_jax.errors import Stopped, UserError
from msm_jax.evals.exam import Exam
from msm_jax.evals.inspect import exports, providers, settings, tasks
from msm_jax.evals.inspect.settings import InspectConfig
from msm_jax.evals.inspect.subject_api import Asked
from msm_jax.text import chat_template

# Of a sample: what grading and the page need. Events hold everything once more.
_LEFT_OUT = {"events", "events_data", "attachments", "timelines", "store"}


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields an answer per sample and epoch.

  Raises:
    UserError: the task or its arguments are not there, or a sample ended in an error.
  """
  config, where = exam.config, f"config.evals.{exam.name}"
  if distributed.num_processes() > 1:
    raise UserError(
      f"{where}: Inspect runs in one process, and this is a run of several: leave it "
      "out here, and evaluate the checkpoints on one host"
    )
  chat.stop_id(exam.tokenizer)  # refuses one without a template
  every = settings.expanded(config, where)
  given = [_arguments(config, condition, exam.tokenizer) for condition, _ in every]
  made = [task_of(config.task, arguments, where) for arguments in given]
  folder = _folder(exam)
  with _model(exam, folder) as model:
    found = _evaluated(made, model, exam, folder)
  shutil.rmtree(folder / "cache", ignore_errors=True)
  for (condition, dev), arguments, log in zip(every, given, found, strict=True):
    known = {"condition": condition, "dev": dev, "arguments": arguments}
    yield from _answers(known | {"checkpoint": dict(exam.about)}, log)


def _folder(exam: Exam) -> pathlib.Path:
  return exam.transcripts.path.parents[1] / "inspect" / exam.transcripts.path.stem


def _arguments(
  config: InspectConfig, condition: Mapping[str, Any], tokenizer
) -> dict[str, Any]:
  """Returns what the task is called with."""
  if config.scratchpad is None:
    return dict(condition)
  return {**condition, "prod": not _asks_for_reasoning(config.scratchpad, tokenizer)}


def _asks_for_reasoning(scratchpad: str, tokenizer) -> bool:
  if scratchpad != "auto":
    return scratchpad == "always"
  reasons = chat_template.thinks(tokenizer.chat_template)
  return not (reasons and tokenizer.choices.thinking == "keep")


def task_of(name: str, arguments: Mapping[str, Any], where: str) -> inspect_ai.Task:
  """Returns a task of Inspect.

  Raises:
    UserError: there is none, or it does not take these arguments.
  """
  try:
    if name.startswith(settings.OWN):
      made = getattr(tasks, name.removeprefix(settings.OWN), None)
      if made is None:
        raise LookupError
      _check_arguments(made, arguments, where)
      return made(**arguments)
    from inspect_ai._util.registry import registry_lookup  # has no public face

    _check_arguments(registry_lookup("task", name), arguments, where)
    return registry_create("task", name, **arguments)
  except LookupError:
    raise UserError(
      f"{where}.task {name!r} is not known to Inspect: see `inspect list tasks`, or "
      "install the package that has it"
    ) from None
  except UserError:
    raise
  except (TypeError, ValueError) as error:
    raise UserError(f"{where}.task_args: {error}") from None


def _check_arguments(task: Any, arguments: Mapping[str, Any], where: str) -> None:
  """Refuses a value that a task would replace by another one with a mere warning."""
  if task is None:
    raise LookupError
  hints = typing.get_type_hints(task)
  known = python_inspect.signature(task).parameters
  for name, value in arguments.items():
    if name not in known:
      raise UserError(
        f"{where}.task_args has {name}, which the task does not take: it has "
        f"{', '.join(known)}"
      )
    allowed = _literals(hints.get(name))
    if allowed and value not in allowed:
      raise UserError(
        f"{where}.task_args.{name} is {value!r}, not one of "
        f"{', '.join(map(str, allowed))}"
      )


def _literals(hint: Any) -> tuple[Any, ...]:
  """Returns the values that a type allows, none if it is not a list of values."""
  if typing.get_origin(hint) is typing.Literal:
    return typing.get_args(hint)
  parts = typing.get_args(hint)
  if not parts or not all(part is type(None) or _literals(part) for part in parts):
    return ()
  return tuple(v for part in parts for v in (_literals(part) or (None,)))


@contextlib.contextmanager
def _model(exam: Exam, folder: pathlib.Path) -> Iterator[Model]:
  """Yields the model for Inspect."""
  config = exam.config
  title = f"{exam.about['study']}:{exam.about['arm']}:{exam.about['seed']}"
  if config.model != "native":
    with exports.model(exam, title, folder) as found:
      yield found
    return
  mesh = jax.sharding.get_mesh()  # the one of the block that we are in
  asked = Asked(
    subject=exam.subject,
    mesh=mesh,
    about=exam.about,
    transcripts=exam.transcripts,
    system_prompt=exam.system_prompt,
  )
  with providers.serving(title, asked):
    yield get_model(f"msm_jax/{title}", memoize=False, batch_size=config.batch_size)


def _evaluated(
  made: Sequence[inspect_ai.Task], model: Model, exam: Exam, folder: pathlib.Path
) -> list[EvalLog]:
  """Returns the log of each task, unscored.

  Raises:
    UserError: a sample ended in an error.
  """
  config = exam.config
  with _environment(INSPECT_CACHE_DIR=str(folder / "cache"), HF_HUB_OFFLINE="1"):
    found = inspect_ai.eval(
      list(made),
      model=model,
      epochs=config.epochs,
      limit=config.max_items,
      score=False,
      display="none",
      log_level="error",
      log_dir=str(folder),
      log_format="eval",
      metadata=dict(exam.about),
      fail_on_error=True,
      max_tasks=len(made),
      max_samples=None if config.model != "native" else 4096,
      temperature=_temperature(config),
      top_p=config.top_p if config.top_p < 1 else None,
      max_tokens=config.max_new_tokens,
      seed=config.sampling_seed,
      max_connections=config.batch_size if config.model != "native" else 4096,
      # An export's answers are kept by Inspect; ours by the transcripts.
      cache=CachePolicy(expiry=None) if config.model != "native" else None,
    )
  # Interrupted, Inspect gives back what it has.
  if len(found) < len(made) or any(log.status == "cancelled" for log in found):
    raise Stopped("stopped; run again to go on")
  for log in found:
    if log.status != "success":
      raise UserError(f"config.evals.{exam.name}: {_message(log)}")
  return found


def _temperature(config: InspectConfig) -> float | None:
  """Returns what is handed on; Hugging Face's greedy has no temperature."""
  if config.model == "hf" and config.temperature == 0:
    return None
  return config.temperature


def _message(log: EvalLog) -> str:
  text = log.error.message if log.error else f"Inspect ended with {log.status}"
  # What we raised ourselves, without what was put around it.
  for line in text.splitlines():
    if line.strip():
      return line.removeprefix("UserError(").strip("'\")")
  return text


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
  before = {name: os.environ.get(name) for name in values}
  os.environ.update(values)
  try:
    yield
  finally:
    for name, value in before.items():
      if value is None:
        os.environ.pop(name, None)
      else:
        os.environ[name] = value


def _answers(known: Mapping[str, Any], log: EvalLog) -> Iterator[dict[str, Any]]:
  """Yields the answers under a condition; the log's head goes with the first."""
  samples = sorted(log.samples or [], key=lambda one: (str(one.id), one.epoch))
  head = log.model_copy(update={"samples": None}).model_dump(mode="json")
  tag = ",".join(f"{name}={value}" for name, value in known["condition"].items())
  for i, sample in enumerate(samples):
    cluster = (sample.metadata or {}).get("condition_id", f"{tag}:{sample.id}")
    yield {
      "id": f"{tag}:{sample.id}.{sample.epoch}",
      "cluster": str(cluster),
      **known,
      "log": head if i == 0 else None,
      "sample": sample.model_dump(mode="json", exclude=_LEFT_OUT),
    }
