"""Our providers for Inspect: `msm_jax` (models) and `msm_jax_judge` (graders).

What a name means is looked up where an evaluation of a study serves it, and else with
the openers that `registry.py` sets when Inspect loads us by itself.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from inspect_ai._util.error import PrerequisiteError
from inspect_ai.model import modelapi

from msm_jax.errors import UserError
from msm_jax.evals.inspect import judge_api, subject_api
from msm_jax.evals.inspect.judge_api import Answer
from msm_jax.evals.inspect.subject_api import Asked

STUB = "stub"
_GRADER = "INSPECT_GRADER_MODEL"  # what inspect_evals asks if nothing else is said
_served: dict[str, Asked] = {}
_openers: dict[str, Callable[[str], Any]] = {}


def use(*, checkpoints: Callable[[str], Asked], graders: Callable[[str], Answer]):
  """Sets how names are opened that nobody serves."""
  _openers.update(checkpoints=checkpoints, graders=graders)


@contextlib.contextmanager
def serving(name: str, asked: Asked) -> Iterator[None]:
  """Makes `msm_jax/<name>` this model within the block."""
  _served[name] = asked
  try:
    yield
  finally:
    del _served[name]


@contextlib.contextmanager
def grading_by(judge: str) -> Iterator[None]:
  """Makes `judge` the grader of scorers that ask no model role, within the block."""
  before = os.environ.get(_GRADER)
  os.environ[_GRADER] = judge
  try:
    yield
  finally:
    os.environ.pop(_GRADER)
    if before is not None:
      os.environ[_GRADER] = before


def _open_model(name: str) -> Asked:
  return _served[name] if name in _served else _open("checkpoints", name)


def _open_judge(name: str) -> Answer:
  if name in judge_api.desks():
    return judge_api.desks()[name].answer
  return judge_api.Stub().answer if name == STUB else _open("graders", name)


def _open(what: str, name: str) -> Any:
  if what not in _openers:
    raise UserError(f"{name!r} cannot be opened: pip install this package with Inspect")
  return _openers[what](name)


@contextlib.contextmanager
def _told() -> Iterator[None]:
  """Has Inspect tell what a person can fix in a line, as we do, if it runs alone."""
  try:
    yield
  except UserError as error:
    if _served or judge_api.desks():
      raise
    raise PrerequisiteError(str(error)) from None


@modelapi(name="msm_jax")
def msm_jax():
  """Returns the provider of models."""

  class Provider(subject_api.SubjectAPI):
    def __init__(self, model_name: str, *args: Any, **fields: Any):
      with _told():
        super().__init__(model_name, *args, open_=_open_model, **fields)

  return Provider


@modelapi(name="msm_jax_judge")
def msm_jax_judge():
  """Returns the provider of graders."""

  class Provider(judge_api.JudgeAPI):
    def __init__(self, model_name: str, *args: Any, **fields: Any):
      with _told():
        super().__init__(model_name, *args, open_=_open_judge, **fields)

  return Provider
