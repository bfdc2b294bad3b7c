"""Runs whoever asks: clients, schedulers, the event loop; Ctrl-C ends it well.

The first Ctrl-C or SIGTERM lets the requests in flight finish, so that nothing that is
paid is lost; the second one ends the run at once.
"""

import asyncio
import contextlib
import dataclasses
import pathlib
import signal
import threading
from collections.abc import (
  AsyncIterator,
  Callable,
  Coroutine,
  Iterable,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any, TypeVar

from data_gen import chains, clients, prompts, settings
from data_gen.chains import Chain
from data_gen.clients import protocol
from data_gen.clients import settings as client_settings
from data_gen.engine import ledger, pricing, scheduler
from data_gen.engine.pace import Pace
from data_gen.teacher import Teacher
from msm_jax import errors, progress

T = TypeVar("T")

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTED = "interrupted: run again to go on; the answers so far are kept"


def run(
  job: settings.Job,
  name: str,
  book: ledger.Ledger,
  budget: scheduler.Budget,
  root: pathlib.Path,
) -> Chain:
  """Runs the chain of corpus `name` to its end and returns it.

  Args:
    job: what to make, and who answers.
    name: of the corpus.
    book: the ledger of the corpus.
    budget: what may be spent.
    root: where the finished corpora lie.
  """
  with asyncio.Runner() as runner:
    return complete(runner, _run(job, name, book, budget, root))


async def _run(
  job: settings.Job,
  name: str,
  book: ledger.Ledger,
  budget: scheduler.Budget,
  root: pathlib.Path,
) -> Chain:
  corpus = job.corpora[name]
  clients_ = {role: getattr(job, role) for role in corpus.roles}
  async with answering(clients_, book, budget, corpus.stages) as teachers:
    chain = chains.make(job, name, teachers, root)
    with interruptible(teachers.values()):
      await chain.run()
  return chain


def complete(runner: asyncio.Runner, work: Coroutine[Any, Any, T]) -> T:
  """Returns what `work` comes to; a `Stopped` where it was ended by signals."""
  try:
    return runner.run(work)
  except asyncio.CancelledError:
    raise errors.Stopped(_INTERRUPTED) from None


@contextlib.asynccontextmanager
async def answering(
  asked: Mapping[str, settings.ClientSettings],
  book: ledger.Ledger,
  budget: scheduler.Budget,
  stages: Sequence[str] = (),
  directory: pathlib.Path = prompts.DIRECTORY,
) -> AsyncIterator[dict[str, Teacher]]:
  """Yields somebody who asks for each role; they share ledger and budget.

  Args:
    asked: role -> who answers.
    book: the ledger.
    budget: what may be spent.
    stages: what will be asked; see `clients.make`.
    directory: of the templates.
  """
  paces: dict[str, Pace] = {}
  found: dict[str, Teacher] = {}
  async with contextlib.AsyncExitStack() as stack:
    for role, client in asked.items():
      made = clients.make(client, f"config.{role}", stages)
      sender = _scheduler(made, client, book, budget, paces)
      stack.callback(sender.enter_costs)  # what the caches cost to their end
      stack.push_async_callback(made.close)
      found[role] = Teacher(sender, client, directory)
    yield found


def _scheduler(
  made: protocol.Client,
  client: settings.ClientSettings,
  book: ledger.Ledger,
  budget: scheduler.Budget,
  paces: dict[str, Pace],
) -> scheduler.Scheduler:
  """Returns a sender; those that ask the same model share a pace."""
  limits = _limits(client)
  model = f"{client.client} {client.model}"
  pace = paces.setdefault(f"{model} {client.base_url}", Pace(limits, model))
  in_jobs = client.tier == client_settings.BATCH
  # What is sent beside the batch jobs costs what it costs without them.
  tier = client_settings.STANDARD if in_jobs else client.tier
  return scheduler.Scheduler(
    made,
    book,
    budget,
    limits,
    pricing.price_of(dataclasses.replace(client, tier=tier)),
    in_jobs=in_jobs,
    job_price=pricing.price_of(dataclasses.replace(client, tier=client_settings.BATCH)),
    pace=pace,
  )


def _limits(client: settings.ClientSettings) -> scheduler.Limits:
  start = client.start_concurrency
  return scheduler.Limits(
    max_concurrency=client.max_concurrency,
    timeout_s=client.timeout_s,
    max_attempts=client.max_attempts,
    **({} if start is None else {"start_concurrency": start}),
  )


@contextlib.contextmanager
def interruptible(teachers: Iterable[Teacher]) -> Iterator[None]:
  """Turns the first signal into a clean stop and the second into a quick one."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  loop = asyncio.get_running_loop()
  before = {number: signal.getsignal(number) for number in _SIGNALS}
  for number in _SIGNALS:
    loop.add_signal_handler(number, _stopper(list(teachers), asyncio.current_task()))
  try:
    yield
  finally:
    for number, handler in before.items():
      loop.remove_signal_handler(number)
      signal.signal(number, handler or signal.SIG_DFL)


def _stopper(
  teachers: Sequence[Teacher], task: asyncio.Task[Any]
) -> Callable[[], None]:
  stopped = False

  def stop() -> None:
    nonlocal stopped
    if stopped:
      task.cancel()
      return
    stopped = True
    progress.say("finishing the requests in flight; press Ctrl-C again to end at once")
    for teacher in teachers:
      teacher.stop(errors.Stopped(_INTERRUPTED))

  return stop
