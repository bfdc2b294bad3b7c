"""What a workdir has cost, and who may be asked: one budget over all of its ledgers.

WORKDIR/corpus/<name>[.partial]/ledger.jsonl   what a corpus asked
WORKDIR/evals/grader/ledger.jsonl              what the graders of evaluations asked
"""

import asyncio
import pathlib
from collections.abc import Collection, Sequence

from data_gen import clients
from data_gen.clients.settings import ClientSettings
from data_gen.engine import entries, ledger, pricing, scheduler
from msm_jax import errors

LEDGER = "ledger.jsonl"


def grader_ledger(workdir: pathlib.Path) -> pathlib.Path:
  """Returns where the ledger of the graders lies."""
  return workdir / "evals" / "grader" / LEDGER


def budget_for(
  max_dollars: float | None,
  workdir: pathlib.Path,
  own: Collection[pathlib.Path],
  totals: entries.Totals,
) -> scheduler.Budget:
  """Returns what may be spent on a ledger that adds up to `totals`.

  Args:
    max_dollars: over all ledgers of the workdir; None: no limit.
    workdir: of the study.
    own: where that ledger lies, or may lie; the others are read.
    totals: what it adds up to.
  """
  if max_dollars is None:  # only a budget needs to know
    return scheduler.Budget(None, totals.spent, totals.unknown_at_most)
  found = [ledger.totals_in(path) for path in _ledgers(workdir) if path not in own]
  found.append(totals)
  spent, unknown = (t.spent for t in found), (t.unknown_at_most for t in found)
  return scheduler.Budget(max_dollars, sum(spent), sum(unknown))


def _ledgers(workdir: pathlib.Path) -> list[pathlib.Path]:
  """Returns all ledgers, also of corpora that the config no longer has."""
  corpora = sorted((workdir / "corpus").glob(f"*/{LEDGER}"))
  return [*corpora, grader_ledger(workdir)]


def check_client(
  client: ClientSettings,
  where: str,
  max_dollars: float | None,
  stages: Sequence[str] = (),
) -> None:
  """Makes a client once, so that a missing key shows at once.

  Raises:
    UserError: a key is missing, or a budget is set and a price is not known.
  """
  made = clients.make(client, where, stages)
  asyncio.run(made.close())
  if max_dollars is not None and pricing.price_of(client) is None:
    raise errors.UserError(
      f"config.budget.max_dollars is set and the price of {where}.model="
      f"{client.model!r} is not known: set {where}.prices, or max_dollars=None"
    )
