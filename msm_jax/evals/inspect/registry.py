"""What Inspect loads of us (entry point `inspect_ai`): providers and tasks.

inspect eval inspect_evals/agentic_misalignment --model msm_jax/WORKDIR:ARM
inspect eval msm_jax/exfiltration --model msm_jax/WORKDIR:ARM:SEED@STEP
"""

import atexit
import contextlib
import pathlib
from typing import Any

import jax

from msm_jax import experiment, records, subjects
from msm_jax import workdir as workdir_lib
from msm_jax.errors import UserError
from msm_jax.evals.inspect import judge_api, names, providers
from msm_jax.evals.inspect.subject_api import Asked
from msm_jax.evals.inspect.tasks import exfiltration
from msm_jax.runs import Runs

__all__ = ["exfiltration", "open_checkpoint", "open_grader"]


def open_checkpoint(name: str) -> Asked:
  """Returns the model that WORKDIR:ARM[:SEED][@STEP] means.

  Raises:
    UserError: it is not there, or not trained.
  """
  found = names.parse(name)
  config = _config(found.workdir)
  try:
    study = experiment.parse(config)
  except UserError as error:
    raise UserError(f"{found.workdir / workdir_lib.CONFIG}: {error}") from None
  runs = Runs(study, found.workdir)
  path = study.subject_path(found.arm)
  seed = study.seeds[0] if found.seed is None else found.seed
  if seed not in study.seeds:
    raise UserError(f"msm_jax/{name}: seed {seed} is none of {list(study.seeds)}")
  if found.step is not None and not path:
    raise UserError(f"msm_jax/{name}: the arm {found.arm} has no stage and no steps")
  jax.config.update(
    "jax_compilation_cache_dir", str(found.workdir.absolute() / ".xla_cache")
  )
  subject = subjects.open_(runs, found.arm, seed, found.step)
  return Asked(
    subject=subject.model,
    mesh=runs.mesh,
    about=subject.about,
    system_prompt=subject.system_prompt,
  )


def open_grader(name: str) -> judge_api.Answer:
  """Returns a way to ask the grader that WORKDIR[:ROLE] means, `judge` by default."""
  from msm_jax.evals import judge  # a study that asks no grader needs no client

  workdir, _, role = name.partition(":")
  path = pathlib.Path(workdir)
  stack = contextlib.ExitStack()
  grader = stack.enter_context(judge.open_grader(_config(path), path, role or "judge"))
  atexit.register(stack.close)  # costs are entered, the ledger is let go
  return judge_api.asking(grader)


def _config(workdir: pathlib.Path) -> dict[str, Any]:
  path = workdir / workdir_lib.CONFIG
  if not path.exists():
    raise UserError(
      f"{path} is not there: name the workdir of a study, as it was given to launch.py"
    )
  return workdir_lib.normalised(records.read_json(path))


providers.use(checkpoints=open_checkpoint, graders=open_grader)
