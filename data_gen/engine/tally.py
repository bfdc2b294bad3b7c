"""What a run shows of itself: how much is kept, what it cost, what one costs."""

import dataclasses
from collections.abc import Callable

from data_gen.engine import entries
from data_gen.engine.limits import Budget
from msm_jax import progress


def is_whole(entry: entries.Entry) -> bool:
  """Whether a result is a whole answer."""
  return not entries.failure_of(entry)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kept:
  """Which records are kept, as far as that is known while requests are out.

  Attributes:
    before: records that are kept whatever comes now.
    counts: whether an answer makes it one more.
  """

  before: int = 0
  counts: Callable[[entries.Entry], bool] = is_whole


class Tally:
  """Counts results for a progress bar (None: nothing is shown).

  Args:
    budget: knows what was spent on everything.
    bar: one unit per request.
    kept: what counts as kept.
    spent: returns what these records have cost, the earlier runs too; None: what was
      spent from now on.
  """

  def __init__(
    self,
    budget: Budget,
    bar: progress.Progress | None,
    kept: Kept | None = None,
    spent: Callable[[], float] | None = None,
  ):
    self._budget, self._bar = budget, bar
    self._counts = (kept or Kept()).counts
    self._num_kept = (kept or Kept()).before
    before = budget.spent
    self._spent = spent or (lambda: budget.spent - before)

  def count(self, result: entries.Entry | None) -> None:
    """Counts the result of one request; None: it is that of another one."""
    if self._bar is None:
      return
    self._num_kept += result is not None and self._counts(result)
    self._bar.advance(1, **self._figures())

  def recall(self, result: Callable[[], entries.Entry | None]) -> None:
    """Counts a request that the ledger has the result of; it is read if it is shown."""
    if self._bar is not None:
      self.count(result())

  def show(self, **figures: object) -> None:
    """Shows further figures beside the bar."""
    if self._bar is not None:
      self._bar.advance(0, **figures)

  def _figures(self) -> dict[str, str]:
    figures = {"kept": str(self._num_kept)}
    if self._budget.spent:
      figures["spent"] = f"${self._budget.spent:.2f}"
    if self._budget.unknown:
      figures["perhaps"] = f"+${self._budget.unknown:.2f}"
    spent = self._spent()
    if spent > 0 and self._num_kept > 0:
      figures["each"] = f"${spent / self._num_kept:.5f}"
    return figures
