"""Runs one chain: clients, schedulers, the event loop; Ctrl-C ends it well.

The first Ctrl-C or SIGTERM lets the requests in flight finish, so that nothing that is
paid is lost; the second one ends the run at once.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

from data_gen import (
  clients,
  conversations,
  documents,
  ledger,
  pricing,
  scheduler,
  settings,
)
from data_gen import spec as specs
from data_gen.teacher import Teacher
from msm_jax import errors, progress

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_INTERRUPTED = "interrupted: run again to go on; the answers so far are kept"

Chain = documents.Chain | conversations.Chain


def run(
  job: settings.Job,
  name: str,
  book: ledger.Ledger,
  budget: scheduler.Budget,
  target: documents.Target | None,
) -> Chain:
  """Runs the chain of corpus `name` to its end and returns it."""
  try:
    return asyncio.run(_run(job, name, book, budget, target))
  except asyncio.CancelledError:
    raise errors.Stopped(_INTERRUPTED) from None


async def _run(
  job: settings.Job,
  name: str,
  book: ledger.Ledger,
  budget: scheduler.Budget,
  target: documents.Target | None,
) -> Chain:
  corpus = job.corpora[name]
  spec = specs.load_all(job)[corpus.spec]
  async with contextlib.AsyncExitStack() as stack:

    async def start(
      client: settings.ClientSettings, where: str
    ) -> tuple[scheduler.Scheduler, Teacher]:
      made = clients.make(client, where)
      stack.push_async_callback(made.close)
      sender = scheduler.Scheduler(
        made, book, budget, _limits(client), pricing.price_of(client)
      )
      return sender, Teacher(sender, client)

    sender, teacher = await start(job.teacher, "config.teacher")
    senders = [sender]
    chain: Chain
    if isinstance(corpus, settings.DocumentsCorpus):
      chain = documents.Chain(name, corpus, spec, teacher, target)
    else:
      sender, judge = await start(job.judge, "config.judge")
      senders.append(sender)
      chain = conversations.Chain(name, corpus, spec, teacher, judge)
    with _interruptible(senders):
      await chain.run()
  return chain


def _limits(client: settings.ClientSettings) -> scheduler.Limits:
  return scheduler.Limits(
    max_concurrency=client.max_concurrency,
    timeout_s=client.timeout_s,
    max_attempts=client.max_attempts,
  )


@contextlib.contextmanager
def _interruptible(senders: list[scheduler.Scheduler]) -> Iterator[None]:
  """Turns the first signal into a clean stop and the second into a quick one."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return
  loop = asyncio.get_running_loop()
  before = {number: signal.getsignal(number) for number in _SIGNALS}
  for number in _SIGNALS:
    loop.add_signal_handler(number, _stopper(senders, asyncio.current_task()))
  try:
    yield
  finally:
    for number, handler in before.items():
      loop.remove_signal_handler(number)
      signal.signal(number, handler or signal.SIG_DFL)


def _stopper(
  senders: list[scheduler.Scheduler], task: asyncio.Task[Chain]
) -> Callable[[], None]:
  stopped = False

  def stop() -> None:
    nonlocal stopped
    if stopped:
      task.cancel()
      return
    stopped = True
    progress.say("finishing the requests in flight; press Ctrl-C again to end at once")
    for sender in senders:
      sender.stop(errors.Stopped(_INTERRUPTED))

  return stop
