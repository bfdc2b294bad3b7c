"""Tasks of Inspect as evaluations of a study: `type='inspect'`.

Inspect itself is imported when it is needed: nothing else of us needs it.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from msm_jax.errors import UserError
from msm_jax.evals.exam import Exam
from msm_jax.evals.grading import Grader
from msm_jax.evals.inspect.settings import InspectConfig


def ask(exam: Exam) -> Iterator[dict[str, Any]]:
  """Yields an answer per condition, sample and epoch."""
  _check_installed(exam.name)
  from msm_jax.evals.inspect import running

  return running.ask(exam)


def grade(
  name: str,
  config: InspectConfig,
  answers: Sequence[Mapping[str, Any]],
  grader: Grader,
) -> Iterator[dict[str, Any]]:
  """Yields the lines."""
  _check_installed(name)
  from msm_jax.evals.inspect import scoring

  return scoring.grade(name, config, answers, grader)


def _check_installed(name: str) -> None:
  try:
    import inspect_ai  # noqa: F401 (the check itself)
  except ImportError:
    raise UserError(
      f"config.evals.{name} is a task of Inspect, which is not installed: "
      "pip install 'msm-jax[eval]'"
    ) from None
