"""The report: tables, plots and one page, from the files of a work directory.

WORKDIR/report/results.csv     arm, seed, evaluation, metric, value, n, and how sure
WORKDIR/report/summary.json    means, intervals, contrasts, stages, provenance
WORKDIR/report/index.html      everything, in one file
WORKDIR/report/*.png           the figures of the page
"""

import os
import pathlib
from collections.abc import Mapping
from typing import Any


def build(
  workdir: str | os.PathLike[str], *, study: Mapping[str, Any] | None = None
) -> pathlib.Path:
  """Writes the report of a work directory and returns the path of its page.

  Only files under `workdir` are read. What is missing or failed is listed on the page
  and in summary.json; it never enters a number.

  Args:
    workdir: the study's directory.
    study: the resolved config as nested plain dicts; WORKDIR/config.json when None.

  Raises:
    UserError: the config's report section is wrong, or a file is damaged (the message
      names file and line).
  """
  # Here: every training process reads `report.settings`, and needs no matplotlib.
  from msm_jax.report import building

  return building.build(pathlib.Path(workdir), study)
