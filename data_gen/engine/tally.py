"""What a run shows of itself: how much is kept, what it cost, what one costs."""

from collections.abc import Callable

from data_gen.engine import entries
from data_gen.engine.limits import Budget
from msm_jax import progress


class Tally:
  """Counts results for a progress bar (None: nothing is shown).

  Args:
    budget: knows what was spent.
    bar: one unit per request.
    kept: returns how many records are kept; None: whole answers are counted.
  """

  def __init__(
    self,
    budget: Budget,
    bar: progress.Progress | None,
    kept: Callable[[], int] | None = None,
  ):
    self._budget, self._bar = budget, bar
    self._whole = 0
    self._kept = kept or (lambda: self._whole)
    self._kept_before, self._spent_before = self._kept(), budget.spent

  def count(self, result: entries.Entry | None) -> None:
    """Counts one request; None: the ledger had its result already."""
    if result is not None and not entries.failure_of(result):
      self._whole += 1
    if self._bar is not None:
      self._bar.advance(1, **self._figures())

  def show(self, **figures: object) -> None:
    """Shows further figures beside the bar."""
    if self._bar is not None:
      self._bar.advance(0, **figures)

  def _figures(self) -> dict[str, str]:
    figures = {"kept": str(self._kept())}
    if self._budget.spent:
      figures["spent"] = f"${self._budget.spent:.2f}"
    if self._budget.unknown:
      figures["perhaps"] = f"+${self._budget.unknown:.2f}"
    spent = self._budget.spent - self._spent_before
    kept = self._kept() - self._kept_before
    if spent > 0 and kept > 0:
      figures["each"] = f"${spent / kept:.5f}"
    return figures
