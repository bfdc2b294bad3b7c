"""Steps and tokens of stages: exact once rows are packed, else by planned corpora.

Rows of a corpus are estimated as records x tokens of a record / seq_len: packing leaves
next to nothing empty. A tokenizer, and a chat template's marks, make it more or less.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Protocol

from msm_jax import mixture, prepare, records
from msm_jax.errors import UserError
from msm_jax.mixture import DataConfig
from msm_jax.stages import StageConfig


class RecordSize(Protocol):
  """The usual size of a record in tokens: all of it, and what an assistant says."""

  tokens: float
  targets: float


class CorpusSize(Protocol):
  """A corpus as it is, or as generation plans it."""

  num_records: int
  volume: RecordSize


@dataclasses.dataclass(frozen=True, kw_only=True)
class Length:
  """How long a run of a stage is.

  Attributes:
    steps: optimizer steps.
    is_exact: nothing of it is estimated.
    problem: what `prepare` would refuse if the estimate is right; "": nothing.
  """

  steps: int
  is_exact: bool
  problem: str = ""

  @property
  def mark(self) -> str:
    """Returns what stands before figures: `~` before those that are estimated."""
    return "" if self.is_exact else "~"


def length(
  stage: StageConfig, workdir: pathlib.Path, corpora: Mapping[str, CorpusSize]
) -> Length | None:
  """Returns how long a stage is; None while nothing is known of its corpora.

  Args:
    stage: of the study.
    workdir: where rows may be packed already.
    corpora: their sizes, as they are or as they are planned.
  """
  if (prepare.rows_dir(workdir, stage.name) / records.MANIFEST).exists():
    found = prepare.read_rows_manifest(workdir, stage.name)
    return Length(steps=found["num_train_steps"], is_exact=True)
  is_known = all(part.corpus in corpora for part in stage.data)
  if not is_known:
    steps = stage.num_train_steps
    return None if steps is None else Length(steps=steps, is_exact=True)
  num_rows = [_num_rows(stage, part, corpora[part.corpus]) for part in stage.data]
  problem = ""
  try:
    steps = mixture.schedule(stage, num_rows).num_train_steps
  except UserError as error:
    problem = str(error)
    steps = mixture.num_steps(stage, num_rows)
  is_exact = stage.num_train_steps is not None
  return Length(steps=max(steps, 1), is_exact=is_exact, problem=problem)


def _num_rows(stage: StageConfig, part: DataConfig, size: CorpusSize) -> int:
  """Returns about how many rows the records make that a component chooses."""
  total = size.num_records * size.volume.tokens
  each = size.volume.targets if part.train_on == "assistant" else size.volume.tokens
  if part.choice is not None:
    name, wanted = part.choice
    if name == "num_documents":
      total = min(wanted, size.num_records) * size.volume.tokens
    elif each:
      total = min(total, wanted * size.volume.tokens / each)
  return max(math.ceil(total / stage.seq_len), 1)
