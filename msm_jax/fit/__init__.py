"""Whether training fits on TPUs that are not here, before they are booked.

The training step of a stage, the very one that `train` would run, is compiled ahead of
time with Google's compiler (`libtpu`) for a slice of a given shape. The compiler says
how much memory each chip needs.
"""

import dataclasses
import pathlib
from collections.abc import Iterator

import jax

from msm_jax import topology
from msm_jax.errors import UserError
from msm_jax.experiment import Experiment
from msm_jax.fit import case as case_lib
from msm_jax.fit import compiling, report, search
from msm_jax.fit.search import Fit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
  """What is asked: a slice or a family of slices, for which stages."""

  topology: str
  num_slices: int = 1
  arm: str | None = None
  stage: str | None = None


def run(
  experiment: Experiment, workdir: pathlib.Path | None, question: Question
) -> Iterator[str]:
  """Yields lines as they become known; keeps the outcome in `workdir`, if any.

  A slice is searched for the fastest settings that fit; of a family the smallest slice
  that holds a stage is found.

  Raises:
    UserError: no such TPU, stage or arm, the compiler is not installed, or (at the end)
      a stage does not fit.
  """
  places = topology.parse(question.topology, question.num_slices)
  compiler = f"libtpu {compiling.check_installed()}"
  jax.config.update("jax_platforms", "cpu")  # this process needs no accelerator
  at, refused = workdir or pathlib.Path(), []
  if len(places) == 1:
    search.check_mesh(places[0], experiment.mesh)
  note = case_lib.model(experiment, at).note
  if note:
    yield note
  for case in case_lib.find(experiment, at, question.arm, question.stage):
    yield report.case_line(case)
    fits: list[Fit] = []
    for place in places:
      fit = search.begin(case, place, experiment.mesh)
      yield report.slice_line(fit)
      for fit in search.go_on(fit, compiling.compile_step):  # noqa: B020
        yield report.tried_line(fit.tried[-1], place)
      again = None
      if len(places) > 1 and not (fit.best or fit.problem):
        again = search.begin_again(fit)
      if again is not None:
        yield report.slice_line(again)
        fit = again
        for fit in search.go_on(again, compiling.compile_step):
          yield report.tried_line(fit.tried[-1], place)
      fits.append(fit)
      if workdir:
        report.save(fit, compiler, workdir)
      if fit.best or fit.problem:  # more of the same would not tell
        break
    if fits[-1].best:
      yield from report.best_lines(fits[-1], compiler)
    else:
      refused.append(report.refusal(fits[-1]))
    if len(places) > 1:
      yield from report.table(fits)
  if refused:
    raise UserError("; ".join(refused))
