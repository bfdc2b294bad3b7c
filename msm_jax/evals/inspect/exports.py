"""An exported checkpoint behind Inspect's `hf` and `vllm` providers.

The chat template has the study's choices written into it, so that reasoning is decided
and a BOS is written once: Hugging Face's tokenizer is told to add none.
"""

import contextlib
import importlib.util
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from inspect_ai.model import GenerateConfig, Model, get_model

from msm_jax.errors import UserError
from msm_jax.evals.exam import Exam
from msm_jax.evals.inspect.settings import InspectConfig
from msm_jax.text import chat_template

_PACKAGES = {"hf": ("torch", "transformers", "accelerate"), "vllm": ("vllm",)}


@contextlib.contextmanager
def model(exam: Exam, title: str, folder: pathlib.Path) -> Iterator[Model]:
  """Yields an export of the subject, which is removed afterwards.

  Raises:
    UserError: what the provider needs is not installed.
  """
  config: InspectConfig = exam.config
  missing = [name for name in _PACKAGES[config.model] if not _is_there(name)]
  if missing:
    raise UserError(
      f"config.evals.{exam.name}.model is {config.model!r}, which needs "
      f"{missing[0]}: pip install {' '.join(missing)}"
    )
  # The path is part of what Inspect's cache knows an answer by.
  out = (folder / f"export-{exam.about['identity']}").absolute()
  if config.model == "vllm" and ":" in str(out):
    raise UserError(f"--workdir: vLLM takes no path with a ':' in it ({out})")
  shutil.rmtree(out, ignore_errors=True)  # of a run that was killed
  exam.export(out)
  try:
    name = f"hf/{title}-{out.name}" if config.model == "hf" else f"vllm/{out}"
    settings, given = _settings(exam), arguments(exam, out)
    # The block ends with its memory, or its server, given back.
    with get_model(name, memoize=False, config=settings, **given) as found:
      yield found
  finally:
    shutil.rmtree(out, ignore_errors=True)


def arguments(exam: Exam, out: pathlib.Path) -> dict[str, Any]:
  """Returns the provider's arguments: ours, and over them those of the config."""
  config: InspectConfig = exam.config
  if config.model == "hf":
    found: dict[str, Any] = {
      "model_path": str(out),
      "batch_size": config.batch_size,
      "do_sample": config.temperature > 0,
      "tokenizer_call_args": {"add_special_tokens": False},  # the template has it
    }
    if chat_template.thinks(exam.tokenizer.chat_template):
      found["enable_thinking"] = exam.tokenizer.choices.thinking != "strip"
  else:
    found = {"max_model_len": exam.subject.context_len}
  return found | dict(config.model_args)


def _settings(exam: Exam) -> GenerateConfig:
  """Returns what goes with each request; vLLM is told of reasoning there."""
  if exam.config.model == "vllm" and chat_template.thinks(exam.tokenizer.chat_template):
    thinking = {"enable_thinking": exam.tokenizer.choices.thinking != "strip"}
    return GenerateConfig(extra_body={"chat_template_kwargs": thinking})
  return GenerateConfig()


def _is_there(name: str) -> bool:
  return importlib.util.find_spec(name) is not None
